"""The file of the ledger: its schema, transactions, plain errors, and small facts by name. SQLite, one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.errors import DiskFull, HeadwaterError

__all__ = ["LedgerFile"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    path BLOB PRIMARY KEY,
    operation TEXT NOT NULL DEFAULT 'index',     -- what is wanted: index, delete
    wanted_seq INTEGER NOT NULL,
    applied_seq INTEGER NOT NULL DEFAULT 0,
    noticed_seq INTEGER,                         -- the first wanted_seq of what is due, if it has got another since
    state TEXT NOT NULL DEFAULT 'waiting',       -- last outcome: waiting, indexed, partial, refused, failed, deleted
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    content_hash TEXT,
    chunks INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,         -- tries that failed: of the content tried_hash, if it is known
    tried_hash TEXT,
    tried_seq INTEGER NOT NULL DEFAULT 0,        -- seq of the last try that was counted: each try has one of its own
    reason TEXT,
    lane TEXT NOT NULL DEFAULT 'bulk',
    moved_from BLOB,                             -- old path of a rename that is to go after this one is in
    due_at REAL NOT NULL DEFAULT 0,              -- not before (seconds since the epoch)
    applied_at REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due ON documents (lane DESC, wanted_seq) WHERE wanted_seq > applied_seq;
CREATE INDEX IF NOT EXISTS later ON documents (due_at, lane, wanted_seq) WHERE wanted_seq > applied_seq AND due_at > 0;
CREATE INDEX IF NOT EXISTS moved ON documents (moved_from) WHERE moved_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS recent ON documents (applied_at);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
#: columns that ledgers of earlier versions lack
_ADDED = {"tried_hash": "TEXT", "tried_seq": "INTEGER NOT NULL DEFAULT 0", "noticed_seq": "INTEGER"}


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise DiskFull(f"the disk of the ledger {path} is full: free some space; nothing is lost") from None
        raise HeadwaterError(f"the ledger {path} cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise HeadwaterError(
            f"the ledger {path} is damaged ({error}): delete it, and the next start reads the folder anew"
        ) from error


class LedgerFile:
    """What ``producer.ledger.Ledger`` stands on."""

    """All access to ``ledger.sqlite3``. Not thread-safe: one thread writes; readers open their own."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        with _plain_errors(path):
            uri = f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
            if not read_only:
                self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_SCHEMA}")
                self._add_columns()

    def _add_columns(self) -> None:
        there = {row[1] for row in self._db.execute("PRAGMA table_info(documents)")}
        for name, kind in _ADDED.items():
            if name not in there:
                self._db.execute(f"ALTER TABLE documents ADD COLUMN {name} {kind}")

    def close(self) -> None:
        self._db.close()

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, read to the end here, so that a damaged page is found and named here."""
        with _plain_errors(self._path):
            return self._db.execute(sql, values).fetchall()

    def select(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """For the views of this package that only read."""
        return self._rows(sql, values)

    def _each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query one by one: a whole folder's are not held together."""
        with _plain_errors(self._path):
            yield from self._db.execute(sql, values)

    def _write(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement; outside of a transaction it is one by itself, and may find the disk full."""
        with _plain_errors(self._path):
            return self._db.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable when it ends."""
        with _plain_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # -- small facts -----------------------------------------------------------------------------------------

    def meta(self, name: str) -> str | None:
        rows = self._rows("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, name: str, value: str) -> None:
        self._write(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def set_metas(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self.set_meta(name, value)
