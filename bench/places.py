"""Whether hits stand where they say: lines looked up with sed, pages with pdftotext, neither of which is ours."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.documents import MODEL, SUPPORT
from bench.pack import NoData
from headwater.hit import Hit

#: share of a chunk's words that must stand on its page: pdftotext divides and joins some words otherwise
_LEAST_SHARE = 0.9
_FIRST_WORDS = ("function", "table", "index", "value", "package", "command")
_WORD = re.compile(r"[A-Za-z]{4,}")


def run(work: Path, folder: Path | None, hits: int) -> dict[str, Any]:
    """So many random hits of a folder's index, half of them with pages."""
    if folder is None:
        raise NoData("--folder names no folder")
    state = work / "state"
    subprocess.run(
        [sys.executable, "-m", "headwater", "up", str(folder), "--state-dir", str(state), "--once", "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HEADWATER_MODEL": MODEL, "PYTHONPATH": str(SUPPORT)},
    )
    with_pages = _random_hits(folder, state, "kind:pdf", hits // 2)
    with_lines = _random_hits(folder, state, "-kind:pdf", hits - len(with_pages), lines=True)
    wrong = [_named(hit) for hit in with_pages if not _is_on_page(folder, hit)]
    wrong += [_named(hit) for hit in with_lines if not _is_on_lines(folder, hit)]
    results = {"pages": len(with_pages), "lines": len(with_lines), "wrong": wrong}
    Console().print(f"{len(with_pages)} hits with pages and {len(with_lines)} with lines: {len(wrong)} wrong {wrong}")
    return results


def _random_hits(folder: Path, state: Path, where: str, wanted: int, *, lines: bool = False) -> list[Hit]:
    """Hits of questions of two random words each, taken from the hits before; each chunk once."""
    from headwater.query import Index

    chance = random.Random(5)
    words = list(_FIRST_WORDS)
    found: dict[tuple[str, int], Hit] = {}
    with Index.open(folder=folder, state_dir=state) as index:
        for _ in range(50 * wanted):
            if len(found) >= wanted:
                break
            for hit in index.search(" ".join(chance.choices(words, k=2)), 20, mode="sparse", where=where):
                new = _WORD.findall(hit.text)
                words += chance.sample(new, min(3, len(new)))
                if (hit.start_line is not None) == lines and chance.random() < 0.2:
                    found[hit.path, hit.chunk] = hit
    return list(found.values())[:wanted]


def _is_on_page(folder: Path, hit: Hit) -> bool:
    assert hit.page is not None
    page = str(hit.page)
    command = ["pdftotext", "-f", page, "-l", page, "-", "-"]
    text = subprocess.run(command, input=_bytes_of(folder, hit), capture_output=True, check=True).stdout.decode()
    words = set(_WORD.findall(hit.text))
    return len(words & set(_WORD.findall(text))) >= _LEAST_SHARE * len(words)


def _is_on_lines(folder: Path, hit: Hit) -> bool:
    command = ["sed", "-n", f"{hit.start_line},{hit.end_line}p"]
    done = subprocess.run(command, input=_bytes_of(folder, hit), capture_output=True, check=True)
    try:
        shown = done.stdout.decode()
    except UnicodeDecodeError:
        shown = done.stdout.decode("cp1252", "replace")  # what is not UTF-8 in a folder of Western documents
    return "".join(hit.text.split()) in "".join(shown.split())


def _bytes_of(folder: Path, hit: Hit) -> bytes:
    """The file; unpacked if it is a document that is compressed."""
    data = (folder / hit.file).read_bytes()
    return data if hit.member is None else gzip.decompress(data)


def _named(hit: Hit) -> str:
    return f"{hit.path}:{hit.start_line or hit.page}"
