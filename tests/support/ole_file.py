"""Writes an OLE2 container, for tests of what reads one: few streams, all in one piece."""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = ["ole_file"]

_SECTOR, _SMALL, _CUTOFF = 512, 64, 4096
_END, _FREE, _FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD


def ole_file(streams: Mapping[str, bytes]) -> bytes:
    """The container with these streams, "/" between the names of a path."""
    paths = sorted({path[:end] for path in streams for end in _ends(path)} | set(streams))
    small, small_fat, large, fat, starts = bytearray(), [], bytearray(), [], {}
    for path, data in streams.items():
        is_small = len(data) < _CUTOFF
        chain, store, size = (small_fat, small, _SMALL) if is_small else (fat, large, _SECTOR)
        starts[path] = _chained(chain, store, data, size)
    root_start = _chained(fat, large, bytes(small), _SECTOR)
    small_start = _chained(fat, large, struct.pack(f"<{len(small_fat)}I", *small_fat), _SECTOR, b"\xff")
    entries = _entries(paths, streams, starts, (root_start, len(small)))
    directory_start = _chained(fat, large, entries, _SECTOR)
    sectors = (len(fat) + 1 + 126) // 127
    table = [*fat, *[_FAT] * sectors]
    table += [_FREE] * (sectors * 128 - len(table))
    large += struct.pack(f"<{len(table)}I", *table)
    return _header(len(fat), sectors, directory_start, small_start, len(small_fat)) + bytes(large)


def _ends(path: str) -> list[int]:
    return [at for at, letter in enumerate(path) if letter == "/"]


def _chained(chain: list[int], store: bytearray, data: bytes, size: int, filler: bytes = b"\0") -> int:
    """Where the data start, appended to the store as one chain."""
    if not data:
        return _END
    count, start = -(-len(data) // size), len(chain)
    chain += [*range(start + 1, start + count), _END]
    store += data.ljust(count * size, filler)
    return start


def _entries(paths: list[str], streams: Mapping[str, bytes], starts: Mapping[str, int], root: tuple[int, int]) -> bytes:
    numbers = {path: number for number, path in enumerate(paths, 1)}
    siblings = {parent: [p for p in paths if p.rpartition("/")[0] == parent] for parent in ["", *paths]}

    def entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
        wide = (name + "\0").encode("utf-16-le")
        head = wide.ljust(64, b"\0") + struct.pack("<HBB", len(wide), kind, 1)
        return head + struct.pack("<III", _FREE, right, child) + bytes(36) + struct.pack("<IQ", start, size)

    def first(parent: str) -> int:
        return numbers[siblings[parent][0]] if siblings[parent] else _FREE

    rows = [entry("Root Entry", 5, _FREE, first(""), *root)]
    for path in paths:
        parent, _, name = path.rpartition("/")
        after = siblings[parent][siblings[parent].index(path) + 1 :]
        right = numbers[after[0]] if after else _FREE
        if path in streams:
            rows.append(entry(name, 2, right, _FREE, starts[path], len(streams[path])))
        else:
            rows.append(entry(name, 1, right, first(path), 0, 0))
    return b"".join(rows)


def _header(fat_start: int, fat_sectors: int, directory: int, small_fat: int, small_sectors: int) -> bytes:
    small_fat_sectors = -(-small_sectors * 4 // _SECTOR)
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<IIIIIIIII", 0, fat_sectors, directory, 0, _CUTOFF, small_fat, small_fat_sectors, _END, 0)
    places = [*range(fat_start, fat_start + fat_sectors), *[_FREE] * (109 - fat_sectors)]
    return head + struct.pack("<109I", *places)
