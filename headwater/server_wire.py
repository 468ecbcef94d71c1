"""What an index on a server says and hears, in the types of the official client. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models as m

from headwater.index import INDEXED_FIELDS, Condition, Point, SearchQuery

__all__ = ["by_bytes", "point_id", "query_request", "to_filter", "to_server"]

Vector = NDArray[np.float32]

#: most bytes of points in one request; a server refuses bodies above 32 MiB by default
_BATCH_BYTES = 4 * 1024 * 1024
#: bytes of one number, and of one sparse entry (index and number), written as JSON, at most
_NUMBER_BYTES = 24
_SPARSE_BYTES = 36


def by_bytes(points: Sequence[Point]) -> Iterator[list[Point]]:
    batch: list[Point] = []
    size = 0
    for point in points:
        bytes_ = len(json.dumps(point.payload)) + _NUMBER_BYTES * (0 if point.dense is None else len(point.dense))
        bytes_ += _SPARSE_BYTES * (0 if point.sparse is None else len(point.sparse.indices))
        if batch and size + bytes_ > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += bytes_
    if batch:
        yield batch


def to_server(point: Point) -> m.PointStruct:
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vectors["sparse"] = m.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    return m.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))


def query_request(query: SearchQuery, candidates: int, params: m.SearchParams | None) -> dict[str, Any]:
    conditions = to_filter(query.conditions) if query.conditions else None
    halves: dict[str, Any] = {}
    if query.dense is not None:
        halves["dense"] = query.dense.tolist()
    if query.sparse is not None:
        halves["sparse"] = m.SparseVector(indices=list(query.sparse.indices), values=list(query.sparse.values))
    common = {
        "limit": query.limit,
        "score_threshold": query.score_threshold,
        "with_payload": True,
        "with_vectors": ["dense"] if query.with_vectors else False,
    }
    if query.mode != "hybrid":
        dense_only = {"search_params": params} if query.mode == "dense" else {}
        return {**common, **dense_only, "query": halves[query.mode], "using": query.mode, "query_filter": conditions}
    prefetch = [
        m.Prefetch(query=half, using=name, limit=candidates, filter=conditions, params=params)
        for name, half in halves.items()
    ]
    weights = [query.fusion.dense_weight, query.fusion.sparse_weight]
    fused = m.RrfQuery(rrf=m.Rrf(k=query.fusion.k, weights=weights))
    dbsf = m.FusionQuery(fusion=m.Fusion.DBSF)
    return {**common, "prefetch": prefetch, "query": dbsf if query.fusion.method == "dbsf" else fused}


def point_id(text: str) -> int | str:
    """The server's form of an id: ours are UUIDs, other programs may use numbers."""
    return int(text) if text.isdecimal() else text


def to_filter(conditions: Sequence[Condition], ids: Sequence[str] = ()) -> m.Filter:
    must: list[Any] = [_condition(condition) for condition in conditions if not condition.negate]
    if ids:
        must.append(m.HasIdCondition(has_id=[point_id(text) for text in ids]))
    return m.Filter(
        must=must or None,
        must_not=[_condition(condition) for condition in conditions if condition.negate] or None,
    )


def _condition(condition: Condition) -> m.FieldCondition:
    if condition.any_of is not None:
        return m.FieldCondition(key=condition.field, match=m.MatchAny(any=cast(Any, list(condition.any_of))))
    bounds: Any = {
        name: value for name in ("gte", "gt", "lte", "lt") if (value := getattr(condition, name)) is not None
    }
    kind = m.DatetimeRange if INDEXED_FIELDS[condition.field] == "datetime" else m.Range
    return m.FieldCondition(key=condition.field, range=kind(**bounds))
