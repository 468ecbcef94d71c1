"""Objects that a document embeds in the manner of OLE 1 ([MS-OLEDS] 2.2). Pure: no I/O."""

from __future__ import annotations

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
        return _package(native) if class_name == "Package" else ("", native)
    except ValueError:
        return "", data


def _counted(data: bytes, at: int) -> tuple[str, int]:
    size = int.from_bytes(data[at : at + 4], "little")
    if at + 4 + size > len(data):
        raise ValueError("a text beyond the end")
    return data[at + 4 : at + 4 + size].rstrip(b"\0").decode("latin-1"), at + 4 + size


def _package(native: bytes) -> tuple[str, bytes]:
    """A file that the Packager wrapped: its label, where it came from and once more, its bytes."""
    label, at = _ended(native, 2)
    _, at = _ended(native, at)
    _, at = _counted(native, at + 4)
    size = int.from_bytes(native[at : at + 4], "little")
    return label, native[at + 4 : at + 4 + size]


def _ended(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a text without an end")
    return data[at:end].decode("cp1252", "replace"), end + 1
