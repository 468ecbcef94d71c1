"""The words of a Word document of before 2007 ([MS-DOC]; Word 6 and 95 by their own, shorter head): the text itself and
what stands beside it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from worker.olestreams import Streams
from worker.package import Broken

__all__ = ["words_of"]

#: parts of the text in the order in which they follow each other, and the heading of each; the macros have no words
_PARTS = ("Text", "Footnotes", "Headers and footers", "", "Comments", "Endnotes", "Text boxes", "Text boxes")
#: first version of the head that Word 97 has
_WORD_97 = 0xC1
#: code pages by the primary language of a document of Word 6, which has no Unicode
_PAGES = {0x19: "cp1251", 0x22: "cp1251", 0x23: "cp1251", 0x02: "cp1251", 0x15: "cp1250", 0x05: "cp1250",
          0x0E: "cp1250", 0x18: "cp1250", 0x1A: "cp1250", 0x1B: "cp1250", 0x24: "cp1250", 0x08: "cp1253",
          0x1F: "cp1254", 0x0D: "cp1255", 0x01: "cp1256", 0x26: "cp1257", 0x27: "cp1257"}  # fmt: skip
#: a field: begin, code, separator, result, end; codes of fields within fields go first
_CODE = re.compile("\x13[^\x13\x14\x15]*\x14|\x13[^\x13\x14\x15]*\x15")
_MARKS = re.compile("[\x00-\x06\x08\x0e-\x1d\x1f]")
#: a row of a table: each cell ends with a mark, and so does the row
_ROW = re.compile("(?:[^\r\x07\x0c]*\x07)+?\x07")
_BREAKS = re.compile("[\r\x07\x0c]+")
#: fields within fields that are taken apart
_MOST_DEPTH = 20


def words_of(streams: Streams) -> dict[str, list[str]]:
    """Paragraphs by the heading of the part they are in. Raises Broken."""
    main = streams.read("WordDocument")
    try:
        return _words(streams, main)
    except (struct.error, IndexError, ValueError) as error:
        raise Broken("a damaged Word document") from error


def _words(streams: Streams, main: bytes) -> dict[str, list[str]]:
    version, language, flags = (struct.unpack_from("<H", main, at)[0] for at in (2, 6, 10))
    if version >= _WORD_97:
        lengths = struct.unpack_from("<8i", main, 0x4C)
        table = streams.read("1Table" if flags & 0x200 else "0Table")
        at, size = struct.unpack_from("<II", main, 0x1A2)
        units = b"".join(_pieces(main, table[at : at + size], "utf-16-le", "cp1252"))
    else:
        lengths = struct.unpack_from("<8i", main, 0x34)
        page = _PAGES.get(language & 0x3FF, "cp1252")
        at, size = struct.unpack_from("<II", main, 0x160)
        first, last = struct.unpack_from("<II", main, 0x18)
        table = main[at : at + size]
        plain = main[first:last].decode(page, "replace").encode("utf-16-le")
        units = b"".join(_pieces(main, table, page, page)) if flags & 0x4 else plain
    found: dict[str, list[str]] = {}
    start = 0
    for heading, length in zip(_PARTS, lengths, strict=True):
        end = start + max(0, length)
        if heading:
            text = units[2 * start : 2 * end].decode("utf-16-le", "replace")
            found.setdefault(heading, []).extend(_paragraphs(text))
        start = end
    return found


def _pieces(main: bytes, clx: bytes, wide: str, narrow: str) -> Iterator[bytes]:
    """The text in reading order by the piece table, which lies behind the changes that are not of interest; as UTF-16,
    in whose units the lengths of the parts are given."""
    at = 0
    while at < len(clx) and clx[at] == 1:
        at += 3 + struct.unpack_from("<H", clx, at + 1)[0]
    if at >= len(clx) or clx[at] != 2:
        raise ValueError("no piece table")
    count = (min(struct.unpack_from("<I", clx, at + 1)[0], len(clx) - at - 5) - 4) // 12
    at += 5
    borders = struct.unpack_from(f"<{count + 1}I", clx, at)
    for index in range(count):
        length = borders[index + 1] - borders[index]
        place = struct.unpack_from("<I", clx, at + 4 * (count + 1) + 8 * index + 2)[0]
        if wide == narrow:  # Word 6
            yield _units(main[place : place + length], narrow)
        elif place & 0x40000000:
            first = (place & 0x3FFFFFFF) // 2
            yield _units(main[first : first + length], narrow)
        else:
            yield main[place : place + 2 * length]


def _units(data: bytes, encoding: str) -> bytes:
    return data.decode(encoding, "replace").encode("utf-16-le")


def _row(cells: str) -> str:
    return "\r| " + " | ".join(cell.replace("\x0b", " ").strip() for cell in cells[:-2].split("\x07")) + " |\r"


def _paragraphs(text: str) -> Iterator[str]:
    for _ in range(_MOST_DEPTH):
        text, changed = _CODE.subn("", text)
        if not changed:
            break
    for paragraph in _BREAKS.split(_ROW.sub(lambda row: _row(row[0]), text)):
        lines = (" ".join(_MARKS.sub("", line).replace("\x1e", "-").split()) for line in paragraph.split("\x0b"))
        if joined := "\n".join(filter(None, lines)):
            yield joined
