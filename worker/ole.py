"""Opens OLE2 containers: olefile believes the sizes that one states, and goes round in its chains for so long."""

from __future__ import annotations

import io
import struct
from typing import Any

from worker.package import Broken

__all__ = ["is_oversized", "opened"]

_SECTOR = 512
#: places in the head of how many sectors the tables take
_COUNTS = (0x2C, 0x40, 0x48)


def opened(data: bytes) -> Any:
    """An `olefile.OleFileIO` in which no stream is larger than the container. Raises Broken."""
    import olefile

    if len(data) < _SECTOR or any(struct.unpack_from("<I", data, at)[0] > len(data) // _SECTOR for at in _COUNTS):
        raise Broken("a damaged OLE container")
    try:
        file = olefile.OleFileIO(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # olefile meets struct, index and value errors in a damaged container
        raise Broken("a damaged OLE container") from error
    for entry in file.direntries:
        if entry is not None and entry.size > len(data):
            entry.size = len(data)
    return file


def is_oversized(data: bytes) -> bool:
    """Whether a container states a size beyond its own, or cannot be opened at all."""
    try:
        return any(entry is not None and entry.size >= len(data) for entry in opened(data).direntries)
    except Broken:
        return True
