"""Files that an Office document carries: as they are, or within an OLE container. Pure: no I/O."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass

from worker.extracted import Member, Refused
from worker.ole import opened
from worker.package import Broken, Package

__all__ = ["FILE_STREAMS", "Carried", "document_ending", "members", "packed_file", "unpacked"]

#: A larger OLE container is given as it is, for taking it apart needs it in memory.
MAX_CONTAINER_BYTES = 64 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
#: Streams that are a file, in the order in which they are looked for.
FILE_STREAMS = ("package", "contents", "embeddedodf")
#: Streams of a container that is a document itself, with the ending that its name lacks.
_DOCUMENT_STREAMS = {
    "worddocument": ".doc",
    "workbook": ".xls",
    "book": ".xls",
    "powerpoint document": ".ppt",
    "__properties_version1.0": ".msg",
    "visiodocument": ".vsd",
    "encryptedpackage": "",
}
#: Bytes of a path in the head of a packed file.
_MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class Carried:
    """A file from an OLE container: its own name, where it once lay, its bytes."""

    name: str
    paths: tuple[str, ...]
    data: bytes


def unpacked(data: bytes, name: str) -> Carried | None:
    """The file that an OLE container called `name` carries; None when it carries none, only a drawing, say."""
    try:
        with opened(data) as container:
            streams = {"/".join(path).lower(): path for path in container.listdir(storages=False)}
            if native := streams.get("\x01ole10native"):
                return packed_file(container.openstream(native).read(), name)
            for wanted in FILE_STREAMS:
                if wanted in streams:
                    return Carried(name, (), container.openstream(streams[wanted]).read())
            ending = document_ending(streams)
            return None if ending is None else Carried(_renamed(name, ending), (), data)
    except (Broken, MemoryError):
        raise
    except Exception as error:  # olefile meets struct, index and value errors in a damaged container
        raise Broken("a damaged OLE container") from error


def document_ending(streams: Container[str]) -> str | None:
    """The ending that a document with these streams has; None when they are no document."""
    return next((end for stream, end in _DOCUMENT_STREAMS.items() if stream in streams), None)


def _renamed(name: str, ending: str) -> str:
    return name[:-4] + ending if ending and name.lower().endswith(".bin") else name


def packed_file(stream: bytes, name: str) -> Carried:
    """A file with its name and paths, as the Packager writes it; one without them is all file."""
    size = int.from_bytes(stream[:4], "little")
    try:
        label, at = _path(stream, 6)
        source, at = _path(stream, at)
        kept, at = _counted(stream, at + 4)
        length = struct.unpack_from("<I", stream, at)[0]
        if stream[4:6] == b"\x02\x00" and at + 4 + length <= len(stream):
            own = (label or source or kept).replace("\\", "/").rpartition("/")[2]
            return Carried(own or name, tuple(path for path in (source, kept) if path), stream[at + 4 :][:length])
    except (struct.error, ValueError):
        pass  # not the Packager's head
    return Carried(name, (), stream[4 : 4 + size])


def _path(stream: bytes, at: int) -> tuple[str, int]:
    end = stream.index(b"\0", at, at + _MAX_PATH)
    return _decoded(stream[at:end]), end + 1


def _counted(stream: bytes, at: int) -> tuple[str, int]:
    size = struct.unpack_from("<I", stream, at)[0]
    if size > _MAX_PATH:
        raise ValueError("no path")
    return _decoded(stream[at + 4 : at + 4 + size].split(b"\0")[0]), at + 4 + size


def _decoded(path: bytes) -> str:
    """UTF-8 or, as the Packager does not say, Windows' Western letters."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return path.decode("cp1252", "replace")


def carried(package: Package, part: str) -> Carried | None:
    """What an embedded part carries if it is an OLE container, else None."""
    if package.read(part, len(_OLE)) != _OLE or package.size(part) > MAX_CONTAINER_BYTES:
        return None
    return unpacked(package.read(part, MAX_CONTAINER_BYTES), package.full(part).rpartition("/")[2])


def members(package: Package, parts: list[str]) -> Iterator[Member]:
    """The files in these parts, one by one."""
    for part in parts:
        yield from _member(package, part)


def _member(package: Package, part: str) -> Iterator[Member]:
    name = package.full(part).rpartition("/")[2]
    try:
        plain = package.read(part, len(_OLE)) != _OLE or package.size(part) > MAX_CONTAINER_BYTES
        found = None if plain else carried(package, part)
    except Broken:
        plain, found = True, None  # reading it will say so
    if found is not None:
        yield Member(found.name, lambda limit_bytes: found.data[:limit_bytes])
    elif plain:
        yield Member(name, lambda limit_bytes: _bytes(package, part, limit_bytes))


def _bytes(package: Package, part: str, limit_bytes: int) -> bytes:
    try:
        return package.read(part, limit_bytes)
    except Broken as error:
        raise Refused("damaged", "a damaged ZIP container") from error
