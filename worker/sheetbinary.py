"""A workbook of before 2007: its cells as tables, and the words in headers and footers, drawings, comments, links and
charts."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import chain

from worker.biff import BOF, CONTINUE, Letters, Sheet, characters, read_sheets, records, version_of
from worker.officeart import shapes
from worker.olestreams import Streams
from worker.package import Broken

__all__ = ["tables_of", "words_of", "workbook"]

_CODE_PAGE, _HEADER, _FOOTER, _NOTE, _OBJECT, _DRAWING, _DRAWN = 0x42, 0x14, 0x15, 0x1C, 0x5D, 0xEC, 0x1B6
_LINK, _SERIES_TEXT = 0x1B8, 0x100D
_COMMENT_BOX = 0x19
#: codes in headers and footers: where it stands, font, size, page number, file name ...
_CODES = re.compile(r'&(?:"[^"]*"|\d{1,3}|K[0-9A-F]{6}|[A-Z])', re.I)
_SIDES = re.compile(r"&[LCR]")
#: identities of what a link may lead to: an address, a file
_ADDRESS, _FILE = bytes.fromhex("e0c9ea79f9bace118c8200aa004ba90b"), bytes.fromhex("0303000000000000c000000000000046")
#: characters of all tables
_MOST_CHARS = 40_000_000


def workbook(streams: Streams) -> bytes:
    return streams.read("Workbook") or streams.read("Book")


def tables_of(data: bytes) -> tuple[str, tuple[int, ...]]:
    """All sheets, each below its name, and where each begins. Raises Broken and Protected."""
    parts: list[str] = []
    starts: list[int] = []
    size = 0
    sheets = read_sheets(data)
    if not any(sheet.rows for sheet in sheets):
        return "", ()  # the names of empty sheets are no text
    for sheet in sheets:
        starts.append(size)
        for part in chain((f"## {' '.join(sheet.name.split())}\n\n",), _table(sheet), ("\n",)):
            if size >= _MOST_CHARS:
                break  # rows of one cell each would be tables of any width
            parts.append(part)
            size += len(part)
    return "".join(parts), tuple(min(start, size) for start in starts)


def _table(sheet: Sheet) -> Iterator[str]:
    """Rows and columns that have something in them."""
    used = sorted({column for row in sheet.rows.values() for column in row})
    for index, number in enumerate(sorted(sheet.rows)):
        row = sheet.rows[number]
        yield f"| {' | '.join(row.get(column, '').replace('|', chr(92) + '|') for column in used)} |\n"
        if index == 0:
            yield f"|{' --- |' * len(used)}\n"


def words_of(data: bytes) -> dict[str, list[str]]:
    """Paragraphs by the heading of what they are. Raises Broken."""
    found: dict[str, list[str]] = {}
    try:
        for heading, text in _texts(data):
            found.setdefault(heading, []).extend(line for raw in text.splitlines() if (line := " ".join(raw.split())))
    except (struct.error, IndexError) as error:
        raise Broken("a damaged workbook") from error
    return found


def _texts(data: bytes) -> Iterator[tuple[str, str]]:
    letters = Letters()
    drawing: list[bytes] = []
    boxes = _Boxes()
    for _, kind, body in records(data):
        if kind in BOF and len(body) >= 2:
            letters.version = version_of(kind, body)
        elif kind == _CODE_PAGE:
            letters.set_page(body)
        elif kind in (_HEADER, _FOOTER) and body:
            yield "Headers and footers", _plain(letters.counted(body, 0, 2 if letters.version == 8 else 1))
        elif kind == _SERIES_TEXT and len(body) > 3:
            yield "Charts", letters.counted(body, 2, 1)
        elif kind == _NOTE and len(body) > 6 and letters.version < 8:
            yield "Comments", body[6:].decode(letters.encoding, "replace")
        elif kind == _LINK:
            yield "Links", _target(body)
        elif kind == _DRAWING:
            drawing.append(body)
        else:
            yield from boxes.texts(kind, body)
    yield from shapes(b"".join(drawing))


class _Boxes:
    """Puts together the text of a box, which begins in one record and goes on in those that continue it."""

    def __init__(self) -> None:
        self._heading = ""
        self._waiting = 0
        self._text: list[str] = []

    def texts(self, kind: int, body: bytes) -> Iterator[tuple[str, str]]:
        if kind == _OBJECT:
            self._heading = "Comments" if body[4:6] == bytes((_COMMENT_BOX, 0)) else "Text boxes"
        elif kind == _DRAWN and len(body) >= 12:
            self._waiting, self._text = struct.unpack_from("<H", body, 10)[0], []
        elif kind == CONTINUE and self._waiting and body:
            self._text.append(characters(body[1:], body[0], self._waiting))
            self._waiting -= max(1, len(self._text[-1]))
            if self._waiting <= 0:
                yield self._heading or "Text boxes", "".join(self._text)


def _plain(text: str) -> str:
    """A header without its codes, left, middle and right on lines of their own."""
    lines = _SIDES.sub("\n", text.replace("&&", "\0"))
    return _CODES.sub("", lines).replace("\0", "&")


def _target(body: bytes) -> str:
    """Where a link leads."""
    if (at := body.find(_ADDRESS)) >= 0:
        size = int.from_bytes(body[at + 16 : at + 20], "little")
        return body[at + 20 : at + 20 + size].decode("utf-16-le", "replace").partition("\0")[0]
    if (at := body.find(_FILE)) >= 0:
        size = int.from_bytes(body[at + 18 : at + 22], "little")
        return body[at + 22 : at + 22 + size].decode("cp1252", "replace").partition("\0")[0]
    return ""
