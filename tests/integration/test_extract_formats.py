"""Real documents of all kinds, damaged, encrypted and empty ones among them, through the real reader.

The files are not part of the repository; HEADWATER_DATA names the folder that holds `formats/`.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from headwater.decode import decode
from worker.extract import Extracted, Refused, extract

_DATA = os.environ.get("HEADWATER_DATA", "")
FORMATS = Path(_DATA) / "formats"

pytestmark = pytest.mark.skipif(
    not _DATA or not (FORMATS / "manifest.jsonl").is_file(),
    reason="HEADWATER_DATA names no folder with formats/",
)

#: Share of the expected strings found, measured on the whole set, minus a little. What is missing sits in
#: headers, charts, macros and attachments; XML keeps its tags, which then stand between the words.
FLOORS = {
    "text": 1.0, "markdown": 1.0, "json": 1.0, "html": 0.93, "xml": 0.75, "pdf": 0.97,
    "docx": 0.65, "pptx": 0.5, "xlsx": 0.45, "eml": 0.55,
}  # fmt: skip


@cache
def manifest() -> list[dict[str, Any]]:
    lines = (FORMATS / "manifest.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def expected() -> dict[str, dict[str, list[str]]]:
    loaded: dict[str, dict[str, list[str]]] = json.loads((FORMATS / "expect.json").read_text("utf-8"))
    return loaded


@cache
def outcome(path: str) -> Extracted | Refused:
    try:
        return extract((FORMATS / "files" / path).read_bytes(), path)
    except Refused as refused:
        return refused


def tagged(tag: str) -> list[str]:
    return [row["path"] for row in manifest() if tag in row["tags"]]


def comparable(text: str) -> str:
    return re.sub(r"[\s\u200b\xad]+", "", unicodedata.normalize("NFKC", text).casefold())


def found_and_wanted(kind: str) -> tuple[int, int]:
    found = wanted = 0
    for path, strings in expected().items():
        read = outcome(path)
        if isinstance(read, Extracted) and read.kind == kind:
            text = comparable(read.text)
            found += sum(comparable(s) in text for s in strings["must"])
            wanted += len(strings["must"])
    return found, wanted


def test_every_document_is_read_or_refused_with_a_reason() -> None:
    for row in manifest():
        read = outcome(row["path"])
        if isinstance(read, Refused):
            assert read.code and 3 <= len(read.reason) <= 100, row["path"]
        else:
            assert read.text.strip(), row["path"]
            assert list(read.pages) == sorted(read.pages), row["path"]
            assert all(0 <= start <= len(read.text) for start in read.pages), row["path"]
            json.dumps(dict(read.metadata), allow_nan=False)


@pytest.mark.parametrize("kind", FLOORS)
def test_the_words_of_a_kind_are_found(kind: str) -> None:
    found, wanted = found_and_wanted(kind)
    assert wanted and found / wanted >= FLOORS[kind], f"{found} of {wanted}"


def test_nothing_is_read_that_no_reader_would_see() -> None:
    for path, strings in expected().items():
        read = outcome(path)
        text = comparable(read.text) if isinstance(read, Extracted) else ""
        assert not [s for s in strings["must_not"] if comparable(s) in text], path


def test_every_labelled_encoding_is_decoded_right() -> None:
    rows = [row for row in manifest() if row.get("encoding")]
    wrong = []
    for row in rows:
        text = comparable(decode((FORMATS / "files" / row["path"]).read_bytes()).text)
        wrong += [row["path"] for s in expected()[row["path"]]["must"] if comparable(s) not in text]
    # One feed quotes its markup as entities, which the expected string has resolved.
    assert wrong == ["chardet/iso-8859-5-russian/aug32.hole.ru.xml"]


def test_documents_that_need_a_password_are_refused_as_encrypted() -> None:
    unreadable = [row["path"] for row in manifest() if {"encrypted", "pdf-unreadable"} <= set(row["tags"])]
    protected = [p for p in tagged("encrypted") if "protected" in p and p.rsplit(".")[-1] != "pages"]
    for path in {*unreadable, *protected}:
        read = outcome(path)
        assert isinstance(read, Refused) and read.code == "encrypted", path


def test_scans_without_text_are_refused_as_such() -> None:
    for path in tagged("no-text-layer"):
        read = outcome(path)
        assert isinstance(read, Refused) and read.code == "no text layer", path


def test_empty_files_are_refused_as_such() -> None:
    for path in tagged("empty"):
        read = outcome(path)
        assert isinstance(read, Refused) and read.code == "empty", path


def test_pages_of_a_pdf_start_where_their_words_do() -> None:
    read = outcome("docling/pdf/multi_page.pdf")
    assert isinstance(read, Extracted) and len(read.pages) == 5
    starts = [read.text[start : start + 30] for start in read.pages]
    assert starts[0].startswith("The Evolution of the Word") and starts[2].startswith("Specialized Word Processing")


def test_slides_and_sheets_start_at_their_headings() -> None:
    slides, sheets = outcome("markitdown/test.pptx"), outcome("unstructured/stanley-cups.xlsx")
    assert isinstance(slides, Extracted) and isinstance(sheets, Extracted)
    assert len(slides.pages) == 6 and all(slides.text.startswith("## ", start) for start in slides.pages)
    assert [sheets.text[start:].split("\n")[0] for start in sheets.pages] == [
        "## Stanley Cups",
        "## Stanley Cups Since 67",
    ]


def test_a_false_extension_does_not_matter() -> None:
    for path, kind in (("docling/pdf/multi_page.pdf", "pdf"), ("markitdown/test.docx", "docx")):
        data = (FORMATS / "files" / path).read_bytes()
        for name in ("document", "document.txt", "document.html"):
            assert extract(data, name).kind == kind


_CHILD = """
import hashlib, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
from worker.extract import Refused, extract
for path in sys.argv[3:]:
    try:
        read = repr(extract((Path(sys.argv[2]) / path).read_bytes(), path))
    except Refused as refused:
        read = repr((refused.code, refused.reason))
    print(hashlib.sha256(read.encode("utf-8", "replace")).hexdigest())
"""


def test_a_child_with_two_gibibytes_reads_the_same_and_leaves_no_cache(tmp_path: Path) -> None:
    paths = [row["path"] for row in manifest()][::7]
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, "2048", str(FORMATS / "files"), *paths],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONHASHSEED": "7"},
    )
    assert child.stdout.split() == [_digest(outcome(path)) for path in paths]
    # The library unpacks the PDF engine that it carries; anything else would be a cache.
    assert {entry.name for entry in tmp_path.iterdir()} <= {"kreuzberg-pdfium"}


def _digest(read: Extracted | Refused) -> str:
    shown = repr((read.code, read.reason)) if isinstance(read, Refused) else repr(read)
    return hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()
