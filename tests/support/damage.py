"""Plants damage in an index and its ledger, each kind in the way that a broken disk or a bug might leave it."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from headwater.document import document_id, point_id, record_id
from headwater.index import Point, SeenPoint, Sparse
from headwater.index_edge import EdgeIndex
from headwater.state import Layout


class Damage:
    """An open shard of a state directory on which no service runs, and its points."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index
        self.points = {point.id: point for point in index.scan(with_vectors=True)}

    def chunk(self, path: str, number: int) -> Point:
        return self.points[point_id(document_id(path.encode()), number)]

    def record(self, path: str) -> Point:
        return self.points[record_id(document_id(path.encode()))]

    def chunks(self, path: str) -> int:
        return sum(p.payload["path"] == path and "chunk" in p.payload for p in self.points.values())

    def put(self, point: Point, *, identity: str | None = None, **payload: Any) -> None:
        """Write a point as it is but for these fields, past all checks."""
        self.write(identity or point.id, {**point.payload, **payload}, point.dense, point.sparse)

    def write(self, identity: str, payload: dict[str, Any], dense: Any, sparse: Sparse | None) -> None:
        vectors: dict[str, Any] = {}
        if dense is not None:
            vectors["dense"] = list(map(float, dense))
        if sparse is not None:
            vectors["sparse"] = edge.SparseVector(list(sparse.indices), list(sparse.values))
        shard: Any = self._index._open
        shard.update(edge.UpdateOperation.upsert_points([edge.Point(uuid.UUID(identity), vectors, payload)]))

    def vectors(self, point: Point, dense: Any, sparse: Sparse | None) -> None:
        """Write a point with other vectors, or without."""
        self.write(point.id, dict(point.payload), dense, sparse)

    def remove(self, *points: Point) -> None:
        self._index.discard([SeenPoint(point.id, point.payload["seq"]) for point in points])

    def not_a_number(self, point: Point) -> None:
        assert point.dense is not None
        self.vectors(point, np.full_like(point.dense, np.nan), point.sparse)


@contextlib.contextmanager
def damage(state: Path) -> Iterator[Damage]:
    layout = Layout(state)
    index = EdgeIndex(layout.index, layout.manifest)
    index.open_existing()
    try:
        yield Damage(index)
    finally:
        index.close()


def edit_ledger(state: Path, sql: str, *values: Any) -> None:
    """Change rows behind the service's back; fails if none is there to change."""
    with contextlib.closing(sqlite3.connect(Layout(state).ledger, timeout=10)) as ledger, ledger:
        assert ledger.execute(sql, values).rowcount > 0, sql


def seqs(state: Path) -> dict[str, int]:
    """The wanted seq of each document in the ledger."""
    with contextlib.closing(sqlite3.connect(Layout(state).ledger, timeout=10)) as ledger:
        rows = ledger.execute("SELECT path, wanted_seq FROM documents").fetchall()
    return {bytes(path).decode(): seq for path, seq in rows}
