"""Single documents as the ledger has them, for people who ask: reads only, and never while a transaction waits."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.document import Fingerprint
from producer.ledger import Ledger, path_range

__all__ = ["Entries", "Entry", "local_time"]

_COLUMNS = (
    "path, operation, wanted_seq, applied_seq, state, size, mtime_ns, ctime_ns, inode, content_hash, chunks, attempts,"
    " reason, due_at, applied_at"
)
#: microseconds of the clock in a seq
_SEQ_PER_S = 1e6


@dataclass(frozen=True, slots=True)
class Entry:
    """One document's row. Times are seconds since the epoch; ``settled_at`` is that of the last outcome, if any."""

    path: bytes
    operation: str
    wanted_seq: int
    applied_seq: int
    #: the last outcome: waiting (none yet), indexed, partial, refused, failed, deleted
    state: str
    fingerprint: Fingerprint | None
    content_hash: str | None
    chunks: int
    attempts: int
    reason: str | None
    due_at: float
    settled_at: float

    @property
    def waiting(self) -> bool:
        """Whether something is still to be done about the document."""
        return self.wanted_seq > self.applied_seq

    @property
    def current(self) -> str:
        """The state that people see: a document that is due waits, whatever came of it before."""
        return "waiting" if self.waiting else self.state

    def wanted_at(self, now: float) -> float | None:
        """When this version was noticed. A seq is the clock in microseconds, unless the clock was set back; then
        None."""
        at = self.wanted_seq / _SEQ_PER_S
        return at if at <= now else None


class Entries:
    """Reads a ledger that other processes may write. Close it, or use it in a ``with``."""

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path, read_only=True)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    def meta(self, name: str) -> str | None:
        return self._ledger.meta(name)

    def one(self, path: bytes) -> Entry | None:
        """The document at a path; a tombstone counts."""
        found = self._ledger.select(f"SELECT {_COLUMNS} FROM documents WHERE path = ?", (path,))
        return _entry(found[0]) if found else None

    def below(self, path: bytes) -> list[Entry]:
        """All documents at or below a path, by path; tombstones too."""
        where, values = ("", ()) if not path else (" WHERE path = ? OR (path > ? AND path < ?)", path_range(path))
        return [_entry(row) for row in self._ledger.select(f"SELECT {_COLUMNS} FROM documents{where}", values)]

    def with_states(self, states: Collection[str]) -> list[Entry]:
        """Settled documents with one of these states, and those that wait after a failed try, by path."""
        marks = ", ".join("?" * len(states))
        found = self._ledger.select(
            f"SELECT {_COLUMNS} FROM documents WHERE operation = 'index'"
            f" AND ((wanted_seq <= applied_seq AND state IN ({marks})) OR (wanted_seq > applied_seq AND attempts > 0))",
            tuple(states),
        )
        return [_entry(row) for row in found]

    def due(self) -> list[Entry]:
        """All documents that wait."""
        found = self._ledger.select(f"SELECT {_COLUMNS} FROM documents WHERE wanted_seq > applied_seq")
        return [_entry(row) for row in found]


def _entry(row: Any) -> Entry:
    path, operation, wanted, applied, state, size, mtime, ctime, inode, *rest = row
    mark = None if size is None else Fingerprint(size, mtime, ctime, inode)
    return Entry(bytes(path), operation, wanted, applied, state, mark, *rest)


def local_time(at: float) -> str:
    """A time as people read it: local time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
