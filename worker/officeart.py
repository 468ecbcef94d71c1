"""Words in the properties of shapes in old Office documents ([MS-ODRAW]): WordArt, and what pictures are said to show.
Pure: no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["shape_words", "shapes"]

#: lists of properties, and those properties whose values are words
_LISTS = (0xF00B, 0xF121, 0xF122)
_WORDART, _DESCRIPTION = 0x00C0, 0x0381
_HEADINGS = {_WORDART: "Text boxes", _DESCRIPTION: "Pictures"}
_COMPLEX = 0x8000
#: bytes between the drawings of Word that are no record
_MOST_STRAYS = 1000
#: containers within containers
_MOST_DEPTH = 100


def shape_words(kind: int, head: int, body: bytes) -> Iterator[tuple[str, str]]:
    """Heading and words of one record, if it is a list of properties."""
    count = head >> 4
    if kind not in _LISTS or 6 * count > len(body):
        return
    at = 6 * count
    for index in range(count):
        number, size = struct.unpack_from("<HI", body, 6 * index)
        if not number & _COMPLEX:
            continue
        heading = _HEADINGS.get(number & 0x3FFF)
        if heading:
            words = body[at : at + size].decode("utf-16-le", "replace").partition("\0")[0]
            yield heading, words
        at += size


def shapes(data: bytes) -> Iterator[tuple[str, str]]:
    """The words of all shapes of a drawing."""
    at = strays = 0
    ends: list[int] = []
    while at + 8 <= len(data):
        while ends and at >= ends[-1]:
            ends.pop()
        head, kind, size = struct.unpack_from("<HHI", data, at)
        if not ends and kind & 0xF000 != 0xF000:
            at, strays = at + 1, strays + 1
            if strays > _MOST_STRAYS:
                return
        elif head & 0xF == 0xF and len(ends) < _MOST_DEPTH:
            at += 8
            ends.append(at + size)
        else:
            yield from shape_words(kind, head, data[at + 8 : at + 8 + size])
            at += 8 + size
