"""The record of every document: what is wanted, what is applied. SQLite, one row per document, one writer.

The queue may lose or double anything; this file is what the service believes. Every change of it is one
transaction, written through to the disk before a hint goes out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from headwater.document import Fingerprint
from headwater.messages import LANES, Embedded, Lane, Outcome
from producer.diff import Changes, Seen
from producer.ledger_views import Counts, Due, Entry, LedgerViews, Place, Row, path_range

__all__ = ["Counts", "Due", "Entry", "Ledger", "Place", "Row", "path_range"]

#: how long the seq of a deleted document is kept, to fence writes that were under way
_TOMBSTONE_S = 7 * 24 * 3600
#: tries with the same content before the next one, in seconds: 1, 2, 4 ...
_BACKOFF_S = 1.0

#: tries count for one content: they stay over a touch of the file, and whatever else may change starts them anew
_KEPT_ATTEMPTS = "CASE WHEN tried_hash IS NULL THEN 0 ELSE attempts END"
#: another seq for what was noticed before
_RENEWED = "wanted_seq = ?, noticed_seq = coalesce(noticed_seq, wanted_seq)"


class Ledger(LedgerViews):
    """All access to ``ledger.sqlite3``. Not thread-safe: one thread writes; readers open their own."""

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
            " noticed_seq = NULL,"
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
            "UPDATE documents SET operation = 'delete', wanted_seq = ?, lane = ?, due_at = 0, noticed_seq = NULL,"
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
        # each a seq of its own: a census tells versions apart by them
        self._write(
            f"UPDATE documents SET applied_seq = 0, wanted_seq = ? + wanted.number, {tries}, due_at = 0, lane = 'bulk'"
            " FROM (SELECT path, row_number() OVER (ORDER BY path) AS number FROM documents"
            f" WHERE operation = 'index'{settled}) AS wanted WHERE documents.path = wanted.path",
            (max(self._first_seq(), self._highest_seq()),),
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
        seq = max(self._first_seq(), self._highest_due() + 1)
        if paths is None:
            paths = [bytes(path) for (path,) in self._rows("SELECT path FROM documents WHERE wanted_seq > applied_seq")]
        for path in paths:
            self._write(f"UPDATE documents SET {_RENEWED} WHERE path = ? AND wanted_seq > applied_seq", (seq, path))
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

    def _highest_due(self) -> int:
        """The highest seq that is due, by the index of what is."""
        one = "SELECT wanted_seq FROM documents WHERE wanted_seq > applied_seq AND lane = ? ORDER BY wanted_seq DESC"
        rows = [row for lane in LANES for row in self._rows(f"{one} LIMIT 1", (lane,))]
        return max((int(row[0]) for row in rows), default=0)

    def _highest_seq(self) -> int:
        """That of all documents, each of which is looked at."""
        row = self._write("SELECT max(wanted_seq) FROM documents").fetchone()
        return max(int(row[0] or 0), int(self.meta("last_seq") or 0))

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

    def look_again(self, path: bytes) -> None:
        """Forget a document's fingerprint, so that the next look at its path finds it changed."""
        self._write("UPDATE documents SET size = NULL WHERE path = ?", (path,))

    # -- what is applied -------------------------------------------------------------------------------------

    def put_off(self, path: bytes, pause_s: float, reason: str) -> None:
        """Do not ask for a document again before so many seconds have passed."""
        self._write(
            "UPDATE documents SET due_at = ?, reason = ? WHERE path = ? AND wanted_seq > applied_seq",
            (time.time() + pause_s, reason, path),
        )

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
            f"UPDATE documents SET attempts = ?, tried_hash = coalesce(?, tried_hash), tried_seq = ?, {_RENEWED},"
            " due_at = ?, reason = ? WHERE path = ?",
            (tried + 1, outcome.content_hash, outcome.seq, seq, later, outcome.reason, outcome.path),
        )
        self.set_meta("last_seq", str(seq))

    def _settle(self, outcome: Outcome, tried: int) -> None:
        """A failure keeps the tries of its content, also while the document is deleted; any other outcome ends them."""
        stat, failed = outcome.fingerprint, outcome.state == "failed"
        columns = (
            "applied_seq = wanted_seq, state = ?, reason = coalesce(?, CASE WHEN ? THEN reason END), chunks = ?,"
            " content_hash = ?, applied_at = ?, moved_from = NULL, noticed_seq = NULL"
        )
        values: list[Any] = [
            outcome.state, outcome.reason, failed, outcome.chunks, outcome.content_hash, time.time()
        ]  # fmt: skip
        if outcome.is_try:
            columns += ", attempts = ?, tried_hash = coalesce(?, tried_hash), tried_seq = ?"
            values += (tried + 1, outcome.content_hash, outcome.seq)
        elif not failed and outcome.state != "deleted":
            columns += ", attempts = 0, tried_hash = NULL"
        if stat is not None:
            columns += ", size = ?, mtime_ns = ?, ctime_ns = ?, inode = ?"
            values += (stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode)
        elif outcome.unread:  # the next scan finds it changed
            columns += ", size = NULL"
        self._write(f"UPDATE documents SET {columns} WHERE path = ?", (*values, outcome.path))

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
