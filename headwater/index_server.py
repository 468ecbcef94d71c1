"""The index on a Qdrant server or cluster, through its official client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import httpx
import numpy as np
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from headwater.errors import IndexUnavailable
from headwater.index import (
    BATCH_POINTS,
    INDEXED_FIELDS,
    SCHEMA_VERSION,
    Condition,
    IndexCounts,
    Manifest,
    Point,
    ScoredChunk,
    SearchQuery,
    Sparse,
)
from headwater.index_qdrant import RRF_K, QdrantIndex, fence_conditions

__all__ = ["ServerIndex"]

_TYPES = {
    "keyword": m.PayloadSchemaType.KEYWORD,
    "integer": m.PayloadSchemaType.INTEGER,
    "datetime": m.PayloadSchemaType.DATETIME,
}
#: most bytes of points in one request; a server refuses bodies above 32 MiB by default
_BATCH_BYTES = 4 * 1024 * 1024
_TIMEOUT_S = 30
#: bytes of one number, and of one sparse entry (index and number), written as JSON, at most
_NUMBER_BYTES = 24
_SPARSE_BYTES = 36


class ServerIndex(QdrantIndex):
    """One collection on a server. Writes wait for the server, which keeps its own write-ahead log."""

    def __init__(self, client: QdrantClient, collection: str, where: str) -> None:
        self._client = client
        self._collection = collection
        self._where = where

    @classmethod
    def connect(cls, url: str, api_key: str | None, collection: str) -> ServerIndex:
        """Raises IndexUnavailable if the URL is not one."""
        try:
            client = QdrantClient(url=url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False)
        except (ValueError, httpx.InvalidURL) as error:
            raise IndexUnavailable(f"QDRANT_URL={url!r} is no address of a Qdrant server ({error})") from None
        return cls(client, collection, url)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (ResponseHandlingException, UnexpectedResponse, httpx.HTTPError, OSError) as error:
            raise IndexUnavailable(f"Qdrant at {self._where} does not answer as it should: {error}") from error

    def _distrust(self, reason: str) -> IndexUnavailable:
        return IndexUnavailable(f"the collection {self._collection} at {self._where} seems to be damaged: {reason}")

    # -- schema ----------------------------------------------------------------------------------------------

    def ensure_schema(self, model: str, dimension: int) -> Manifest:
        with self._answers():
            manifest = self.manifest() or self._create(Manifest.new(model, dimension))
            manifest.check(model, dimension, f"{self._collection} at {self._where}")
            self.dimension = dimension
            self._ensure_payload_indexes()
        return manifest

    def open_existing(self) -> Manifest:
        """Open a collection that must be there. Raises IndexUnavailable if it is not."""
        with self._answers():
            manifest = self.manifest()
        if manifest is None:
            raise IndexUnavailable(
                f"there is no collection {self._collection} at {self._where}: start 'headwater work' first"
            )
        self.dimension = manifest.dimension
        return manifest

    def manifest(self) -> Manifest | None:
        """What the collection was made with, kept as its metadata."""
        if not self._client.collection_exists(self._collection):
            return None
        config = self._client.get_collection(self._collection).config
        stored = (config.metadata or {}).get("headwater")
        if stored is not None:
            return Manifest.from_json(stored)
        params: Any = config.params.vectors
        size = params["dense"].size if isinstance(params, dict) and "dense" in params else 0
        return Manifest("foreign", "an unknown model", size, SCHEMA_VERSION)

    def _create(self, manifest: Manifest) -> Manifest:
        self._client.create_collection(
            self._collection,
            vectors_config={"dense": m.VectorParams(size=manifest.dimension, distance=m.Distance.COSINE, on_disk=True)},
            sparse_vectors_config={"sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
            metadata={"headwater": manifest.to_json()},
        )
        return self.manifest() or manifest

    def _ensure_payload_indexes(self) -> None:
        present = self._client.get_collection(self._collection).payload_schema
        for name, kind in INDEXED_FIELDS.items():
            if name not in present:
                self._client.create_payload_index(self._collection, name, _TYPES[kind], wait=True)

    def close(self) -> None:
        self._client.close()

    # -- write -----------------------------------------------------------------------------------------------

    def _upsert(self, points: Sequence[Point], fences: Mapping[str, int]) -> None:
        condition = m.Filter(should=[_filter(fence) for fence in fence_conditions(fences)])
        for batch in _by_bytes(points):
            with self._answers():
                self._client.upsert(
                    self._collection, [_to_server(p) for p in batch], wait=True, update_filter=condition
                )

    def _delete(self, conditions: Sequence[Condition], ids: Sequence[str] = ()) -> None:
        with self._answers():
            self._client.delete(self._collection, m.FilterSelector(filter=_filter(conditions, ids)), wait=True)

    def flush(self) -> None:
        """A write with ``wait`` is in the server's write-ahead log when it returns."""

    # -- read ------------------------------------------------------------------------------------------------

    def _page(
        self, conditions: Sequence[Condition], fields: Sequence[str] | None, offset: str | None, *, with_vectors: bool
    ) -> tuple[list[Point], str | None]:
        with self._answers():
            records, following = self._client.scroll(
                self._collection,
                scroll_filter=_filter(conditions) if conditions else None,
                limit=BATCH_POINTS,
                offset=None if offset is None else _point_id(offset),
                with_payload=True if fields is None else list(fields),
                with_vectors=with_vectors,
            )
        return [_from_server(record) for record in records], None if following is None else str(following)

    def _search(self, query: SearchQuery, candidates: int) -> list[ScoredChunk]:
        with self._answers():
            found = self._client.query_points(self._collection, **_request(query, candidates)).points
        return [ScoredChunk(point.score, point.payload or {}) for point in found]

    def paths(self) -> list[str]:
        with self._answers():
            limit = self._client.count(self._collection, exact=True).count + 1
            hits = self._client.facet(self._collection, "path", limit=limit, exact=True).hits
        return sorted(str(hit.value) for hit in hits)

    def census(self) -> dict[int, int]:
        with self._answers():
            limit = self._client.count(self._collection, exact=True).count + 1
            hits = self._client.facet(self._collection, "seq", limit=limit, exact=True).hits
        return {int(hit.value): hit.count for hit in hits if hit.count}

    def count(self) -> IndexCounts:
        with self._answers():
            total = self._client.count(self._collection, exact=True).count
            only_chunks = _filter((Condition("chunk", gte=0),))
            chunks = self._client.count(self._collection, count_filter=only_chunks, exact=True).count
        return IndexCounts(documents=total - chunks, chunks=chunks)


def _by_bytes(points: Sequence[Point]) -> Iterator[list[Point]]:
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


def _to_server(point: Point) -> m.PointStruct:
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vectors["sparse"] = m.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    return m.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))


def _from_server(record: m.Record) -> Point:
    vectors: Any = record.vector or {}
    dense, sparse = vectors.get("dense"), vectors.get("sparse")
    return Point(
        id=str(record.id),
        payload=record.payload or {},
        dense=None if dense is None else np.asarray(dense, np.float32),
        sparse=None if sparse is None else Sparse(sparse.indices, sparse.values),
    )


def _request(query: SearchQuery, candidates: int) -> dict[str, Any]:
    conditions = _filter(query.conditions) if query.conditions else None
    halves: dict[str, Any] = {}
    if query.dense is not None:
        halves["dense"] = query.dense.tolist()
    if query.sparse is not None:
        halves["sparse"] = m.SparseVector(indices=list(query.sparse.indices), values=list(query.sparse.values))
    common = {"limit": query.limit, "score_threshold": query.score_threshold, "with_payload": True}
    if query.mode != "hybrid":
        return {**common, "query": halves[query.mode], "using": query.mode, "query_filter": conditions}
    prefetch = [
        m.Prefetch(query=half, using=name, limit=candidates, filter=conditions) for name, half in halves.items()
    ]
    return {**common, "prefetch": prefetch, "query": m.RrfQuery(rrf=m.Rrf(k=RRF_K))}


def _point_id(text: str) -> int | str:
    """The server's form of an id: ours are UUIDs, other programs may use numbers."""
    return int(text) if text.isdecimal() else text


def _filter(conditions: Sequence[Condition], ids: Sequence[str] = ()) -> m.Filter:
    must: list[Any] = [_condition(condition) for condition in conditions if not condition.negate]
    if ids:
        must.append(m.HasIdCondition(has_id=[_point_id(text) for text in ids]))
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
