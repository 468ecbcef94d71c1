"""The OLE2 container of old Office documents: its streams, what its property sets say, and the files within it."""

from __future__ import annotations

import codecs
import struct
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from worker.embedded import FILE_STREAMS, Carried, document_ending, packed_file
from worker.extracted import Member, Refused, flat
from worker.ole import opened
from worker.olewriter import container
from worker.package import Broken

__all__ = ["Streams", "embedded_documents", "embedded_files", "inflated", "members", "property_sets"]

#: bytes of one stream that is read whole
_MOST_BYTES = 256 << 20
#: properties of one set, and characters of one value
_MOST_PROPERTIES = 1000
_MOST_VALUE = 4000
#: files within one document, and bytes of those that are taken out of it at once
_MOST_FILES = 1000
_MOST_FILE_BYTES = 128 << 20
_SUMMARY, _DOCUMENT_SUMMARY = "\x05summaryinformation", "\x05documentsummaryinformation"
#: property numbers of [MS-OLEPS] 2.5 and [MS-OSHARED] 2.3.3.2, and our names
_OF_SUMMARY = {2: "title", 3: "subject", 4: "author", 5: "keywords", 6: "description", 12: "created", 13: "modified",
               14: "pages"}  # fmt: skip
_OF_DOCUMENT_SUMMARY = {2: "category", 7: "pages", 14: "manager", 15: "company"}
_CUSTOM = bytes.fromhex("05d5cdd59c2e1b10939708002b2cf9ae")
_UNICODE = 1200
#: streams that are a file, and the one of the Packager, which names it
_PACKED = "\x01ole10native"
_PACKED_OR_FILE = (_PACKED, *FILE_STREAMS)


class Streams:
    """The streams of a container by their paths, of which case does not matter. Raises Broken."""

    def __init__(self, data: bytes) -> None:
        self._file = opened(data)
        self._paths = {"/".join(path).lower(): path for path in self._file.listdir(storages=False)}
        #: True once a stream was shorter than it should be
        self.cut_off = False

    def names(self) -> list[str]:
        return list(self._paths)

    def has(self, *names: str) -> bool:
        return any(name.lower() in self._paths for name in names)

    def within(self, place: str) -> Mapping[tuple[str, ...], str]:
        """The streams below a storage: their paths from there, as they are written, and their names here."""
        depth = place.count("/") + 1
        return {tuple(path[depth:]): name for name, path in self._paths.items() if name.startswith(f"{place}/")}

    def read(self, name: str) -> bytes:
        """All of a stream; nothing of one that is not there."""
        path = self._paths.get(name.lower())
        if path is None:
            return b""
        try:
            data: bytes = self._file.openstream(path).read(_MOST_BYTES)
            self.cut_off |= len(data) < min(_MOST_BYTES, self._file.get_size(path))
        except MemoryError:
            raise
        except Exception as error:  # olefile meets struct, index and value errors in a damaged container
            raise Broken("a damaged stream") from error
        return data


# -- property sets ([MS-OLEPS]) -----------------------------------------------------------------------------------


def property_sets(streams: Streams) -> tuple[dict[str, object], dict[str, str]]:
    """Properties named as in all formats, and the custom ones by their own names; none of a damaged set."""
    named: dict[str, object] = {}
    custom: dict[str, str] = {}
    for stream, names in ((_SUMMARY, _OF_SUMMARY), (_DOCUMENT_SUMMARY, _OF_DOCUMENT_SUMMARY)):
        try:
            sets = list(_sets(streams.read(stream)))
        except (Broken, struct.error, IndexError, ValueError, OverflowError, LookupError):
            continue  # properties are no text: a document without them is whole
        for identity, values, labels in sets:
            if identity == _CUSTOM:
                custom |= {labels[number]: str(value) for number, value in values.items() if number in labels}
            else:
                named |= {names[number]: value for number, value in values.items() if number in names and value}
    return flat(named), {name: value for name, value in custom.items() if value and not name.startswith("_")}


def _sets(data: bytes) -> Iterator[tuple[bytes, dict[int, Any], dict[int, str]]]:
    """Identity, values and names of each set."""
    if len(data) < 48:
        return
    for number in range(min(struct.unpack_from("<I", data, 24)[0], 2)):
        identity = data[28 + 20 * number : 44 + 20 * number]
        start = struct.unpack_from("<I", data, 44 + 20 * number)[0]
        count = min(struct.unpack_from("<I", data, start + 4)[0], _MOST_PROPERTIES)
        places = dict(struct.unpack_from("<II", data, start + 8 + 8 * index) for index in range(count))
        page = struct.unpack_from("<H", data, start + places[1] + 4)[0] if 1 in places else 1252
        labels = _labels(data, start + places.pop(0), page) if 0 in places else {}
        yield identity, {key: _value(data, start + at, page) for key, at in places.items()}, labels


def _labels(data: bytes, at: int, page: int) -> dict[int, str]:
    labels = {}
    count, at = struct.unpack_from("<I", data, at)[0], at + 4
    for _ in range(min(count, _MOST_PROPERTIES)):
        number, length = struct.unpack_from("<II", data, at)
        size = length * (2 if page == _UNICODE else 1)
        labels[number] = _text(data[at + 8 : at + 8 + size], page)
        at += 8 + size + (-size % 4 if page == _UNICODE else 0)
    return labels


def _value(data: bytes, at: int, page: int) -> object:
    kind = struct.unpack_from("<I", data, at)[0] & 0xFFFF
    at += 4
    if kind in (0x1E, 0x1F):
        length = struct.unpack_from("<I", data, at)[0] * (2 if kind == 0x1F else 1)
        return _text(data[at + 4 : at + 4 + min(length, 4 * _MOST_VALUE)], _UNICODE if kind == 0x1F else page)
    if kind == 0x40:
        return _moment(struct.unpack_from("<Q", data, at)[0])
    simple = {2: "<h", 3: "<i", 5: "<d", 0x13: "<I"}.get(kind)
    return struct.unpack_from(simple, data, at)[0] if simple else None


def _moment(ticks: int) -> str | None:
    """A time of Windows: tenths of microseconds since 1601."""
    if not ticks:
        return None
    return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)).isoformat()


def _text(data: bytes, page: int) -> str:
    encoding = "utf-16-le" if page == _UNICODE else "utf-8" if page == 65001 else f"cp{page}"
    codecs.lookup(encoding)
    return " ".join(data.decode(encoding, "replace").split("\0")[0].split())[:_MOST_VALUE]


# -- files within -------------------------------------------------------------------------------------------------


def embedded_files(streams: Streams) -> list[Carried]:
    """Files that the Packager or a program put into a document, with the names and paths that they had."""
    found: list[Carried] = []
    left = _MOST_FILE_BYTES
    wanted = (name for name in streams.names() if "/" in name and name.rpartition("/")[2] in _PACKED_OR_FILE)
    for name in islice(wanted, _MOST_FILES):
        place, _, stream = name.rpartition("/")
        own = f"{place.rpartition('/')[2]}.bin"
        try:
            data = streams.read(name) if left > 0 else b""
        except Broken:
            data = b""
        left -= len(data)
        found.append(packed_file(data, own) if stream == _PACKED else Carried(own, (), data))
    return found


def embedded_documents(streams: Streams) -> Iterator[Member]:
    """Documents that are embedded as a part of the container, each made a container of its own."""
    places: dict[str, set[str]] = {}
    for name in streams.names():
        place, _, stream = name.rpartition("/")
        if place:
            places.setdefault(place, set()).add(stream)
    taken: set[str] = set()
    for place in sorted(places, key=lambda place: place.count("/")):
        ending = document_ending(places[place])
        above = place.split("/")
        if ending is None or any("/".join(above[:depth]) in taken for depth in range(1, len(above))):
            continue  # no document, or within one
        if len(taken) >= _MOST_FILES:
            return
        taken.add(place)
        yield Member(f"{above[-1]}{ending or '.bin'}", partial(_container, streams, place))


def _container(streams: Streams, place: str, most: int) -> bytes:
    parts: dict[tuple[str, ...], bytes] = {}
    left = most
    for path, name in streams.within(place).items():
        try:
            parts[path] = streams.read(name)
        except Broken as error:
            raise Refused("damaged", "a damaged OLE container") from error
        left -= len(parts[path])
        if left < 0:
            break
    return container(parts)[:most]


def members(files: list[Carried]) -> tuple[Member, ...]:
    return tuple(Member(file.name, partial(_start, file.data)) for file in files)


def _start(data: bytes, most: int) -> bytes:
    return data[:most]


def inflated(data: bytes, most: int) -> bytes:
    """Unpacked zlib data, up to a limit. Raises Broken."""
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error as error:
        raise Broken("a damaged object") from error
