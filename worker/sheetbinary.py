"""What the library leaves out of a workbook of before 2007 ([MS-XLS]): the words in headers and footers, in drawings,
comments and charts."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from worker.olestreams import Streams
from worker.package import Broken

__all__ = ["words_of"]

_BOF, _CONTINUE, _BIFF8 = 0x0809, 0x3C, 0x0600
_HEADER, _FOOTER, _DRAWN, _SERIES_TEXT = 0x14, 0x15, 0x1B6, 0x100D
_HEADINGS = {
    _HEADER: "Headers and footers",
    _FOOTER: "Headers and footers",
    _DRAWN: "Text boxes",
    _SERIES_TEXT: "Charts",
}
#: codes in headers and footers: where it stands, font, size, page number, file name ...
_CODES = re.compile(r'&(?:"[^"]*"|\d{1,3}|K[0-9A-F]{6}|[A-Z])', re.I)
_SIDES = re.compile(r"&[LCR]")


def words_of(streams: Streams) -> dict[str, list[str]]:
    """Paragraphs by the heading of what they are. Raises Broken."""
    data = streams.read("Workbook") or streams.read("Book")
    found: dict[str, list[str]] = {}
    try:
        for kind, text in _texts(data):
            lines = _SIDES.split(text) if kind in (_HEADER, _FOOTER) else text.splitlines()
            clean = (_CODES.sub("", line.replace("&&", "\0")).replace("\0", "&") for line in lines)
            found.setdefault(_HEADINGS[kind], []).extend(line for raw in clean if (line := " ".join(raw.split())))
    except (struct.error, IndexError) as error:
        raise Broken("a damaged workbook") from error
    return found


def _texts(data: bytes) -> Iterator[tuple[int, str]]:
    wide = True
    waiting = 0  # characters of a drawing whose text the next record has
    for kind, body in _records(data):
        if kind == _BOF and len(body) >= 2:
            wide = struct.unpack_from("<H", body)[0] >= _BIFF8
        elif kind in (_HEADER, _FOOTER) and body:
            yield kind, _counted(body, 2) if wide else body[1 : 1 + body[0]].decode("cp1252", "replace")
        elif kind == _SERIES_TEXT and len(body) > 3:
            yield kind, _counted(body[2:], 1) if wide else body[3 : 3 + body[2]].decode("cp1252", "replace")
        elif kind == _DRAWN and len(body) >= 12:
            waiting = struct.unpack_from("<H", body, 10)[0]
        elif kind == _CONTINUE and waiting and body:
            yield _DRAWN, _characters(body[1:], body[0], waiting)
            waiting = 0


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + size


def _counted(body: bytes, size: int) -> str:
    count = int.from_bytes(body[:size], "little")
    return _characters(body[size + 1 :], body[size] if len(body) > size else 0, count)


def _characters(data: bytes, flags: int, count: int) -> str:
    return data[: 2 * count].decode("utf-16-le", "replace") if flags & 1 else data[:count].decode("latin-1")
