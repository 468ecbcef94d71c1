"""Compaction of the embedded index: when it pays, what was written meanwhile, and the files it moves.

A shard keeps the vectors of deleted points until its segments are merged, and searches those it has not merged yet one
by one. Merging takes minutes, so it happens to a copy, in a child: copy, optimise, catch up with what was written
since, and swap the two directories. Killed at any moment, either the old shard is in its place or the new one is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headwater.failpoints import reach
from headwater.state import write_atomically

__all__ = [
    "Changes",
    "Journal",
    "Upkeep",
    "Wear",
    "clear_leftovers",
    "copy_shard",
    "settle_swap",
    "size_of",
    "swap",
    "sync_log",
    "sync_tree",
]

#: written points after which the engine flushes all its files, so that its log stays short
_CHECKPOINT_POINTS = 4_000
#: seconds after which it does so in any case
_CHECKPOINT_S = 30.0
#: points a second from which on the processors are needed for the writing
_BUSY_POINTS_S = 20.0
#: a compaction may keep one processor busy for at most this part of the time
_MOST_COMPACTING = 0.1
#: new points from which on merging makes a search faster
_LEAST_FRESH = 20_000
#: while much is written, the processors are needed for that: then only a search that gets slow is a reason
_LEAST_FRESH_BUSY = 40_000


@dataclass(frozen=True, slots=True)
class Wear:
    """What has happened to a shard since its last compaction. ``points`` is how many it had then, ``written`` how many
    have been written since, ``index_id`` which index that was."""

    index_id: str
    points: int = 0
    written: int = 0

    def plus(self, written: int) -> Wear:
        return Wear(self.index_id, self.points, self.written + written)

    def is_due(self, points: int, *, busy: bool, least_dead: int) -> bool:
        """Whether a shard that has so many points now is worth a compaction: a quarter of its vectors may be dead
        (written, and the number of points has not grown by it), or half of it is new and so searched one by one."""
        dead = self.written - (points - self.points)
        if not busy and dead >= least_dead and 4 * dead >= points:
            return True
        return self.written >= (_LEAST_FRESH_BUSY if busy else _LEAST_FRESH) and 2 * self.written >= points

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path, index_id: str) -> Wear | None:
        """The wear of that index; None if it is not known."""
        try:
            wear = cls(**json.loads(path.read_text("utf-8")))
            return wear if wear.index_id == index_id and wear.points >= 0 <= wear.written else None
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written to a shard: calls that say themselves what they do, then documents to look up."""

    calls: Sequence[tuple[str, tuple[Any, ...]]]
    documents: frozenset[str]

    def __len__(self) -> int:
        return len(self.calls) + len(self.documents)


class Journal:
    """Notes what is written while a copy is compacted. A write is noted when it has ended, whether well or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[tuple[str, tuple[Any, ...]]] = []
        self._documents: set[str] = set()

    def note_documents(self, document_ids: Sequence[str]) -> None:
        with self._lock:
            self._documents.update(document_ids)

    def note_call(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A write that names no document: deleting by seq or by point."""
        with self._lock:
            self._calls.append((method, arguments))

    def take(self) -> Changes:
        """What was noted since the last time. The calls go first: a document is looked up later than they were."""
        with self._lock:
            taken = Changes(tuple(self._calls), frozenset(self._documents))
            self._calls.clear()
            self._documents.clear()
        return taken


class Upkeep:
    """When the keeper did what. ``counted`` is the part of the written points that ``wear`` does not know."""

    def __init__(self, wear: Wear) -> None:
        self.wear = wear
        self.counted = 0
        self.looked_at = -1, False
        self.paused_until = 0.0
        self._seen = 0
        self._seen_at = time.monotonic()

    def is_checkpoint_due(self, written: int, only_logged: int, seconds: float) -> bool:
        """Whether the engine is to flush its files: it is idle, or its log of writes gets long."""
        idle = written == self._seen
        return only_logged >= _CHECKPOINT_POINTS or (only_logged > 0 and (idle or seconds >= _CHECKPOINT_S))

    def is_busy(self, written: int, now: float) -> bool:
        """Whether much was written since the last look."""
        rate = (written - self._seen) / max(now - self._seen_at, 1e-3)
        self._seen, self._seen_at = written, now
        return rate >= _BUSY_POINTS_S

    def note_compaction(self, wear: Wear, written: int, began: float, ended: float) -> None:
        self.wear, self.counted = wear, written
        self.paused_until = ended + (ended - began) / _MOST_COMPACTING


# -- files --------------------------------------------------------------------------------------------------


def copy_shard(directory: Path) -> Path:
    """A copy beside the shard, for a compaction. Nobody may write to the shard meanwhile."""
    copy = directory.with_name(f"{directory.name}.compacting")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy, copy_function=_copy_sparse)
    return copy


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file without its holes: the engine's files are made large and filled later (lseek(2), SEEK_DATA)."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    return
                raise
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.lseek(writer.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(writer.fileno(), reader.fileno(), start, end - start)


def size_of(directory: Path) -> int:
    """Bytes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def swap(directory: Path, compacted: Path) -> None:
    """Put the compacted shard in the place of the other. Between the two renames the place is empty,
    and whoever opens the index finishes the swap (``settle_swap``)."""
    ready = directory.with_name(f"{directory.name}.compacted")
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(compacted, ready)
    _sync(directory.parent)
    os.rename(directory, old)
    try:
        reach("index:swapping")
        os.rename(ready, directory)
    except OSError:
        if not directory.is_dir():  # else a reader found the place empty and was faster
            os.rename(old, directory)
            raise
    _sync(directory.parent)
    reach("index:swapped")


def settle_swap(directory: Path) -> None:
    """End the swap of a compacted shard into its place, if the process that did it died between its two renames."""
    compacted = directory.with_name(f"{directory.name}.compacted")
    if not directory.exists():
        with contextlib.suppress(FileNotFoundError):
            os.rename(compacted, directory)


def clear_leftovers(directory: Path) -> None:
    """Remove what a compaction left that did not end. Only for the process that may write, and once the index is
    in its place (``settle_swap``)."""
    if not directory.exists() and directory.with_name(f"{directory.name}.old").exists():
        return  # never the last copy
    for suffix in ("compacting", "compacted", "old", "compacting.opening"):
        leftover = directory.with_name(f"{directory.name}.{suffix}")
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def sync_tree(directory: Path) -> None:
    """Make every file below durable that is still there when its turn comes."""
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            _sync(path)


def sync_log(directory: Path) -> None:
    """Make the shard's log of writes durable, and with it every write that has returned.

    The engine writes its log through a memory map and syncs it only when it flushes everything, which keeps it busy
    for 20 to 170 ms; the kernel writes the same pages for whoever asks (fsync(2)). The engine may start a new file
    meanwhile.
    """
    log = directory / "wal"
    before: list[str] | None = None
    while (names := sorted(os.listdir(log))) != before:
        before = names
        for name in names:
            try:
                _sync(log / name)
            except FileNotFoundError:
                before = None
        _sync(log)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
