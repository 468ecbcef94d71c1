"""What the formatting of a Word 97 document says of its words: which are deleted, in tables, headings
([MS-DOC] 2.9.33 and 2.9.174). Pure: no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["HEADINGS", "ROW_END", "deleted", "paragraph_ends"]

_PAGE = 512
#: What ends a paragraph of a heading of level 1 to 9, one in a cell, and a row: characters that no text has.
HEADINGS = range(0xFDD1, 0xFDDA)
ROW_END = 0xFDE0
_IN_CELL = 0x0B
#: places in the head of what says where the pages of formatting of characters and of paragraphs are
_CHARACTERS, _PARAGRAPHS = 0xFA, 0x102
_DELETED, _IN_TABLE, _ROW_END, _INNER_ROW_END = 0x0800, 0x2416, 0x2417, 0x244C
#: bytes of what a modifier sets, by its kind; 0 says that a length stands there
_SIZES = (1, 1, 2, 4, 2, 2, 0, 3)
_WIDE_LENGTHS = (0xD606, 0xD608)


def deleted(main: bytes, table: bytes) -> list[tuple[int, int]]:
    """Spans of the file whose letters are deleted, with the changes kept, in order and apart from each other."""
    return [(start, end) for start, end, flags in _runs(main, table, _CHARACTERS) if _DELETED in flags]


def paragraph_ends(main: bytes, table: bytes) -> list[tuple[int, int]]:
    """Where paragraphs that are special end in the file, in order, and the character to put there."""
    ends = [(end, _end(flags)) for _, end, flags in _runs(main, table, _PARAGRAPHS)]
    return [(end, mark) for end, mark in ends if mark]


def _end(flags: frozenset[int]) -> int:
    if _IN_TABLE in flags:
        return ROW_END if flags & {_ROW_END, _INNER_ROW_END} else _IN_CELL
    return next((HEADINGS[style - 1] for style in flags if 1 <= style <= len(HEADINGS)), 0)


def _runs(main: bytes, table: bytes, place: int) -> list[tuple[int, int, frozenset[int]]]:
    """Start, end and what is switched on (or the style of a paragraph) of all runs but those that overlap others."""
    found: list[tuple[int, int, frozenset[int]]] = []
    for page in _pages(main, table, place):
        found += _page_runs(page, place == _PARAGRAPHS)
    found.sort(key=lambda run: run[:2])
    apart: list[tuple[int, int, frozenset[int]]] = []
    for run in found:
        if run[0] < run[1] and (not apart or run[0] >= apart[-1][1]):
            apart.append(run)
    return apart


def _pages(main: bytes, table: bytes, place: int) -> Iterator[bytes]:
    at, size = struct.unpack_from("<II", main, place)
    entries = table[at : at + size]
    count = (len(entries) - 4) // 8
    numbers = struct.unpack_from(f"<{count}I", entries, 4 * (count + 1)) if count > 0 else ()
    for number in dict.fromkeys(number & 0x3FFFFF for number in numbers):
        page = main[_PAGE * number : _PAGE * (number + 1)]
        if len(page) == _PAGE:
            yield page


def _page_runs(page: bytes, paragraphs: bool) -> Iterator[tuple[int, int, frozenset[int]]]:
    count = page[-1]
    width = 13 if paragraphs else 1
    if 4 * (count + 1) + width * count > _PAGE:
        return
    borders = struct.unpack_from(f"<{count + 1}I", page)
    for index in range(count):
        at = 2 * page[4 * (count + 1) + width * index]
        yield borders[index], borders[index + 1], _flags(page, at, paragraphs) if at else frozenset()


def _flags(page: bytes, at: int, paragraph: bool) -> frozenset[int]:
    if not paragraph:
        return _switched_on(page[at + 1 : at + 1 + page[at]])
    size = 2 * page[at] - 1
    if size < 0 and at + 1 < _PAGE:
        at, size = at + 1, 2 * page[at + 1]
    style = int.from_bytes(page[at + 1 : at + 3], "little")  # 1 to 9 are the headings in every document
    return _switched_on(page[at + 3 : at + 1 + size]) | {style}


def _switched_on(modifiers: bytes) -> frozenset[int]:
    found = set()
    at = 0
    while at + 3 <= len(modifiers):
        number = int.from_bytes(modifiers[at : at + 2], "little")
        at += 2
        if number in (_DELETED, _IN_TABLE, _ROW_END, _INNER_ROW_END) and modifiers[at] & 1:
            found.add(number)
        size = _SIZES[number >> 13]
        if number in _WIDE_LENGTHS:
            size = int.from_bytes(modifiers[at : at + 2], "little") + 1
        at += size or 1 + int.from_bytes(modifiers[at : at + 1], "little")
    return frozenset(found)
