"""Frames over pipes between the worker and its extraction children: a JSON header and raw bytes."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

__all__ = ["SIZES", "encoded_frame", "read_frame", "write_frame"]

#: bytes of the header and of the body
SIZES = struct.Struct("!II")
#: no honest frame is larger; a child that claims one is not believed
_MOST_BYTES = 512 * 1024 * 1024


def write_frame(stream: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame and flush. Raises OSError if the other side is gone."""
    stream.write(encoded_frame(header, body))
    stream.write(body)
    stream.flush()


def encoded_frame(header: dict[str, Any], body: bytes) -> bytes:
    """All of a frame but its body."""
    encoded = json.dumps(header).encode("ascii")
    return SIZES.pack(len(encoded), len(body)) + encoded


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None at the end of the stream, in the middle of a frame too, and for a frame too large."""
    sizes = stream.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    header_size, body_size = SIZES.unpack(sizes)
    if header_size + body_size > _MOST_BYTES:
        return None
    header, body = stream.read(header_size), stream.read(body_size)
    if len(header) < header_size or len(body) < body_size:
        return None
    return json.loads(header), body
