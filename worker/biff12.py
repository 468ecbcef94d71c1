"""The few records of a binary workbook (.xlsb) that hold words outside of cells [MS-XLSB]. Pure: no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["comments", "header_lines", "sheets"]

_SHEET, _HEADER_FOOTER, _COMMENT_AUTHOR, _COMMENT, _COMMENT_TEXT = 156, 479, 632, 635, 637
#: Strings of a header record, by pairs: header and footer of odd, even and first pages.
_HEADER_STRINGS = 6
_NO_STRING = 0xFFFFFFFF


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each record, up to a damaged one."""
    at = 0
    try:
        while at < len(data):
            kind, at = data[at], at + 1
            if kind & 0x80:
                kind, at = (kind & 0x7F) | (data[at] & 0x7F) << 7, at + 1
            size = 0
            for shift in (0, 7, 14, 21):
                byte, at = data[at], at + 1
                size |= (byte & 0x7F) << shift
                if not byte & 0x80:
                    break
            if at + size > len(data):
                return
            yield kind, data[at : at + size]
            at += size
    except IndexError:
        return


def _string(record: bytes, at: int) -> tuple[str, int]:
    """The string at a place, and the place behind it."""
    if at + 4 > len(record):
        return "", at
    (length,) = struct.unpack_from("<I", record, at)
    at += 4
    if length == _NO_STRING:
        return "", at
    end = min(len(record), at + 2 * length)
    return record[at:end].decode("utf-16-le", "replace"), end


def sheets(workbook: bytes) -> list[tuple[str, str]]:
    """Name and relation of each sheet."""
    found = []
    for kind, record in _records(workbook):
        if kind == _SHEET:
            relation, at = _string(record, 8)
            found.append((_string(record, at)[0], relation))
    return found


def header_lines(sheet: bytes) -> list[str]:
    """Headers and footers with their codes."""
    lines = []
    for kind, record in _records(sheet):
        if kind == _HEADER_FOOTER:
            at = 2
            for _ in range(_HEADER_STRINGS):
                line, at = _string(record, at)
                lines.append(line)
    return [line for line in lines if line]


def comments(part: bytes) -> list[tuple[str, str]]:
    """Author and text of each comment."""
    authors: list[str] = []
    found, author = [], 0
    for kind, record in _records(part):
        if kind == _COMMENT_AUTHOR:
            authors.append(_string(record, 0)[0])
        elif kind == _COMMENT and len(record) >= 4:
            author = int.from_bytes(record[:4], "little")
        elif kind == _COMMENT_TEXT:
            found.append((authors[author] if author < len(authors) else "", _string(record, 1)[0]))
    return found
