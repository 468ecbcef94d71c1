"""Vectors of texts that have left the index, kept for a while: a branch that is switched back, a file that is restored
or an edit that is undone needs no model.

A cache and no more: what is lost or damaged in it is embedded again, and the index never depends on it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["KeptVectors"]

Vector = NDArray[np.float32]

#: most vectors that are kept, the latest ones
_MOST = 50_000
#: how many are added between two looks at age and number
_PRUNE_EVERY = 1_000
_BATCH = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    text_hash TEXT PRIMARY KEY, model TEXT NOT NULL, kept_at REAL NOT NULL, vector BLOB NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS age ON vectors (kept_at);
"""


class KeptVectors:
    """A file of vectors of one model by the hash of their text. Safe to use from several threads; never raises for what
    happens to its file, which is then made anew."""

    def __init__(self, path: Path, model: str, keep_s: float) -> None:
        self._path = path
        self._model = model
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._added = _PRUNE_EVERY  # the first addition looks
        self._db: sqlite3.Connection | None = None

    def keep(self, vectors: Mapping[str, Vector]) -> None:
        """Text hash -> unit vector."""
        now = time.time()
        rows = [(name, self._model, now, *self._packed(name, vector)) for name, vector in vectors.items()]

        def add(db: sqlite3.Connection) -> None:
            if self._added >= _PRUNE_EVERY:
                self._prune(db, now)
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)
            self._added += len(rows)

        self._run(add)

    def find(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are kept of these."""
        found: dict[str, Vector] = {}

        def look(db: sqlite3.Connection) -> None:
            for first in range(0, len(text_hashes), _BATCH):
                some = text_hashes[first : first + _BATCH]
                marks = ",".join("?" * len(some))
                query = f"SELECT text_hash, vector, digest FROM vectors WHERE model = ? AND text_hash IN ({marks})"
                for name, packed, digest in db.execute(query, (self._model, *some)):
                    if digest == self._digest(name, packed):  # a file that a power cut spoilt gives nobody's vector
                        found[name] = np.frombuffer(packed, "<f4").astype(np.float32)

        self._run(look)
        return found

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _packed(self, text_hash: str, vector: Vector) -> tuple[bytes, bytes]:
        packed = vector.astype("<f4").tobytes()
        return packed, self._digest(text_hash, packed)

    def _digest(self, text_hash: str, packed: bytes) -> bytes:
        """That this is the vector of this text by this model."""
        named = f"{self._model}\0{text_hash}\0".encode()
        return hashlib.blake2b(named + packed, digest_size=16).digest()

    def _prune(self, db: sqlite3.Connection, now: float) -> None:
        db.execute("DELETE FROM vectors WHERE kept_at < ? OR model != ?", (now - self._keep_s, self._model))
        oldest = db.execute("SELECT kept_at FROM vectors ORDER BY kept_at DESC LIMIT 1 OFFSET ?", (_MOST,)).fetchone()
        if oldest is not None:
            db.execute("DELETE FROM vectors WHERE kept_at <= ?", oldest)
        self._added = 0

    def _run(self, step: Callable[[sqlite3.Connection], None]) -> None:
        """A step in a transaction, one thread at a time. What is wrong with the file ends it, and it is made anew."""
        with self._lock:
            try:
                self._db = self._db or self._connect()
                with self._db:
                    step(self._db)
            except sqlite3.Error:
                if self._db is not None:
                    self._db.close()
                    self._db = None
                self._remove()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=1, check_same_thread=False)
        # no log file to map into memory, and no waiting for the disk: what a crash spoils is found by its digest
        db.executescript(f"PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; {_SCHEMA}")
        return db

    def _remove(self) -> None:
        for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                return  # a file system that may only be read: nothing is kept there
