"""How the words in the cells of a Japanese sheet are pronounced, put behind the words. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from worker.package import local

__all__ = ["readings", "with_readings"]


def readings(steps: Iterable[bytes]) -> dict[str, str]:
    """Shared strings of a workbook that have phonetic runs, and those runs together."""
    source = b"".join(steps)
    if b"rPh" not in source:  # nearly all workbooks: not worth the parsing
        return {}
    parser: XMLPullParser[Any] = XMLPullParser(("end",))
    found: dict[str, str] = {}
    try:
        parser.feed(source)
        for event in parser.read_events():
            element: Any = event[-1]
            if local(element.tag) == "si":
                words, reading = _both(element)
                if words and reading:
                    found.setdefault(words, reading)
    except (ParseError, ValueError, LookupError):
        pass  # an aid to reading only: the words themselves are in the text
    return found


def _both(item: Element) -> tuple[str, str]:
    words: list[str] = []
    reading: list[str] = []
    for child in item:
        texts = "".join(element.text or "" for element in child.iter() if local(element.tag) == "t")
        (reading if local(child.tag) == "rPh" else words).append(texts)
    return " ".join("".join(words).split()), "".join(reading)


def with_readings(table: str, found: dict[str, str]) -> str:
    """Markdown tables with the pronunciation in the cells that have one."""
    lines = table.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("| "):
            cells = line.split(" | ")
            lines[number] = " | ".join(_read_out(cell, found) for cell in cells)
    return "\n".join(lines)


def _read_out(cell: str, found: dict[str, str]) -> str:
    words = cell.strip("| ")
    reading = found.get(words)
    return cell.replace(words, f"{words} {reading}", 1) if reading else cell
