"""The words of a Word document of before 2007 ([MS-DOC]; Word 6 and 95 by their own, shorter head): the text itself and
what stands beside it."""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from worker.officeart import shapes
from worker.olestreams import Streams
from worker.package import Broken
from worker.wordformat import HEADINGS, ROW_END, deleted, paragraph_ends

__all__ = ["TEXT", "words_of"]

#: heading of the text itself
TEXT = "Text"
#: parts of the text in the order in which they follow each other, and the heading of each; the macros have no words
_PARTS = (TEXT, "Footnotes", "Headers and footers", "", "Comments", "Endnotes", "Text boxes", "Text boxes")
#: first version of the head that Word 97 has
_WORD_97 = 0xC1
#: places in the head of Word 97 of the drawings and of the names under which the document was saved
_DRAWINGS, _SAVED = 0x22A, 0x2D2
#: code pages by the primary language of a document of Word 6, which has no Unicode
_PAGES = {0x19: "cp1251", 0x22: "cp1251", 0x23: "cp1251", 0x02: "cp1251", 0x15: "cp1250", 0x05: "cp1250",
          0x0E: "cp1250", 0x18: "cp1250", 0x1A: "cp1250", 0x1B: "cp1250", 0x24: "cp1250", 0x08: "cp1253",
          0x1F: "cp1254", 0x0D: "cp1255", 0x01: "cp1256", 0x26: "cp1257", 0x27: "cp1257", 0x11: "cp932",
          0x12: "cp949"}  # fmt: skip
#: a field: begin, code, separator, result, end; codes of fields within fields go first
_CODE = re.compile("\x13[^\x13\x14\x15]*\x14|\x13[^\x13\x14\x15]*\x15")
_LINK = re.compile(r'\bHYPERLINK\s+"([^"]{1,2000})"')
_MARKS = re.compile("[\x00-\x06\x08\x0e-\x1d\x1f]")
#: Text up to the end of a row, which we mark where the formatting says so, or up to what is in no row. It is taken
#: either way and possessively: where no row ends, it must not be searched again from each of its characters.
_ROW = re.compile("([^\r\x0c\ufdd1-\ufde0]*+)(\ufde0)?")
#: the same where no formatting is known: each cell ends with a mark, and so does the row
_OLD_ROW = re.compile("([^\r\x07\x0c]*+(?:\x07(?!\x07)[^\r\x07\x0c]*+)*+)(\x07\x07)?")
_PARAGRAPH = re.compile("([^\r\x07\x0c\ufdd1-\ufde0]+)(.?)", re.S)
#: fields within fields that are taken apart
_MOST_DEPTH = 20
#: names under which a document was saved
_MOST_NAMES = 40


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of text in the file: where it stands, and how many bytes a character takes."""

    place: int
    length: int
    width: int


def words_of(streams: Streams) -> dict[str, list[str]]:
    """Paragraphs by the heading of the part they are in. Raises Broken."""
    main = streams.read("WordDocument")
    try:
        version, _, flags = (struct.unpack_from("<H", main, at)[0] for at in (2, 6, 10))
        if version < _WORD_97:
            return _parts(_old_units(main), struct.unpack_from("<8i", main, 0x34))
        return _new_words(main, streams.read("1Table" if flags & 0x200 else "0Table"))
    except (struct.error, IndexError, ValueError) as error:
        raise Broken("a damaged Word document") from error


def _new_words(main: bytes, table: bytes) -> dict[str, list[str]]:
    pieces = _pieces(_part(main, table, 0x1A2), len(main))
    units = _units(main, pieces)
    _mark(units, pieces, main, table)
    found = _parts(units, struct.unpack_from("<8i", main, 0x4C))
    for heading, words in shapes(_part(main, table, _DRAWINGS)):
        found.setdefault(heading, []).append(" ".join(words.split()))
    found["Saved as"] = _names(_part(main, table, _SAVED))
    return found


def _part(main: bytes, table: bytes, place: int) -> bytes:
    """A part of the table stream, whose place and length the head has at `place`."""
    if len(main) < place + 8:
        return b""
    at, size = struct.unpack_from("<II", main, place)
    return table[at : at + size]


def _pieces(clx: bytes, most: int) -> list[_Piece]:
    """The piece table, which lies behind the changes that are not of interest; of at most so many characters."""
    at = 0
    while at < len(clx) and clx[at] == 1:
        at += 3 + struct.unpack_from("<H", clx, at + 1)[0]
    if at >= len(clx) or clx[at] != 2:
        raise ValueError("no piece table")
    count = (min(struct.unpack_from("<I", clx, at + 1)[0], len(clx) - at - 5) - 4) // 12
    borders = struct.unpack_from(f"<{count + 1}I", clx, at + 5)
    pieces = []
    for index in range(count):
        place = struct.unpack_from("<I", clx, at + 5 + 4 * (count + 1) + 8 * index + 2)[0]
        length = borders[index + 1] - borders[index]
        most -= length
        if length < 0 or most < 0:
            raise ValueError("pieces beyond the text")
        narrow = bool(place & 0x40000000)
        pieces.append(_Piece((place & 0x3FFFFFFF) // 2 if narrow else place, length, 1 if narrow else 2))
    return pieces


def _units(main: bytes, pieces: list[_Piece], narrow: str = "cp1252") -> array[int]:
    """The text in reading order as UTF-16, in whose units the lengths of the parts are given."""
    units: array[int] = array("H")
    for piece in pieces:
        data = main[piece.place : piece.place + piece.length * piece.width]
        if piece.width == 1:
            data = data.decode(narrow, "replace").encode("utf-16-le")
        whole = data[: 2 * piece.length].ljust(2 * piece.length, b"\0")
        units.extend(memoryview(whole).cast("H"))
    return units


def _mark(units: array[int], pieces: list[_Piece], main: bytes, table: bytes) -> None:
    """Blank out what is deleted, and mark the ends of headings, and of lines and rows in tables."""
    gone, ends = deleted(main, table), paragraph_ends(main, table)
    gone_ends, end_places = [end for _, end in gone], [end for end, _ in ends]
    at = 0
    for piece in pieces:
        last = piece.place + piece.length * piece.width
        for start, end in gone[bisect_right(gone_ends, piece.place) : bisect_left(gone, (last, 0))]:
            first = at + max(0, start - piece.place) // piece.width
            count = at + (min(end, last) - piece.place) // piece.width - first
            units[first : first + count] = array("H", bytes(2 * count))
        for end, mark in ends[bisect_right(end_places, piece.place) : bisect_right(end_places, last)]:
            index = at + (end - piece.place) // piece.width - 1
            if mark == ROW_END or units[index] == 0x0D:
                units[index] = mark
        at += piece.length


def _old_units(main: bytes) -> array[int]:
    """The text of Word 6 and 95: in one piece, or by a piece table if it was saved in haste."""
    language, flags = struct.unpack_from("<H", main, 6)[0], struct.unpack_from("<H", main, 10)[0]
    first, last = struct.unpack_from("<II", main, 0x18)
    pieces = [_Piece(first, max(0, min(last, len(main)) - first), 1)]
    if flags & 0x4:
        at, size = struct.unpack_from("<II", main, 0x160)
        pieces = [_Piece(place, length, 1) for place, length in _old_pieces(main[at : at + size], len(main))]
    return _units(main, pieces, _PAGES.get(language & 0x3FF, "cp1252"))


def _old_pieces(clx: bytes, most: int) -> Iterator[tuple[int, int]]:
    for piece in _pieces(clx, most):
        place = 2 * piece.place | 0x40000000 if piece.width == 1 else piece.place
        yield place, piece.length


def _parts(units: array[int], lengths: tuple[int, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    start = 0
    for heading, length in zip(_PARTS, lengths, strict=True):
        end = start + max(0, length)
        text = units[start:end].tobytes().decode("utf-16-le", "replace")
        if heading:
            found.setdefault(heading, []).extend(_paragraphs(text))
            found.setdefault("Links", []).extend(_LINK.findall(text.replace("\0", "")))
        start = end
    return found


def _names(data: bytes) -> list[str]:
    """The paths under which a document was saved, behind the name of who did it."""
    if data[:2] != b"\xff\xff":
        return []
    count, at = min(struct.unpack_from("<H", data, 2)[0], 2 * _MOST_NAMES), 6
    names = []
    for _ in range(count):
        size = 2 * struct.unpack_from("<H", data, at)[0]
        names.append(data[at + 2 : at + 2 + size].decode("utf-16-le", "replace"))
        at += 2 + size
    return list(dict.fromkeys(names[1::2]))


def _row(cells: list[str]) -> str:
    return "\r| " + " | ".join(" ".join(_MARKS.sub("", cell).split()) for cell in cells) + " |\r"


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs, headings marked as such, and rows of tables."""
    for _ in range(_MOST_DEPTH):
        text, changed = _CODE.subn("", text)
        if not changed:
            break
    rows = _ROW if chr(ROW_END) in text else _OLD_ROW
    text = rows.sub(lambda found: _row(found[1].removesuffix("\x07").split("\x07")) if found[2] else found[0], text)
    for paragraph, end in _PARAGRAPH.findall(text):
        lines = (" ".join(_MARKS.sub("", line).replace("\x1e", "-").split()) for line in paragraph.split("\x0b"))
        if joined := "\n".join(filter(None, lines)):
            yield _as_heading(joined, ord(end)) if end and ord(end) in HEADINGS else _plain(joined)


def _as_heading(words: str, end: int) -> str:
    return f"{'#' * min(6, HEADINGS.index(end) + 1)} {' '.join(words.split())}"


def _plain(words: str) -> str:
    """No line of a document may become a heading by itself."""
    return f"\\{words}" if words.startswith("#") else words
