"""The objects of a OneNote file: the revision store on disk ([MS-ONESTORE]) and the package that servers send
([MS-FSSHTTPB]). Pure: no I/O; reads no more than the file has, however its parts refer to each other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from worker.extracted import Refused

__all__ = ["FILE", "Damaged", "Properties", "Space", "packaged", "spaces"]

#: In `Properties.values` the GUID of an embedded file, which is no property in the specification.
FILE = 0

_FRAGMENT_MAGIC = 0xA4567AB1F5F7F4C4
_NIL = bytes(20)
_GUID = re.compile(r"<ifndf>\{([0-9A-Fa-f-]{36})\}")
#: Property sets within each other: OneNote has two levels.
_MAX_DEPTH = 8
#: A reference to an object: its GUID and number, or the bytes of the reference where no table tells the GUID.
Identifier = bytes


class Damaged(Exception):
    """A structure that is not what it must be."""


@dataclass(slots=True)
class Properties:
    """One object: its values by property, and the objects that it refers to, in their order."""

    values: dict[int, bytes] = field(default_factory=dict)
    children: list[Identifier] = field(default_factory=list)
    spaces: list[Identifier] = field(default_factory=list)


@dataclass(slots=True)
class _Revision:
    dependent: Identifier = _NIL
    objects: dict[Identifier, Properties] = field(default_factory=dict)
    roots: dict[int, Identifier] = field(default_factory=dict)


@dataclass(slots=True)
class Space:
    """An object space, of a section or a page: what is in its current revision."""

    identifier: Identifier
    objects: dict[Identifier, Properties] = field(default_factory=dict)
    #: By role: 1 is the content, 2 the metadata.
    roots: dict[int, Identifier] = field(default_factory=dict)


class _Reader:
    """The bytes with a place in them; what reads beyond the end is damaged."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data, self.at = data, at
        self.end = len(data) if end is None else min(end, len(data))

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > self.end:
            raise Damaged
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


# The revision store


def spaces(data: bytes) -> tuple[list[Space], dict[bytes, tuple[int, int]], bool]:
    """All object spaces in the order of the file, where each embedded file starts and ends, and whether nothing was
    damaged. Raises `Refused`.
    """
    store = _Store(data)
    at, size = struct.unpack_from("<QI", data.ljust(1024, b"\0"), 172)
    for node in store.nodes(at, size):
        if node.kind == 0x008:  # ObjectSpaceManifestListReferenceFND
            store.space(node)
        elif node.kind == 0x090:  # FileDataStoreListReferenceFND
            for inner in store.nodes(node.at, node.size):
                store.file(inner)
    return store.spaces, store.files, store.whole


@dataclass(slots=True)
class _Node:
    kind: int
    #: What it refers to.
    at: int
    size: int
    rest: _Reader


class _Store:
    def __init__(self, data: bytes) -> None:
        self.spaces: list[Space] = []
        self.files: dict[bytes, tuple[int, int]] = {}
        self.whole = True
        self._data = data
        #: Nodes and property sets may overlap in a hostile file: together they have no more than this many bytes.
        self._budget = 8 * len(data) + 65536
        self._seen: set[int] = set()

    def nodes(self, at: int, size: int) -> Iterator[_Node]:
        """The nodes of a list, fragment by fragment; ends where the list is damaged or was read before."""
        try:
            while at not in self._seen and size >= 36 and at < len(self._data):
                self._seen.add(at)
                fragment = _Reader(self._data, at, at + size)
                if fragment.number(8) != _FRAGMENT_MAGIC:
                    raise Damaged
                fragment.take(8)
                following = _Reader(self._data, at + size - 20, at + size)
                fragment.end = min(fragment.end, following.at)
                yield from self._fragment(fragment)
                at, size = following.number(8), following.number(4)
        except Damaged:
            self.whole = False

    def _fragment(self, fragment: _Reader) -> Iterator[_Node]:
        while fragment.end - fragment.at >= 4:
            start, head = fragment.at, fragment.number(4)
            kind, size = head & 0x3FF, head >> 10 & 0x1FFF
            if kind in (0, 0x0FF) or size < 4:  # the rest of the fragment is unused
                return
            self._spend(size)
            body = _Reader(self._data, fragment.at, min(start + size, fragment.end))
            fragment.at = start + size
            refers = head >> 27 & 0xF
            at, length = _reference(body, head >> 23 & 3, head >> 25 & 3) if refers else (0, 0)
            yield _Node(kind, at, length, body)

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise Damaged

    def file(self, node: _Node) -> None:
        """A FileDataStoreObject, which has its length after its GUID."""
        try:
            reference, head = node.rest.take(16), _Reader(self._data, node.at + 16)
            size = head.number(8)
            self.files[reference] = (node.at + 36, node.at + 36 + size)
        except Damaged:
            self.whole = False

    def space(self, node: _Node) -> None:
        try:
            identifier = node.rest.take(20)
        except Damaged:
            self.whole = False
            return
        manifest = None
        for inner in self.nodes(node.at, node.size):
            if inner.kind == 0x010:  # RevisionManifestListReferenceFND: the last one counts
                manifest = inner
        if manifest is not None:
            self.spaces.append(_Revisions(self).read(identifier, manifest))

    def properties(self, node: _Node, table: dict[int, bytes]) -> Properties | None:
        try:
            self._spend(node.size)
            return _object(_Reader(self._data, node.at, node.at + node.size), table)
        except Damaged:
            self.whole = False
            return None


class _Revisions:
    """The revisions of one object space; those of its history count no more than what they are based on."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._all: dict[Identifier, _Revision] = {}
        self._current = _NIL

    def read(self, identifier: Identifier, manifest: _Node) -> Space:
        revision, table = _Revision(), dict[int, bytes]()
        for node in self._store.nodes(manifest.at, manifest.size):
            try:
                if node.kind in (0x01B, 0x01E, 0x01F):  # RevisionManifestStart4FND, 6 and 7
                    revision, table = self._start(node), {}
                elif node.kind in (0x05C, 0x05D):  # RevisionRoleDeclarationFND, with a context
                    self._declare(node.rest.take(20), node.rest.number(4), node.rest, node.kind == 0x05D)
                elif node.kind == 0x0B0:  # ObjectGroupListReferenceFND
                    inner: dict[int, bytes] = {}
                    for member in self._store.nodes(node.at, node.size):
                        self._member(member, revision, inner)
                else:
                    self._member(node, revision, table)
            except Damaged:
                self._store.whole = False
        return self._merged(identifier)

    def _start(self, node: _Node) -> _Revision:
        rest = node.rest
        identifier, revision = rest.take(20), _Revision(rest.take(20))
        rest.take(8 if node.kind == 0x01B else 0)
        role = rest.number(4)
        rest.take(2)
        self._all[identifier] = revision
        self._declare(identifier, role, rest, node.kind == 0x01F)
        return revision

    def _declare(self, identifier: Identifier, role: int, rest: _Reader, in_context: bool) -> None:
        if role & 0xFFFF == 1 and not (in_context and rest.take(20) != _NIL):
            self._current = identifier

    def _member(self, node: _Node, revision: _Revision, table: dict[int, bytes]) -> None:
        rest = node.rest
        if node.kind == 0x024:  # GlobalIdTableEntryFNDX
            index = rest.number(4)
            table[index] = rest.take(16)
        elif node.kind == 0x059:  # RootObjectReference2FNDX
            root = _resolved(rest.take(4), table)
            revision.roots[rest.number(4)] = root
        elif node.kind == 0x05A:  # RootObjectReference3FND
            root = rest.take(20)
            revision.roots[rest.number(4)] = root
        elif node.kind in (0x072, 0x073):  # ObjectDeclarationFileData3RefCountFND, with a large count
            declared = _resolved(rest.take(4), table)
            rest.take(5 if node.kind == 0x072 else 8)
            reference = _GUID.fullmatch(rest.take(2 * rest.number(4)).decode("utf-16-le", "replace"))
            if reference:
                revision.objects[declared] = Properties({FILE: UUID(reference[1]).bytes_le})
        elif node.kind == 0x07C:  # ObjectDataEncryptionKeyV2FNDX
            raise Refused("encrypted", "protected by a password")
        elif node.kind in (
            0x02D,
            0x02E,
            0x041,
            0x042,
            0x0A4,
            0x0A5,
            0x0C4,
            0x0C5,
        ):  # declarations, revisions of objects
            found = self._store.properties(node, table)
            if found is not None:
                revision.objects[_resolved(rest.take(4), table)] = found

    def _merged(self, identifier: Identifier) -> Space:
        """What the current revision has, and what it keeps of those before it."""
        chain, at = [], self._current
        while at in self._all:
            chain.append(self._all.pop(at))
            at = chain[-1].dependent
        space = Space(identifier)
        for revision in reversed(chain):
            space.objects |= revision.objects
            space.roots |= revision.roots
        return space


def _reference(body: _Reader, at_format: int, size_format: int) -> tuple[int, int]:
    at_size, at_unit = ((8, 1), (4, 1), (2, 8), (4, 8))[at_format]
    size_size, size_unit = ((4, 1), (8, 1), (1, 8), (2, 8))[size_format]
    return body.number(at_size) * at_unit, body.number(size_size) * size_unit


def _resolved(compact: bytes, table: dict[int, bytes]) -> Identifier:
    number, index = compact[0], int.from_bytes(compact[1:], "little")
    return table[index] + number.to_bytes(4, "little") if index in table else compact


# Property sets


def _object(data: _Reader, table: dict[int, bytes]) -> Properties:
    """An ObjectSpaceObjectPropSet: streams of references, then the values."""
    head = data.number(4)
    objects = [_resolved(data.take(4), table) for _ in range(_bounded(head & 0xFFFFFF, data))]
    others: list[Identifier] = []
    if not head >> 31:
        head = data.number(4)
        others = [_resolved(data.take(4), table) for _ in range(_bounded(head & 0xFFFFFF, data))]
        if head >> 30 & 1:
            data.take(4 * _bounded(data.number(4) & 0xFFFFFF, data))
    found = Properties(children=objects, spaces=others)
    _values(data, found, 0)
    return found


def _bounded(count: int, data: _Reader) -> int:
    if 4 * count > data.end - data.at:
        raise Damaged
    return count


def _values(data: _Reader, found: Properties, depth: int) -> None:
    count = data.number(2)
    if depth > _MAX_DEPTH:
        raise Damaged
    for identifier in [data.number(4) for _ in range(_bounded(count, data))]:
        kind = identifier >> 26 & 0x1F
        if kind in (3, 4, 5, 6):
            found.values[identifier & 0x7FFFFFFF] = data.take(1 << kind - 3)
        elif kind == 7:
            found.values[identifier & 0x7FFFFFFF] = data.take(data.number(4))
        elif kind in (9, 0xB, 0xD):
            data.take(4)
        elif kind in (0x10, 0x11):
            inner = data.number(4) if kind == 0x10 else 1
            data.take(4 if kind == 0x10 and inner else 0)
            _bounded(inner // 2, data)  # each has 2 bytes at least
            for _ in range(inner):
                _values(data, found, depth + 1)
        elif kind not in (1, 2, 8, 0xA, 0xC):
            raise Damaged


# The package


def packaged(data: bytes) -> Iterator[Properties]:
    """The objects of a package, in the order of the file. Ends where it is damaged, with `Damaged`."""
    reader = _Reader(data, 68)
    while reader.at < reader.end:
        head = reader.data[reader.at]
        if head & 3 == 1:  # the end of an object, in one byte or in two
            reader.take(1)
            continue
        if head & 3 == 3:
            reader.take(2)
            continue
        if head & 3 == 0:
            value = reader.number(2)
            kind, size = value >> 3 & 0x3F, value >> 9
        else:
            value = reader.number(4)
            kind, size = value >> 3 & 0x3FFF, value >> 17
            size = _compact(reader) if size == 0x7FFF else size
        start = reader.at
        reader.take(size)
        if kind == 0x16:  # ObjectGroupObjectData
            found = _packaged_object(_Reader(data, start, start + size))
            if found is not None:
                yield found


def _packaged_object(data: _Reader) -> Properties | None:
    """What ObjectGroupObjectData holds, None for a file and for the type of an object."""
    for guids in (1, 2):  # the objects that it refers to, the cells
        for _ in range(guids * _compact(data)):
            _skip_guid(data)
    size = _compact(data)
    try:
        return _object(_Reader(data.data, data.at, data.at + size), {}) if size > 9 else None
    except Damaged:
        return None


def _skip_guid(data: _Reader) -> None:
    """An extended GUID, whose number takes as many bytes as its first byte says."""
    first = data.number(1)
    if first:
        data.take({4: 0, 32: 1, 64: 2, 128: 4}.get(first & -first, 0) + 16)


def _compact(data: _Reader) -> int:
    first = data.data[data.at] if data.at < data.end else 0
    if first in (0, 0x80):
        data.take(1)
        return data.number(8) if first else 0
    size = (first & -first).bit_length()
    return data.number(size) >> size
