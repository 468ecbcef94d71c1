"""The words of a presentation of before 2007 ([MS-PPT]), among them those that the library leaves out: of masters,
notes, comments, headers and footers."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from worker.extracted import Member
from worker.olestreams import Streams, inflated
from worker.package import Broken

__all__ = ["objects_in", "words_of"]

_STREAM = "PowerPoint Document"
_CHARACTERS, _BYTES, _STRING = 0x0FA0, 0x0FA8, 0x0FBA
_HEADERS, _COMMENT, _OBJECT = 0x0FD9, 0x2EE0, 0x1011
#: what a master says where nothing has been written yet, in the languages of its many makers
_PROMPT = re.compile(
    r"(?:click|klicken|cliquez|haga clic|fare clic|clique|klik)\b.{0,80}|"
    r"(?:second|third|fourth|fifth|zweite|dritte|vierte|fünfte) (?:level|ebene)|[*#\u2039\u203a<>\d\s]{0,12}",
    re.I | re.S,
)
_MOST_OBJECTS = 1000
_MOST_OBJECT_BYTES = 128 << 20


def words_of(streams: Streams) -> dict[str, list[str]]:
    """Paragraphs by the heading of what they are. Raises Broken."""
    found: dict[str, list[str]] = {}
    for path, kind, body in _records(streams.read(_STREAM)):
        if kind == _STRING and not {_HEADERS, _COMMENT} & set(path):
            continue  # names of fonts, tags and the like
        if kind not in (_STRING, _CHARACTERS, _BYTES):
            continue
        text = body.decode("latin-1" if kind == _BYTES else "utf-16-le", "replace")
        heading = "Comments" if _COMMENT in path else "Headers and footers" if _HEADERS in path else "Text"
        lines = (" ".join(line.split()) for line in re.split("[\r\n\x0b]+", text))
        found.setdefault(heading, []).extend(line for line in lines if not _PROMPT.fullmatch(line))
    return found


def objects_in(streams: Streams) -> Iterator[Member]:
    """Embedded OLE objects, each a container of its own."""
    number = 0
    for _, kind, body in _records(streams.read(_STREAM)):
        if kind == _OBJECT and number < _MOST_OBJECTS:
            number += 1
            try:
                data = inflated(body[4:], _MOST_OBJECT_BYTES)
            except Broken:
                data = body
            yield Member(f"object-{number}.bin", lambda most, data=data: data[:most])  # type: ignore[misc]  # bound at once


def _records(data: bytes) -> Iterator[tuple[tuple[int, ...], int, bytes]]:
    """Records that hold no others, with the types of those they are in."""
    at = 0
    open_until: list[tuple[int, int]] = []
    while at + 8 <= len(data):
        while open_until and at >= open_until[-1][1]:
            open_until.pop()
        head, kind, size = struct.unpack_from("<HHI", data, at)
        at += 8
        if head & 0xF == 0xF:
            open_until.append((kind, at + size))
            if len(open_until) > 100:
                raise Broken("records nested without an end")
        else:
            yield tuple(kind for kind, _ in open_until), kind, data[at : at + size]
            at += size
