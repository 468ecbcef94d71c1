"""Writes an OLE2 container ([MS-CFB], version 3): what an old Office document embeds is a part of its container, and
becomes a file again here. Pure: no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["container"]

_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SECTOR, _SMALL_SECTOR, _SMALL_STREAM = 512, 64, 4096
_END, _FREE, _TABLE, _MORE_TABLE, _NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFFF
#: sectors of the table that the head itself names, and that a further list of them names
_IN_HEAD, _IN_LIST = 109, 127
_STORAGE, _STREAM, _ROOT = 1, 2, 5


@dataclass(slots=True)
class _Entry:
    name: str
    kind: int
    data: bytes = b""
    children: dict[str, _Entry] = field(default_factory=dict)
    number: int = 0
    left: int = _NONE
    right: int = _NONE
    child: int = _NONE
    start: int = 0
    size: int = 0


def container(streams: Mapping[tuple[str, ...], bytes]) -> bytes:
    """The bytes of a container with these streams, by their paths."""
    root = _tree(streams)
    entries = [root]
    _number(root, entries)
    small = b""
    small_table: list[int] = []
    chains: list[bytes] = []
    table: list[int] = []
    for entry in entries:
        entry.size = len(entry.data)
        if not entry.data:
            entry.start = _END if entry.kind == _STREAM else 0
        elif entry.size < _SMALL_STREAM:
            entry.start = _chain(small_table, entry.size, _SMALL_SECTOR)
            small += _padded(entry.data, _SMALL_SECTOR)
        else:
            entry.start = _chain(table, entry.size, _SECTOR)
            chains.append(_padded(entry.data, _SECTOR))
    root.start, root.size = (_chain(table, len(small), _SECTOR) if small else _END), len(small)
    small_map = _padded(struct.pack(f"<{len(small_table)}I", *small_table), _SECTOR, b"\xff")
    small_start = _chain(table, len(small_map), _SECTOR) if small_map else _END
    listed = _padded(b"".join(map(_directory_entry, entries)), _SECTOR)
    listed_start = _chain(table, len(listed), _SECTOR)
    body = [*chains, _padded(small, _SECTOR), small_map, listed]
    return _assembled(body, table, listed_start, small_start, len(small_map) // _SECTOR)


def _tree(streams: Mapping[tuple[str, ...], bytes]) -> _Entry:
    root = _Entry("Root Entry", _ROOT)
    for path, data in streams.items():
        at = root
        for name in path[:-1]:
            at = at.children.setdefault(name, _Entry(name, _STORAGE))
        at.children[path[-1]] = _Entry(path[-1], _STREAM, data)
    return root


def _number(parent: _Entry, entries: list[_Entry]) -> None:
    """Give the children of an entry their places in the list, as a balanced tree."""
    children = sorted(parent.children.values(), key=lambda entry: (len(entry.name), entry.name.upper()))
    for entry in children:
        entry.number = len(entries)
        entries.append(entry)
    parent.child = _balanced(children)
    for entry in children:
        if entry.children:
            _number(entry, entries)


def _balanced(children: list[_Entry]) -> int:
    if not children:
        return _NONE
    middle = len(children) // 2
    children[middle].left = _balanced(children[:middle])
    children[middle].right = _balanced(children[middle + 1 :])
    return children[middle].number


def _chain(table: list[int], size: int, sector: int) -> int:
    """Take sectors for so many bytes, each naming the next; the first."""
    start, count = len(table), -(-size // sector)
    table += [*range(start + 1, start + count), _END]
    return start


def _padded(data: bytes, size: int, filler: bytes = b"\0") -> bytes:
    return data + filler * (-len(data) % size)


def _directory_entry(entry: _Entry) -> bytes:
    name = entry.name.encode("utf-16-le")[:62]
    head = struct.pack("<64sHBB3I", name, len(name) + 2, entry.kind, 1, entry.left, entry.right, entry.child)
    return head + bytes(36) + struct.pack("<IQ", entry.start, entry.size)


def _assembled(body: list[bytes], table: list[int], listed: int, small: int, small_count: int) -> bytes:
    count, more = _table_sectors(len(table))
    first = len(table)
    table = [*table, *[_TABLE] * count, *[_MORE_TABLE] * more]
    places = list(range(first, first + count))
    head = struct.pack("<8s16sHHHHH6xII", _SIGNATURE, bytes(16), 0x3E, 3, 0xFFFE, 9, 6, 0, count)
    head += struct.pack("<IIIIIII", listed, 0, _SMALL_STREAM, small, small_count, first + count if more else _END, more)
    head += struct.pack(f"<{_IN_HEAD}I", *(places[:_IN_HEAD] + [_FREE] * (_IN_HEAD - len(places[:_IN_HEAD]))))
    written = _padded(struct.pack(f"<{len(table)}I", *table), _SECTOR, b"\xff")
    return b"".join((head, *body, written, *_further(places[_IN_HEAD:], first + count)))


def _table_sectors(used: int) -> tuple[int, int]:
    """Sectors that the table takes for these, itself and the lists of its sectors."""
    count = more = 0
    while True:
        needed = -(-(used + count + more) // (_SECTOR // 4))
        listed = -(-max(0, needed - _IN_HEAD) // _IN_LIST)
        if (needed, listed) == (count, more):
            return count, more
        count, more = needed, listed


def _further(places: list[int], at: int) -> Iterator[bytes]:
    for start in range(0, len(places), _IN_LIST):
        chunk = places[start : start + _IN_LIST]
        at += 1
        last = start + _IN_LIST >= len(places)
        yield struct.pack("<128I", *chunk, *[_FREE] * (_IN_LIST - len(chunk)), _END if last else at)
