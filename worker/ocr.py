"""Words in pictures, recognised by Tesseract: kreuzberg has it built in, and needs its data for the languages only."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from math import sqrt
from pathlib import Path
from typing import Any

from headwater.errors import SettingsError
from worker.extracted import Extracted, Input, Refused

__all__ = ["find_data", "read_pages", "read_picture", "use_data"]

log = logging.getLogger(__name__)

_OFF = "off"
#: Where packages put Tesseract's data, besides $TESSDATA_PREFIX.
_PLACES = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)
#: dots per inch at which scans are read, and most dots of one page: 12 million take some 400 MB
_DPI = 300
_MOST_DOTS = 12_000_000


def find_data(languages: str) -> str | None:
    """The directory that has Tesseract's data for all of "eng+deu", None for "off".

    Raises SettingsError that says what to install.
    """
    if languages == _OFF:
        return None
    wanted = languages.split("+")
    places = [Path(place) for place in (os.environ.get("TESSDATA_PREFIX"), *_PLACES) if place]
    for place in places:
        if all((place / f"{language}.traineddata").is_file() for language in wanted):
            return str(place)
    held = {language for language in wanted if any((place / f"{language}.traineddata").is_file() for place in places)}
    missing = [language for language in wanted if language not in held] or wanted
    packages = " ".join(f"tesseract-ocr-{language.lower().replace('_', '-')}" for language in missing)
    raise SettingsError(
        f"HEADWATER_OCR={languages} needs Tesseract's data for {', '.join(missing)}, which is not on this machine: "
        f"install it (Debian: apt-get install {packages}) or set HEADWATER_OCR=off"
    )


def use_data(directory: str) -> None:
    """Have Tesseract in this process take its data from there."""
    os.environ["TESSDATA_PREFIX"] = directory


def read_picture(found: Input) -> Extracted:
    if not found.ocr:
        raise Refused("unsupported", "a picture: its text is read when OCR is switched on (HEADWATER_OCR)")
    text = _words(found.data, found.mime, found.ocr)
    if not text:
        raise Refused("empty", "a picture in which OCR found no words")
    return Extracted("image", text, metadata={"ocr": True}, own_lines=False)


def read_pages(found: Input, pages: Iterable[tuple[int, float, float]]) -> Iterator[tuple[int, str]]:
    """The words on these pages of a PDF (number from 0, width and height in points).

    A page that cannot be drawn or read is passed over.
    """
    import kreuzberg

    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(found.data)
        file.flush()
        for number, width, height in pages:
            found.on_part()
            try:
                drawn = kreuzberg.render_pdf_page(file.name, number, dpi=_dpi(width, height))
                yield number, _words(drawn, "image/png", found.ocr)
            except (Refused, kreuzberg.KreuzbergError, OSError, RuntimeError, ValueError):
                log.debug("page %d of %s was not read by OCR", number + 1, found.name, exc_info=True)


def _dpi(width: float, height: float) -> int:
    inches = max(width / 72, 0.1) * max(height / 72, 0.1)
    return max(1, min(_DPI, int(sqrt(_MOST_DOTS / inches))))


def _words(picture: bytes, mime: str, languages: str) -> str:
    from kreuzberg import OcrConfig, TesseractConfig

    from worker.office import clean_lines, kreuzberg_result

    tesseract = TesseractConfig(language=languages, output_format="text", enable_table_detection=False, use_cache=False)
    options: dict[str, Any] = {
        "disable_ocr": False,
        "output_format": "plain",
        "pages": None,
        "ocr": OcrConfig(backend="tesseract", language=languages, tesseract_config=tesseract),
    }
    result = kreuzberg_result(Input(picture, "picture", "image", mime), **options)
    return clean_lines(result.content).strip()
