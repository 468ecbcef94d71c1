"""What ``headwater verify`` must remember while it runs: in a file, so that memory does not grow with the folder."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.document import Fingerprint
from headwater.index import SeenPoint
from headwater.verification import KINDS, Finding

__all__ = ["Scratch", "Stray", "Target"]

_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8000;
CREATE TABLE documents (
    path BLOB PRIMARY KEY, document TEXT UNIQUE,
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, refusal TEXT,
    found INTEGER,                      -- points that its comparison saw; NULL if there was none
    scanned INTEGER NOT NULL DEFAULT 0, -- points that the scan of the whole index saw
    version TEXT                        -- version of document and ledger row that was compared
) WITHOUT ROWID;
CREATE TABLE findings (kind TEXT, path TEXT, detail TEXT, chunks TEXT, known INTEGER);
CREATE TABLE discards (id TEXT PRIMARY KEY, seq) WITHOUT ROWID;
CREATE TABLE again (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER)
    WITHOUT ROWID;
CREATE TABLE suspects (path BLOB PRIMARY KEY, version TEXT, since REAL) WITHOUT ROWID;
CREATE TABLE waiting (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE strays (document TEXT, path TEXT, id TEXT, seq);
CREATE INDEX strays_document ON strays (document);
"""
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Target:
    """A document of the folder, as the walk saw it."""

    path: bytes
    fingerprint: Fingerprint
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Stray:
    """Points that name no document of the folder: how many, and one of their ids. ``document`` is None if they name
    none at all."""

    document: str | None
    path: str
    points: int
    example: str


class Scratch:
    """Used by one thread. The file goes with its directory."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "scratch.sqlite3", isolation_level=None)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def _number(self, sql: str, *values: Any) -> int:
        return int(self._db.execute(sql, values).fetchone()[0])

    # -- the folder --------------------------------------------------------------------------------------------

    def add_target(self, target: Target, document: str) -> None:
        """``document`` is its id."""
        stat = target.fingerprint
        self._db.execute(
            "INSERT OR REPLACE INTO documents (path, document, size, mtime_ns, ctime_ns, inode, refusal)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (target.path, document, *_columns(stat), target.refusal),
        )

    def targets(self) -> int:
        return self._number("SELECT count(*) FROM documents")

    def target_batches(self, size: int) -> Iterator[list[Target]]:
        """All targets, in the order of their paths."""
        after = b""
        while True:
            rows = self._db.execute(
                "SELECT path, refusal, size, mtime_ns, ctime_ns, inode FROM documents WHERE path > ?"
                " ORDER BY path LIMIT ?",
                (after, size),
            ).fetchall()
            if not rows:
                return
            yield [Target(bytes(path), Fingerprint(*stat), refusal) for path, refusal, *stat in rows]
            after = bytes(rows[-1][0])

    def has_path(self, path: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM documents WHERE path = ?", (path,)).fetchone() is not None

    def known_documents(self, documents: Sequence[str]) -> set[str]:
        """Those of the ids that belong to documents of the folder."""
        marks = ",".join("?" * len(documents))
        rows = self._db.execute(f"SELECT document FROM documents WHERE document IN ({marks})", documents)
        return {document for (document,) in rows}

    # -- points ------------------------------------------------------------------------------------------------

    def compared(self, path: bytes, found: int, version: str) -> None:
        self._db.execute("UPDATE documents SET found = ?, version = ? WHERE path = ?", (found, version, path))

    def scanned(self, counts: Iterable[tuple[str, int]]) -> None:
        """Points of documents that the scan saw."""
        self._db.executemany(
            "UPDATE documents SET scanned = scanned + ? WHERE document = ?",
            [(number, document) for document, number in counts],
        )

    def miscounted(self) -> Iterator[tuple[bytes, str, int, int]]:
        """Documents whose comparison and the scan saw different numbers of points: path, version and the numbers."""
        yield from self._all(
            "SELECT path, version, found, scanned FROM documents WHERE found IS NOT NULL AND found != scanned"
        )

    def add_strays(self, points: Iterable[tuple[str | None, str, SeenPoint]]) -> None:
        self._db.executemany(
            "INSERT INTO strays VALUES (?, ?, ?, ?)",
            [(document, path, point.id, point.seq) for document, path, point in points],
        )

    def strays(self) -> Iterator[Stray]:
        """Grouped by document; those that name none one by one."""
        rows = self._all(
            "SELECT document, min(path), count(*), min(id) FROM strays"
            " GROUP BY document, CASE WHEN document IS NULL THEN id END"
        )
        yield from (Stray(*row) for row in rows)

    def is_stray(self, document: str) -> bool:
        return self._db.execute("SELECT 1 FROM strays WHERE document = ?", (document,)).fetchone() is not None

    # -- what came of it ---------------------------------------------------------------------------------------

    def add_findings(self, findings: Iterable[Finding]) -> None:
        self._db.executemany(
            "INSERT INTO findings VALUES (?, ?, ?, ?, ?)",
            [(f.kind, f.path, f.detail, json.dumps(f.chunks), f.known) for f in findings],
        )

    def findings(self) -> Iterator[Finding]:
        """Those that are defects first, by path."""
        rows = self._all("SELECT kind, path, detail, chunks, known FROM findings ORDER BY known, path, kind, detail")
        for kind, path, detail, chunks, known in rows:
            yield Finding(kind, path, detail, tuple(json.loads(chunks)), bool(known))

    def counts(self) -> dict[str, int]:
        """Number of findings of each kind."""
        found = dict(self._db.execute("SELECT kind, count(*) FROM findings GROUP BY kind").fetchall())
        return {kind: found.get(kind, 0) for kind in KINDS}

    def defects(self) -> int:
        return self._number("SELECT count(*) FROM findings WHERE NOT known")

    def discard(self, points: Iterable[SeenPoint]) -> None:
        """Repair is to delete these points."""
        self._db.executemany("INSERT OR REPLACE INTO discards VALUES (?, ?)", [(p.id, p.seq) for p in points])

    def discard_stray(self, stray: Stray) -> None:
        """Repair is to delete these points, all of them."""
        where, value = ("id = ?", stray.example) if stray.document is None else ("document = ?", stray.document)
        self._db.execute(f"INSERT OR REPLACE INTO discards SELECT id, seq FROM strays WHERE {where}", (value,))

    def discards(self) -> Iterator[SeenPoint]:
        yield from (SeenPoint(*row) for row in self._all("SELECT id, seq FROM discards"))

    def want_again(self, path: bytes, stat: Fingerprint | None) -> None:
        """Repair is to make this document due."""
        values = (None,) * 4 if stat is None else _columns(stat)
        self._db.execute("INSERT OR REPLACE INTO again VALUES (?, ?, ?, ?, ?)", (path, *values))

    def again(self) -> Iterator[tuple[bytes, Fingerprint | None]]:
        for path, *stat in self._all("SELECT * FROM again ORDER BY path"):
            yield bytes(path), None if stat[0] is None else Fingerprint(*stat)

    def wait(self, path: bytes) -> None:
        self._db.execute("INSERT OR IGNORE INTO waiting VALUES (?)", (path,))

    def waiting(self) -> int:
        return self._number("SELECT count(*) FROM waiting")

    def suspect(self, path: bytes, version: str, now: float) -> None:
        """The document is looked at again before it is accused; ``now`` in seconds of the monotonic clock."""
        self._db.execute(
            "INSERT INTO suspects VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET version = excluded.version,"
            " since = CASE WHEN version = excluded.version THEN since ELSE excluded.since END",
            (path, version, now),
        )

    def acquit(self, path: bytes) -> None:
        self._db.execute("DELETE FROM suspects WHERE path = ?", (path,))

    def suspects(self, before: float = math.inf) -> Iterator[tuple[bytes, str, float]]:
        """Paths, the versions of them that were compared, and since when these are there, of those that are there
        since ``before``; the table may change meanwhile."""
        after = b""
        while rows := self._db.execute(
            "SELECT path, version, since FROM suspects WHERE path > ? AND since <= ? ORDER BY path LIMIT ?",
            (after, before, _PAGE),
        ).fetchall():
            yield from ((bytes(path), version, since) for path, version, since in rows)
            after = bytes(rows[-1][0])

    def _all(self, sql: str) -> Iterator[Any]:
        """Row by row, on a cursor of its own."""
        yield from self._db.cursor().execute(sql)


def _columns(stat: Fingerprint) -> tuple[int, int, int, int]:
    return stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode
