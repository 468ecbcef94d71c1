"""Words in pictures and scans, read in the confined extraction child with Tesseract's data of this machine."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from headwater.embedder import Embedder
from headwater.errors import SettingsError
from worker.extract import extract
from worker.ocr import find_data
from worker.sandboxes import Extraction, ExtractionRefused, SandboxPool

try:
    find_data("eng")
    MISSING = ""
except SettingsError as error:
    MISSING = str(error)
needs_data = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def picture(words: str, form: str = "PNG") -> bytes:
    image = Image.new("RGB", (1000, 300), "white")
    ImageDraw.Draw(image).text((60, 100), words, "black", ImageFont.load_default(64))
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def scan(*pages: str) -> bytes:
    first, *others = (Image.open(io.BytesIO(picture(words))) for words in pages)
    out = io.BytesIO()
    first.save(out, "PDF", save_all=True, append_images=others, resolution=100)
    return out.getvalue()


def _pool(embedder: Embedder, homes: Path, ocr: str, timeout_s: float = 60) -> SandboxPool:
    return SandboxPool(
        embedder.tokenizer_json, homes=homes, max_tokens=64, timeout_s=timeout_s, memory_bytes=2 << 30, size=1, ocr=ocr
    )


@pytest.fixture(scope="module")
def reading(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxPool]:
    pool = _pool(embedder, tmp_path_factory.mktemp("homes") / "sandbox", "eng")
    yield pool
    pool.close()


def words_of(found: Extraction) -> str:
    return " ".join(chunk.text for chunk in found.chunks)


@needs_data
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_words_in_a_picture_are_read(reading: SandboxPool, form: str) -> None:
    found = reading.extract(f"a.{form.lower()}", picture("Quarterly harvest report", form))

    assert "Quarterly harvest report" in words_of(found)
    assert (found.kind, found.metadata["ocr"]) == ("image", True)


@needs_data
def test_the_pages_of_a_scan_are_read_each_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", find_data("eng") or "")
    found = extract(scan("First page here", "Second page there"), "scan.pdf", ocr="eng")

    assert (found.partial, found.metadata["ocr"], found.metadata["pages"]) == (None, True, 2)
    assert found.text[: found.pages[1]].strip() == "First page here"
    assert found.text[found.pages[1] :].strip() == "Second page there"


@needs_data
def test_a_scan_is_read_in_the_confined_child(reading: SandboxPool) -> None:
    found = reading.extract("scan.pdf", scan("First page here", "Second page there"))

    assert "First page here" in words_of(found)
    assert "Second page there" in words_of(found)


@needs_data
def test_each_page_of_a_scan_has_the_time_of_a_document(embedder: Embedder, tmp_path: Path) -> None:
    """Four pages, each of which takes more than a quarter of it."""
    pool = _pool(embedder, tmp_path / "sandbox", "eng")
    started = time.monotonic()
    pool.extract("scan.pdf", scan("One page here"))
    one_page_s = time.monotonic() - started
    pool.close()
    pool = _pool(embedder, tmp_path / "sandbox", "eng", timeout_s=max(2.0, 2 * one_page_s))
    found = pool.extract("scan.pdf", scan(*(f"Page number {number} here" for number in range(9))))
    pool.close()
    assert found.partial is None and "Page number 8 here" in words_of(found)


@needs_data
def test_a_picture_without_words_is_refused(reading: SandboxPool) -> None:
    with pytest.raises(ExtractionRefused, match="a picture in which OCR found no words"):
        reading.extract("a.png", picture(""))


@needs_data
def test_a_scan_without_words_is_refused(reading: SandboxPool) -> None:
    with pytest.raises(ExtractionRefused, match="a PDF without a text layer"):
        reading.extract("scan.pdf", scan(""))


def test_without_ocr_pictures_and_scans_are_refused(embedder: Embedder, tmp_path: Path) -> None:
    pool = _pool(embedder, tmp_path / "sandbox", "off")
    try:
        with pytest.raises(ExtractionRefused, match="a picture: its text is read when OCR is switched on"):
            pool.extract("a.png", picture("words"))
        with pytest.raises(ExtractionRefused, match="a PDF without a text layer, perhaps a scan"):
            pool.extract("scan.pdf", scan("words"))
    finally:
        pool.close()


def test_languages_without_data_are_named_with_their_packages(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="apt-get install tesseract-ocr-xx-yy"):
        find_data("xx_yy")
