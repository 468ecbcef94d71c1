"""What the ledger knows, for whoever asks: single documents, pages and counts of them, and what is due. Reads only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.document import Fingerprint
from headwater.expected import SeenFile
from headwater.messages import Item, Lane
from producer.census import Version
from producer.diff import Seen
from producer.ledger_file import LedgerFile

__all__ = ["ENTRY_COLUMNS", "Counts", "Due", "Entry", "LedgerViews", "Place", "Row", "entry_of", "path_range"]

#: microseconds of the clock in a seq
_SEQ_PER_S = 1e6
_DUE_BETWEEN = (
    "FROM documents WHERE wanted_seq > applied_seq AND lane IN ('live', 'bulk') AND wanted_seq >= ?1"
    " AND coalesce(noticed_seq, wanted_seq) >= ?1 AND coalesce(noticed_seq, wanted_seq) < ?2"
)

#: wanted seq and path: the order of what is due in a lane
Place = tuple[int, bytes]


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
    """All that the ledger holds of one document. Times are seconds since the epoch; ``settled_at`` is that of the last
    outcome, if any."""

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


class LedgerViews(LedgerFile):
    """The reading half of ``producer.ledger.Ledger``."""

    def known(
        self, below: bytes | None = None, *, seen: Mapping[bytes, Seen] | None = None
    ) -> dict[bytes, Fingerprint | None]:
        """Fingerprint of each live document, or of those at or below one path. One that is equal to the one ``seen`` is
        the same object: of a large folder, memory holds each once."""
        where, values = ("", ()) if not below else (" AND (path = ? OR (path > ? AND path < ?))", path_range(below))
        sql = f"SELECT path, size, mtime_ns, ctime_ns, inode FROM documents WHERE operation = 'index'{where}"
        found: dict[bytes, Fingerprint | None] = {}
        for path, *numbers in self._each(sql, values):
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
        rows = self._rows(f"SELECT {ENTRY_COLUMNS} FROM documents WHERE path = ?", (path,))
        return entry_of(rows[0]) if rows else None

    def entries(self, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """Entries in the order of their paths, those after one path."""
        rows = self._rows(f"SELECT {ENTRY_COLUMNS} FROM documents WHERE path > ? ORDER BY path LIMIT ?", (after, limit))
        return [entry_of(row) for row in rows]

    def due(
        self,
        limit: int,
        attempts: int,
        until: float = math.inf,
        lane: Lane | None = None,
        after: Place | None = None,
    ) -> list[Due]:
        """What waits, live work first, then oldest first; the last of ``attempts`` tries is marked as final, and a
        document that has none left as spent. With ``lane`` only what waits there; of one lane, ``after`` a place no row
        up to it is read."""
        in_lane, values = ("", ()) if lane is None else (" AND lane = ?", (lane,))
        if after is not None:
            in_lane, values = f"{in_lane} AND (wanted_seq, path) > (?, ?)", (*values, *after)
        rows = self._rows(
            "SELECT path, wanted_seq, CASE WHEN operation = 'delete' THEN 'delete'"
            " WHEN attempts >= ? AND tried_hash IS NOT NULL THEN 'spent'"
            " WHEN attempts + 1 >= ? THEN 'final' ELSE 'index' END,"
            " CASE WHEN operation = 'index' THEN tried_hash END,"
            " lane, due_at, moved_from, coalesce(size, 0) FROM documents"
            f" WHERE wanted_seq > applied_seq AND due_at <= ?{in_lane} ORDER BY lane DESC, wanted_seq, path LIMIT ?",
            (attempts, attempts, until, *values, limit),
        )
        return [Due(Item(bytes(row[0]), *row[1:4]), *row[4:]) for row in rows]

    def ripe(self, lane: Lane, since: float, until: float) -> Place | None:
        """The first place of what was not to be tried before a time after ``since``, and is due ``until`` now."""
        rows = self._rows(
            "SELECT wanted_seq, path FROM documents INDEXED BY later WHERE wanted_seq > applied_seq AND due_at > 0"
            " AND due_at > ? AND due_at <= ? AND lane = ? ORDER BY wanted_seq, path LIMIT 1",
            (since, until, lane),
        )
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else None

    def place(self, path: bytes) -> tuple[Lane, Place] | None:
        """Where a document stands among what is due; None if it is not."""
        rows = self._rows("SELECT lane, wanted_seq FROM documents WHERE path = ? AND wanted_seq > applied_seq", (path,))
        return (rows[0][0], (int(rows[0][1]), path)) if rows else None

    def is_held_back(self, path: bytes) -> bool:
        """Whether this is the old path of a rename whose new path is not in yet."""
        return bool(
            self._rows("SELECT 1 FROM documents WHERE moved_from = ? AND wanted_seq > applied_seq LIMIT 1", (path,))
        )

    def due_deletion(self, path: bytes) -> Item | None:
        """The deletion of this path, if it is due."""
        rows = self._rows(
            "SELECT wanted_seq FROM documents WHERE path = ? AND operation = 'delete' AND wanted_seq > applied_seq",
            (path,),
        )
        return Item(path, int(rows[0][0]), "delete") if rows else None

    def waiting(self, lane: Lane | None = None, most: int = -1) -> int:
        """How many documents are due, in one lane or in both; not counted beyond ``most``."""
        in_lane, values = ("", ()) if lane is None else (" AND lane = ?", (lane,))
        [row] = self._rows(
            f"SELECT count(*) FROM (SELECT 1 FROM documents WHERE wanted_seq > applied_seq{in_lane} LIMIT ?)",
            (*values, most),
        )
        return int(row[0])

    def waiting_between(self, first: int, end: int) -> int:
        """How many documents are due whose wanted seq is, or was before another try, one of these."""
        [row] = self._rows(f"SELECT count(*) {_DUE_BETWEEN}", (first, end))
        return int(row[0])

    def waits_from_before(self, end: int) -> bool:
        """Whether a document is due that was noticed below this seq, whatever seq its next try has."""
        return bool(self._rows(f"SELECT 1 {_DUE_BETWEEN} LIMIT 1", (0, end)))

    def never_applied(self) -> set[bytes]:
        """Documents that are due and of which no version was ever applied."""
        rows = self._rows(
            "SELECT path FROM documents WHERE wanted_seq > applied_seq AND operation = 'index' AND applied_seq = 0"
        )
        return {bytes(path) for (path,) in rows}

    def wanted_seq(self, path: bytes) -> int:
        """The seq of the version that is wanted; 0 if the path is not known."""
        rows = self._rows("SELECT wanted_seq FROM documents WHERE path = ?", (path,))
        return int(rows[0][0]) if rows else 0

    def wants_index(self, path: bytes) -> bool:
        """Whether the path is a document that is to be in the index."""
        return bool(self._rows("SELECT 1 FROM documents WHERE path = ? AND operation = 'index'", (path,)))

    def fingerprint(self, path: bytes) -> Fingerprint | None:
        """What the file's stat was when it was last seen or read; None if that is not known."""
        rows = self._rows("SELECT size, mtime_ns, ctime_ns, inode FROM documents WHERE path = ?", (path,))
        return Fingerprint(*rows[0]) if rows and rows[0][0] is not None else None

    def oldest_seq(self, lane: Lane) -> int | None:
        """The lowest seq that is due in a lane: microseconds since the epoch, when it was noticed or tried last."""
        [row] = self._rows("SELECT min(wanted_seq) FROM documents WHERE wanted_seq > applied_seq AND lane = ?", (lane,))
        return None if row[0] is None else int(row[0])

    def last_outcome(self) -> float:
        """When a document was settled last, in seconds since the epoch; 0 if none ever was."""
        [row] = self._rows("SELECT max(applied_at) FROM documents")
        return float(row[0] or 0)


ENTRY_COLUMNS = (
    "path, operation, wanted_seq, applied_seq, state, size, mtime_ns, ctime_ns, inode, content_hash, chunks, attempts,"
    " reason, due_at, applied_at"
)


def entry_of(row: tuple[Any, ...]) -> Entry:
    path, operation, wanted, applied, state, size, mtime, ctime, inode, *rest = row
    mark = None if size is None else Fingerprint(size, mtime, ctime, inode)
    return Entry(bytes(path), operation, wanted, applied, state, mark, *rest)


def path_range(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Bounds of a path and everything below it ("/" is 0x2f, "0" the next byte)."""
    return path, path + b"/", path + b"0"
