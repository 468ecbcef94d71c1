"""Objects that a document embeds in the manner of OLE 1 ([MS-OLEDS] 2.2). Pure: no I/O."""

from __future__ import annotations

from worker.embedded import packed_file

__all__ = ["unpacked"]


def unpacked(data: bytes) -> tuple[str, bytes]:
    """Name and content of an embedded object; the name is empty where it has none, and the content all that there is
    where it is damaged.
    """
    try:
        class_name, at = _counted(data, 8)
        _, at = _counted(data, at)  # topic
        _, at = _counted(data, at)  # item
        size = int.from_bytes(data[at : at + 4], "little")
        native = data[at + 4 : at + 4 + size]
        if class_name != "Package":
            return "", native
        packed = packed_file(len(native).to_bytes(4, "little") + native, "")
        return packed.name, packed.data
    except ValueError:
        return "", data


def _counted(data: bytes, at: int) -> tuple[str, int]:
    size = int.from_bytes(data[at : at + 4], "little")
    if at + 4 + size > len(data):
        raise ValueError("a text beyond the end")
    return data[at + 4 : at + 4 + size].rstrip(b"\0").decode("latin-1"), at + 4 + size
