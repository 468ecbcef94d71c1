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
from worker.members import Reading, read_deep

_DATA = os.environ.get("HEADWATER_DATA", "")
FORMATS = Path(_DATA) / "formats"

pytestmark = pytest.mark.skipif(
    not _DATA or not (FORMATS / "manifest.jsonl").is_file(),
    reason="HEADWATER_DATA names no folder with formats/",
)

#: Share of the expected strings that must be found: 373 of 381 are. Those that are not: docs/formats.md.
LEAST_SHARE = 0.96


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


@cache
def deep(path: str, passwords: tuple[str, ...] = ()) -> tuple[str, str, list[str]]:
    """What becomes of a file with all that is within it: outcome or code, reason, and all texts and titles."""
    reading = Reading()
    try:
        pieces = list(read_deep((FORMATS / "files" / path).read_bytes(), path, reading, passwords=passwords))
    except Refused as refused:
        return refused.code, refused.reason, []
    partial = reading.why_partial()
    texts = [f"{piece.read.text}\n{piece.read.title or ''}" for piece in pieces]
    return "indexed" if partial is None else "partial", partial or "", texts


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


def test_nearly_all_words_are_found() -> None:
    missed = []
    wanted = 0
    for path, strings in expected().items():
        text = comparable("\n".join(deep(path)[2]))
        missed += [(path, s) for s in strings["must"] if comparable(s) not in text]
        wanted += len(strings["must"])
    assert wanted and 1 - len(missed) / wanted >= LEAST_SHARE, missed


def test_every_file_has_one_outcome_with_a_reason_for_people() -> None:
    codes = {
        "indexed",
        "partial",
        "empty",
        "binary",
        "encrypted",
        "damaged",
        "unsupported",
        "no text layer",
        "too large",
    }
    for row in manifest():
        code, reason, texts = deep(row["path"])
        assert code in codes and bool(texts) == (code in ("indexed", "partial")), row["path"]
        assert code == "indexed" or 3 <= len(reason) <= 400, row["path"]


def test_documents_behind_a_password_are_read_with_it_and_refused_as_encrypted_without() -> None:
    known = tuple(sorted({row["password"] for row in manifest() if row.get("password")}))
    rows = [row for row in manifest() if row.get("password")]
    assert len(rows) > 10
    for row in rows:
        code, _, texts = deep(row["path"], known)
        assert code in ("indexed", "partial") and texts, row["path"]
        assert deep(row["path"])[0] in ("encrypted", "indexed"), row["path"]  # some open without


def test_nothing_is_read_that_no_reader_would_see() -> None:
    for path, strings in expected().items():
        text = comparable("\n".join(deep(path)[2]))
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
    protected = [path for path in tagged("encrypted") if "protected" in path]
    for path in {*unreadable, *protected}:
        assert deep(path)[0] == "encrypted", path


def test_scans_without_text_are_refused_as_such() -> None:
    for path in tagged("no-text-layer"):
        assert deep(path)[0] == "no text layer", path


def test_empty_files_are_refused_as_such() -> None:
    for path in tagged("empty"):
        assert deep(path)[0] == "empty", path


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
