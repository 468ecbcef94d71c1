"""Single documents as the ledger has them, for people who ask: reads only, and never while a transaction waits."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from producer.ledger import Ledger
from producer.ledger_views import ENTRY_COLUMNS, Entry, entry_of, path_range

__all__ = ["Entries", "Entry", "local_time"]


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
        return self._ledger.entry(path)

    def below(self, path: bytes) -> list[Entry]:
        """All documents at or below a path, by path; tombstones too."""
        where, values = ("", ()) if not path else (" WHERE path = ? OR (path > ? AND path < ?)", path_range(path))
        return [entry_of(row) for row in self._ledger.select(f"SELECT {ENTRY_COLUMNS} FROM documents{where}", values)]

    def with_states(self, states: Collection[str]) -> list[Entry]:
        """Settled documents with one of these states, and those that wait after a failed try, by path."""
        marks = ", ".join("?" * len(states))
        found = self._ledger.select(
            f"SELECT {ENTRY_COLUMNS} FROM documents WHERE operation = 'index'"
            f" AND ((wanted_seq <= applied_seq AND state IN ({marks})) OR (wanted_seq > applied_seq AND attempts > 0))",
            tuple(states),
        )
        return [entry_of(row) for row in found]

    def due(self) -> list[Entry]:
        """All documents that wait."""
        found = self._ledger.select(f"SELECT {ENTRY_COLUMNS} FROM documents WHERE wanted_seq > applied_seq")
        return [entry_of(row) for row in found]


def local_time(at: float) -> str:
    """A time as people read it: local time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
