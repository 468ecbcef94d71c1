"""The page about formats says of each kind who reads it."""

from __future__ import annotations

import re
from pathlib import Path

import worker
from worker import filetype
from worker.libraries import LIBRARIES, library_of

PAGE = (Path(worker.__file__).parents[1] / "docs" / "formats.md").read_text("utf-8")


def rows() -> dict[str, str]:
    """Kind -> who reads it, by the first table of the page."""
    table = PAGE.split("## What is taken")[1].split("\n## ")[0]
    cells = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    return {kind: row[3] for row in cells[1:] for kind in re.split(r",\s*", row[1].strip())}


def test_each_kind_has_its_row() -> None:
    source = Path(filetype.__file__).read_text("utf-8")
    kinds = set(re.findall(r'Format\("([a-z0-9]+)"', source)) | set(filetype._EXTENSIONS)
    assert kinds - {"protected"} <= set(rows())


def test_each_row_names_the_libraries() -> None:
    for kind, libraries in LIBRARIES.items():
        assert all(name in rows()[kind] for name in libraries), kind
    assert library_of("7z").startswith("py7zr ")
    assert library_of("text").startswith("headwater ")
