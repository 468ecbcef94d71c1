"""How the words in the cells of a Japanese sheet are pronounced, put behind the words. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from worker.package import items

__all__ = ["readings", "with_readings"]


def readings(steps: Iterable[bytes]) -> dict[str, str]:
    """Shared strings of a workbook that have phonetic runs, and those runs together."""
    source = b"".join(steps)
    if b"rPh" not in source:  # nearly all workbooks: not worth the parsing
        return {}
    found: dict[str, str] = {}
    for item in items(source):
        words = "".join(text for name, text in item.words if name != "rPh")
        reading = "".join(text for name, text in item.words if name == "rPh")
        if words.strip() and reading.strip():
            found.setdefault(" ".join(words.split()), "".join(reading.split()))
    return found


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
