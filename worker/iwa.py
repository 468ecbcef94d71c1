"""The objects of an iWork document since 2013: Snappy-compressed archives of protocol buffers. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Message", "objects"]

#: An archive is unpacked up to this many bytes.
MAX_ARCHIVE_BYTES = 128 << 20


class Message:
    """A message whose fields are read one by one; what is no message raises `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            value: int | bytes
            if key & 7 == 0:
                value, at = _varint(data, at)
            elif key & 7 in (1, 2, 5):
                size, at = _varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
                if at + size > len(data):
                    raise ValueError("a field beyond the end")
                value, at = data[at : at + size], at + size
            else:
                raise ValueError("an unknown type of field")
            self._fields.setdefault(key >> 3, []).append(value)

    def number(self, field: int, default: int = 0) -> int:
        return next((value for value in self._fields.get(field, ()) if isinstance(value, int)), default)

    def all_bytes(self, field: int) -> list[bytes]:
        return [value for value in self._fields.get(field, ()) if isinstance(value, bytes)]

    def bytes(self, field: int) -> bytes:
        return next(iter(self.all_bytes(field)), b"")

    def text(self, field: int) -> str:
        return self.bytes(field).decode("utf-8", "replace")

    def messages(self, field: int) -> list[Message]:
        return [Message(value) for value in self.all_bytes(field)]

    def references(self, field: int) -> list[int]:
        """The identifiers of the objects that a field refers to."""
        return [message.number(1) for message in self.messages(field)]


@dataclass(frozen=True, slots=True)
class _Found:
    identifier: int
    kind: int
    data: bytes


def objects(archive: bytes) -> Iterator[_Found]:
    """Each object with its type. Raises `ValueError` where the archive is damaged."""
    data = b"".join(_unpacked(archive))
    at = 0
    while at < len(data):
        size, at = _varint(data, at)
        info = Message(data[at : at + size])
        at += size
        for part in info.messages(2):
            length = part.number(3)
            if at + length > len(data):
                raise ValueError("an object beyond the end")
            yield _Found(info.number(1), part.number(1), data[at : at + length])
            at += length


def _unpacked(archive: bytes) -> Iterator[bytes]:
    at, total = 0, 0
    while at + 4 <= len(archive):
        size = int.from_bytes(archive[at + 1 : at + 4], "little")
        block = _snappy(archive[at + 4 : at + 4 + size]) if archive[at] == 0 else archive[at + 4 : at + 4 + size]
        at += 4 + size
        total += len(block)
        if total > MAX_ARCHIVE_BYTES:
            raise ValueError("an archive beyond the limit")
        yield block


def _snappy(data: bytes) -> bytes:
    """A block without its frame: literals, and copies of what was written before."""
    size, at = _varint(data, 0)
    if size > 1 << 24:
        raise ValueError("a block beyond the limit")
    out = bytearray()
    while at < len(data) and len(out) < size:
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length = (tag >> 2) + 1
            if length > 60:
                width = length - 60
                length, at = int.from_bytes(data[at : at + width], "little") + 1, at + width
            out += data[at : at + length]
            at += length
            continue
        width = (1, 2, 4)[(tag & 3) - 1]
        offset = int.from_bytes(data[at : at + width], "little")
        at += width
        length = (tag >> 2 & 7) + 4 if width == 1 else (tag >> 2) + 1
        offset |= (tag >> 5) << 8 if width == 1 else 0
        if not 0 < offset <= len(out):
            raise ValueError("a copy of nothing")
        piece = out[-offset:][:length]
        out += (piece * (length // len(piece) + 1))[:length]
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number beyond the end")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number beyond the limit")
