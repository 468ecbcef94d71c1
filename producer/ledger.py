"""The record of every document: what is wanted, what is applied. SQLite, one row per document, one writer.

The queue may lose or double anything; this file is what the service believes. Every change of it is one
transaction, written through to the disk before a hint goes out.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.document import Fingerprint
from headwater.errors import DiskFull, HeadwaterError
from headwater.expected import SeenFile
from headwater.messages import Embedded, Item, Lane, Outcome
from producer.census import Version
from producer.diff import Changes, Seen

__all__ = ["Counts", "Due", "Entry", "Ledger", "Row", "path_range"]

#: how long the seq of a deleted document is kept, to fence writes that were under way
_TOMBSTONE_S = 7 * 24 * 3600
#: tries with the same content before the next one, in seconds: 1, 2, 4 ...
_BACKOFF_S = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    path BLOB PRIMARY KEY,
    operation TEXT NOT NULL DEFAULT 'index',     -- what is wanted: index, delete
    wanted_seq INTEGER NOT NULL,
    applied_seq INTEGER NOT NULL DEFAULT 0,
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
CREATE INDEX IF NOT EXISTS moved ON documents (moved_from) WHERE moved_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS recent ON documents (applied_at);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
#: columns that ledgers of earlier versions lack
_ADDED = {"tried_hash": "TEXT", "tried_seq": "INTEGER NOT NULL DEFAULT 0"}
#: tries count for one content: they stay over a touch of the file, and whatever else may change starts them anew
_KEPT_ATTEMPTS = "CASE WHEN tried_hash IS NULL THEN 0 ELSE attempts END"


@dataclass(frozen=True, slots=True)
class Row:
    """One document as people see it."""

    path: bytes
    state: str
    chunks: int
    reason: str | None
    applied_at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """All that the ledger holds of one document, for whoever compares it with folder and index."""

    path: bytes
    operation: str
    wanted_seq: int
    applied_seq: int
    state: str
    chunks: int
    content_hash: str | None
    reason: str | None
    fingerprint: Fingerprint | None

    @property
    def due(self) -> bool:
        return self.wanted_seq > self.applied_seq


@dataclass(frozen=True, slots=True)
class Due:
    """One document that waits: not before ``due_at`` (seconds since the epoch), ``size`` in bytes."""

    item: Item
    lane: Lane
    due_at: float
    moved_from: bytes | None
    size: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Documents by state, and the chunks that the index holds for them."""

    indexed: int = 0
    partial: int = 0
    refused: int = 0
    failed: int = 0
    waiting: int = 0
    chunks: int = 0

    @property
    def documents(self) -> int:
        return self.indexed + self.partial + self.refused + self.failed + self.waiting


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


class Ledger:
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

    # -- what is known ---------------------------------------------------------------------------------------

    def known(
        self, below: bytes | None = None, *, seen: Mapping[bytes, Seen] | None = None
    ) -> dict[bytes, Fingerprint | None]:
        """Fingerprint of each live document, or of those at or below one path. One that is equal to the one ``seen`` is
        the same object: of a large folder, memory holds each once."""
        where, values = ("", ()) if not below else (" AND (path = ? OR (path > ? AND path < ?))", path_range(below))
        sql = f"SELECT path, size, mtime_ns, ctime_ns, inode FROM documents WHERE operation = 'index'{where}"
        found: dict[bytes, Fingerprint | None] = {}
        with _plain_errors(self._path):
            for path, *numbers in self._db.execute(sql, values):
                mark = None if numbers[0] is None else Fingerprint(*numbers)
                twin = None if seen is None else seen.get(path)
                found[path] = twin.fingerprint if twin is not None and twin.fingerprint == mark else mark
        return found

    def counts(self) -> Counts:
        """Documents by state; one that is due counts as waiting."""
        rows = self._rows(
            "SELECT CASE WHEN wanted_seq > applied_seq THEN 'waiting' ELSE state END AS now, count(*), sum(chunks)"
            " FROM documents WHERE state != 'deleted' OR wanted_seq > applied_seq GROUP BY now"
        )
        by_state = {state: number for state, number, _ in rows if state != "deleted"}
        return Counts(chunks=sum(chunks for *_, chunks in rows), **by_state)

    def versions(self) -> Iterator[Version]:
        """Each document's version as the index must hold it: one record and its chunks."""
        rows = self._rows(
            "SELECT path, wanted_seq, applied_seq, chunks, wanted_seq > applied_seq,"
            " operation = 'index' AND state IN ('indexed', 'partial') FROM documents"
        )
        for path, wanted, applied, chunks, due, is_indexed in rows:
            points = None if due else chunks + 1 if is_indexed else 0
            yield Version(bytes(path), wanted, applied, points, bool(is_indexed))

    def holding(self) -> tuple[int, int]:
        """Points that the index must hold, and the highest seq among them, while nothing is due."""
        [row] = self._rows(
            "SELECT count(*) + coalesce(sum(chunks), 0), coalesce(max(applied_seq), 0) FROM documents"
            " WHERE operation = 'index' AND state IN ('indexed', 'partial')"
        )
        return int(row[0]), int(row[1])

    def some_files(self, number: int) -> tuple[SeenFile, ...]:
        """The first and the last so many files by path, as they were seen last."""
        found: dict[bytes, SeenFile] = {}
        for order in ("ASC", "DESC"):
            rows = self._rows(
                "SELECT path, size, mtime_ns FROM documents WHERE operation = 'index' AND size IS NOT NULL"
                f" AND state != 'refused' ORDER BY path {order} LIMIT ?",
                (number,),
            )
            found |= {bytes(path): SeenFile(bytes(path), size, at) for path, size, at in rows}
        return tuple(found.values())

    def put_off(self, path: bytes, pause_s: float, reason: str) -> None:
        """Do not ask for a document again before so many seconds have passed."""
        self._write(
            "UPDATE documents SET due_at = ?, reason = ? WHERE path = ? AND wanted_seq > applied_seq",
            (time.time() + pause_s, reason, path),
        )

    def rows(self, *, state: str | None = None, since: float = -1.0, limit: int = 1000) -> list[Row]:
        """Documents in order of their last outcome, those after ``since`` (seconds since the epoch)."""
        where, values = ("", ()) if state is None else (" AND state = ? AND wanted_seq <= applied_seq", (state,))
        rows = self._rows(
            f"SELECT path, state, chunks, reason, applied_at FROM documents WHERE applied_at > ?{where}"
            " ORDER BY applied_at LIMIT ?",
            (since, *values, limit),
        )
        return [Row(bytes(path), *rest) for path, *rest in rows]

    def entry(self, path: bytes) -> Entry | None:
        """What is held of one path; None if nothing is."""
        rows = self._rows(f"SELECT {_ENTRY} FROM documents WHERE path = ?", (path,))
        return _entry(rows[0]) if rows else None

    def entries(self, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """Entries in the order of their paths, those after one path."""
        rows = self._rows(f"SELECT {_ENTRY} FROM documents WHERE path > ? ORDER BY path LIMIT ?", (after, limit))
        return [_entry(row) for row in rows]

    def due(self, limit: int, attempts: int, until: float = math.inf, lane: Lane | None = None) -> list[Due]:
        """What waits, live work first, then oldest first; the last of ``attempts`` tries is marked as final, and a
        document that has none left as spent. With ``lane`` only what waits there."""
        in_lane, values = ("", ()) if lane is None else (" AND lane = ?", (lane,))
        rows = self._rows(
            "SELECT path, wanted_seq, CASE WHEN operation = 'delete' THEN 'delete'"
            " WHEN attempts >= ? AND tried_hash IS NOT NULL THEN 'spent'"
            " WHEN attempts + 1 >= ? THEN 'final' ELSE 'index' END,"
            " CASE WHEN operation = 'index' THEN tried_hash END,"
            " lane, due_at, moved_from, coalesce(size, 0) FROM documents"
            f" WHERE wanted_seq > applied_seq AND due_at <= ?{in_lane} ORDER BY lane DESC, wanted_seq LIMIT ?",
            (attempts, attempts, until, *values, limit),
        )
        return [Due(Item(bytes(row[0]), *row[1:4]), *row[4:]) for row in rows]

    def held_back(self) -> set[bytes]:
        """Old paths of renames whose new path is not in yet."""
        rows = self._rows("SELECT moved_from FROM documents WHERE moved_from IS NOT NULL AND wanted_seq > applied_seq")
        return {bytes(path) for (path,) in rows}

    def waiting(self, lane: Lane | None = None) -> int:
        """How many documents are due, in one lane or in both."""
        in_lane, values = ("", ()) if lane is None else (" AND lane = ?", (lane,))
        [row] = self._rows(f"SELECT count(*) FROM documents WHERE wanted_seq > applied_seq{in_lane}", values)
        return int(row[0])

    def oldest_seq(self, lane: Lane) -> int | None:
        """The lowest seq that is due in a lane: microseconds since the epoch, when it was noticed or tried last."""
        [row] = self._rows("SELECT min(wanted_seq) FROM documents WHERE wanted_seq > applied_seq AND lane = ?", (lane,))
        return None if row[0] is None else int(row[0])

    def last_outcome(self) -> float:
        """When a document was settled last, in seconds since the epoch; 0 if none ever was."""
        [row] = self._rows("SELECT max(applied_at) FROM documents")
        return float(row[0] or 0)

    # -- what is wanted --------------------------------------------------------------------------------------

    def want(self, changes: Changes, seen: Mapping[bytes, Seen], lane: Lane) -> None:
        """Note a set of changes: each touched document gets a new seq, higher than any before."""
        seq = self._first_seq()
        for old, path in changes.moved:
            self._want_index(path, seen[path], seq, lane, moved_from=old)
            self._want_delete(old, seq + 1, lane)
            seq += 2
        for path in (*changes.created, *changes.changed):
            self._want_index(path, seen[path], seq, lane)
            seq += 1
        for path in changes.deleted:
            self._want_delete(path, seq, lane)
            seq += 1
        self.set_meta("last_seq", str(seq))

    def _first_seq(self) -> int:
        """max(previous + 1, wall clock in microseconds).

        Microseconds, not nanoseconds: Qdrant compares numbers in a range filter as 64-bit floats, which hold whole
        numbers only up to 2**53. Nanoseconds since 1970 are beyond that (neighbours up to 256 apart compare equal).
        """
        return max(int(self.meta("last_seq") or 0) + 1, time.time_ns() // 1000)

    def _want_index(self, path: bytes, entry: Seen, seq: int, lane: Lane, moved_from: bytes | None = None) -> None:
        stat = entry.fingerprint
        under_way = self._write(
            "SELECT 1 FROM documents WHERE path = ? AND wanted_seq > applied_seq", (path,)
        ).fetchone()
        self._write(
            "INSERT INTO documents (path, wanted_seq, size, mtime_ns, ctime_ns, inode, lane, reason, moved_from)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET operation = 'index',"
            " wanted_seq = excluded.wanted_seq, size = excluded.size, mtime_ns = excluded.mtime_ns,"
            " ctime_ns = excluded.ctime_ns, inode = excluded.inode, lane = excluded.lane, due_at = 0,"
            f" reason = coalesce(excluded.reason, CASE WHEN {_KEPT_ATTEMPTS} > 0 THEN reason END),"
            f" attempts = {_KEPT_ATTEMPTS}, moved_from = excluded.moved_from",
            (path, seq, stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, lane, entry.refusal, moved_from),
        )
        if entry.refusal is not None and under_way is None:
            self._refuse_unread(path)

    def _refuse_unread(self, path: bytes) -> None:
        """An entry that is no file needs no worker, unless an earlier version of it is in the index."""
        self._write(
            "UPDATE documents SET state = 'refused', applied_seq = wanted_seq, applied_at = ?"
            " WHERE path = ? AND chunks = 0 AND state IN ('waiting', 'refused', 'deleted') AND content_hash IS NULL",
            (time.time(), path),
        )

    def _want_delete(self, path: bytes, seq: int, lane: Lane) -> None:
        self._write(
            "UPDATE documents SET operation = 'delete', wanted_seq = ?, lane = ?, due_at = 0,"
            f" attempts = {_KEPT_ATTEMPTS}, moved_from = NULL WHERE path = ?",
            (seq, lane, path),
        )

    def want_all_again(self, *, also_due: bool = False) -> None:
        """Make every document due: the index or the way of cutting changed. Vectors in the index are reused.

        One that is due already keeps its seq, for a hint may be on its way; with ``also_due`` (another way of cutting)
        it gets a new one as well, for its old seq may stand in the index for the other way, and what failed with the
        other way is tried again.
        """
        settled = "" if also_due else " AND wanted_seq <= applied_seq"
        tries = "attempts = 0, tried_hash = NULL" if also_due else f"attempts = {_KEPT_ATTEMPTS}"
        self._write(
            f"UPDATE documents SET applied_seq = 0, wanted_seq = max(wanted_seq + 1, ?), {tries}, due_at = 0,"
            f" lane = 'bulk' WHERE operation = 'index'{settled}",
            (self._first_seq(),),
        )
        self.set_meta("last_seq", str(self._highest_seq() + 1))

    def want_as_seen(self, paths: Iterable[tuple[bytes, Fingerprint | None]]) -> tuple[int, int]:
        """Make exactly these documents due, each with a new seq, as the folder shows them (None: not there).

        Returns the first of the seqs and the one after the last.
        """
        first = seq = max(self._first_seq(), self._highest_seq() + 1)
        for path, mark in paths:
            stat = (None,) * 4 if mark is None else (mark.size, mark.mtime_ns, mark.ctime_ns, mark.inode)
            self._write(
                "INSERT INTO documents (path, wanted_seq, size, mtime_ns, ctime_ns, inode, lane)"
                " VALUES (?, ?, ?, ?, ?, ?, 'bulk') ON CONFLICT (path) DO UPDATE SET operation = 'index',"
                " wanted_seq = excluded.wanted_seq, applied_seq = min(applied_seq, excluded.wanted_seq - 1),"
                " size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
                " inode = excluded.inode, lane = 'bulk', attempts = 0, due_at = 0, reason = NULL, moved_from = NULL",
                (path, seq, *stat),
            )
            seq += 1
        self.set_meta("last_seq", str(seq))
        return first, seq

    def waiting_between(self, first: int, end: int) -> int:
        """How many documents are due whose wanted seq is one of these."""
        [row] = self._rows(
            "SELECT count(*) FROM documents WHERE wanted_seq > applied_seq AND wanted_seq >= ? AND wanted_seq < ?",
            (first, end),
        )
        return int(row[0])

    def never_applied(self) -> set[bytes]:
        """Documents that are due and of which no version was ever applied."""
        rows = self._rows("SELECT path FROM documents WHERE operation = 'index' AND applied_seq = 0 AND wanted_seq > 0")
        return {bytes(path) for (path,) in rows}

    def read_again(self, paths: Iterable[bytes]) -> None:
        """Make these documents due with a new seq each, as if they had changed. Vectors in the index are reused."""
        seq = self._first_seq()
        for path in paths:
            self._write(
                f"UPDATE documents SET wanted_seq = ?, attempts = {_KEPT_ATTEMPTS}, due_at = 0, lane = 'bulk'"
                " WHERE path = ? AND operation = 'index'",
                (seq, path),
            )
            seq += 1
        self.set_meta("last_seq", str(seq))

    def renew(self, paths: Iterable[bytes] | None = None) -> None:
        """Give those of these documents that are due (None: all that are) a new seq each: what a worker may still write
        for a hint that was given up is fenced off."""
        seq = max(self._first_seq(), self._highest_seq() + 1)
        if paths is None:
            paths = [bytes(path) for (path,) in self._rows("SELECT path FROM documents WHERE wanted_seq > applied_seq")]
        for path in paths:
            self._write("UPDATE documents SET wanted_seq = ? WHERE path = ? AND wanted_seq > applied_seq", (seq, path))
            seq += 1
        self.set_meta("last_seq", str(seq))

    def want_again(self, path: bytes) -> bool:
        """A person asks for another try of a settled document, with all its tries. False if there is none to try."""
        seq = self._first_seq()
        changed = self._write(
            "UPDATE documents SET wanted_seq = ?, attempts = 0, tried_hash = NULL, due_at = 0, lane = 'live'"
            " WHERE path = ? AND operation = 'index' AND wanted_seq <= applied_seq AND state != 'deleted'",
            (seq, path),
        ).rowcount
        if changed:
            self.set_meta("last_seq", str(seq))
        return bool(changed)

    def _highest_seq(self) -> int:
        row = self._write("SELECT max(wanted_seq) FROM documents").fetchone()
        return max(int(row[0] or 0), int(self.meta("last_seq") or 0))

    def wanted_seq(self, path: bytes) -> int:
        """The seq of the version that is wanted; 0 if the path is not known."""
        rows = self._rows("SELECT wanted_seq FROM documents WHERE path = ?", (path,))
        return int(rows[0][0]) if rows else 0

    def raise_seq(self, seq: int) -> None:
        """The index holds a seq as high as this one (the ledger is new or an older copy): go above it."""
        if seq > int(self.meta("last_seq") or 0):
            self.set_meta("last_seq", str(seq))

    def want_delete_again(self, path: bytes, above_seq: int) -> None:
        """The index holds what no row wants there (a late hint brought it back): have it deleted."""
        self.raise_seq(above_seq)
        seq = self._first_seq()
        self._write(
            "INSERT INTO documents (path, operation, wanted_seq, lane) VALUES (?, 'delete', ?, 'live')"
            " ON CONFLICT (path) DO UPDATE SET operation = 'delete', wanted_seq = excluded.wanted_seq, due_at = 0",
            (path, seq),
        )
        self.set_meta("last_seq", str(seq))

    def wants_index(self, path: bytes) -> bool:
        """Whether the path is a document that is to be in the index."""
        return bool(self._rows("SELECT 1 FROM documents WHERE path = ? AND operation = 'index'", (path,)))

    def fingerprint(self, path: bytes) -> Fingerprint | None:
        """What the file's stat was when it was last seen or read; None if that is not known."""
        entry = self.entry(path)
        return None if entry is None else entry.fingerprint

    def look_again(self, path: bytes) -> None:
        """Forget a document's fingerprint, so that the next look at its path finds it changed."""
        self._write("UPDATE documents SET size = NULL WHERE path = ?", (path,))

    # -- what is applied -------------------------------------------------------------------------------------

    def applied(self, outcome: Outcome, attempts: int) -> bool:
        """Note an outcome. True if the document is settled; False if it is due again or the outcome is stale."""
        row = self._write(
            "SELECT wanted_seq, attempts, tried_hash, max(tried_seq, applied_seq) FROM documents WHERE path = ?",
            (outcome.path,),
        ).fetchone()
        if row is None or outcome.state in ("changed", "superseded", "vanished"):
            return False
        wanted_seq, tried, tried_hash, heard_seq = row
        if outcome.is_try and outcome.seq <= heard_seq:
            return False  # a hint that came twice is not two tries
        if wanted_seq != outcome.seq:
            self._count_late_try(outcome)
            return False
        if None not in (tried_hash, outcome.content_hash) and tried_hash != outcome.content_hash:
            tried = 0
        if outcome.shared:  # others were there too: the last try is one alone
            tried = max(0, min(tried, attempts - 2))
        again = outcome.service or outcome.shared or tried + 1 < attempts
        if outcome.state == "failed" and outcome.retryable and again:
            self._try_later(outcome, tried)
            return False
        self._settle(outcome, tried)
        return True

    def _count_late_try(self, outcome: Outcome) -> None:
        """A file that is touched during each try must not have tries without end: they count for their content."""
        if outcome.is_try and outcome.content_hash is not None:
            self._write(
                "UPDATE documents SET attempts = attempts + 1, tried_hash = ?, tried_seq = ?, reason = ?"
                " WHERE path = ? AND wanted_seq > applied_seq AND wanted_seq > ? AND coalesce(tried_hash, ?) = ?",
                (outcome.content_hash, outcome.seq, outcome.reason, outcome.path, outcome.seq,
                 outcome.content_hash, outcome.content_hash),
            )  # fmt: skip

    def _try_later(self, outcome: Outcome, tried: int) -> None:
        """The next try has a seq of its own, so that a hint or an outcome that comes twice is known as such."""
        later = time.time() + _BACKOFF_S * 2 ** min(tried, 6)
        if outcome.service:
            self._write(
                "UPDATE documents SET due_at = ?, reason = ? WHERE path = ?", (later, outcome.reason, outcome.path)
            )
            return
        seq = self._first_seq()
        self._write(
            "UPDATE documents SET attempts = ?, tried_hash = coalesce(?, tried_hash), tried_seq = ?, wanted_seq = ?,"
            " due_at = ?, reason = ? WHERE path = ?",
            (tried + 1, outcome.content_hash, outcome.seq, seq, later, outcome.reason, outcome.path),
        )
        self.set_meta("last_seq", str(seq))

    def _settle(self, outcome: Outcome, tried: int) -> None:
        """A failure keeps the tries of its content, also while the document is deleted; any other outcome ends them."""
        stat, failed = outcome.fingerprint, outcome.state == "failed"
        self._write(
            "UPDATE documents SET applied_seq = wanted_seq, state = ?, reason = coalesce(?, CASE WHEN ? THEN reason"
            " END), chunks = ?, content_hash = ?, applied_at = ?, moved_from = NULL WHERE path = ?",
            (outcome.state, outcome.reason, failed, outcome.chunks, outcome.content_hash, time.time(), outcome.path),
        )
        if outcome.is_try:
            self._write(
                "UPDATE documents SET attempts = ?, tried_hash = coalesce(?, tried_hash), tried_seq = ? WHERE path = ?",
                (tried + 1, outcome.content_hash, outcome.seq, outcome.path),
            )
        elif not failed and outcome.state != "deleted":
            self._write("UPDATE documents SET attempts = 0, tried_hash = NULL WHERE path = ?", (outcome.path,))
        if stat is not None:
            self._write(
                "UPDATE documents SET size = ?, mtime_ns = ?, ctime_ns = ?, inode = ? WHERE path = ?",
                (stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode, outcome.path),
            )

    def add_embedded(self, event: Embedded) -> None:
        """Add to the totals since the index was made."""
        for name, number in (("embedded_total", event.embedded), ("reused_total", event.reused)):
            self.set_meta(name, str(int(self.meta(name) or 0) + number))

    def new_index(self, index_id: str) -> None:
        """The index is another one than before: its totals begin at zero, and every document is due."""
        self.want_all_again()
        for name, value in (("index_id", index_id), ("embedded_total", "0"), ("reused_total", "0")):
            self.set_meta(name, value)

    def drop_old_tombstones(self) -> None:
        """Forget documents that were deleted long ago."""
        self._write(
            "DELETE FROM documents WHERE state = 'deleted' AND wanted_seq = applied_seq AND applied_at < ?",
            (time.time() - _TOMBSTONE_S,),
        )

    # -- deletions that are held -----------------------------------------------------------------------------

    def hold_deletions(self, deleted: int, reason: str) -> None:
        """So many documents are not in the folder, and stay in the index until a person accepts."""
        self.set_metas({"scanned": "0", "held": json.dumps({"deleted": deleted, "reason": reason})})

    def held_deletions(self) -> int:
        """How many deletions are held."""
        held = self.meta("held")
        return int(json.loads(held)["deleted"]) if held else 0

    def accept_deletions(self) -> int:
        """Let as many deletions go on as are held now; returns how many. Safe beside a running producer."""
        with self.transaction():
            held = self.held_deletions()
            if held:
                self.set_meta("accepted_deletions", str(held))
        return held

    def accepted_deletions(self) -> int:
        """How many deletions a person has accepted since they are held."""
        return int(self.meta("accepted_deletions") or 0)

    def release_deletions(self) -> None:
        """Nothing is held any more."""
        self.set_metas({"held": "", "accepted_deletions": ""})

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


_ENTRY = (
    "path, operation, wanted_seq, applied_seq, state, chunks, content_hash, reason, size, mtime_ns, ctime_ns, inode"
)


def _entry(row: tuple[Any, ...]) -> Entry:
    path, operation, wanted, applied, state, chunks, digest, reason, *stat = row
    mark = None if stat[0] is None else Fingerprint(*stat)
    return Entry(bytes(path), operation, wanted, applied, state, chunks, digest, reason, mark)


def path_range(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Bounds of a path and everything below it ("/" is 0x2f, "0" the next byte)."""
    return path, path + b"/", path + b"0"
