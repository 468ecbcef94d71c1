"""The index on a Qdrant server or cluster, through its official client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import httpx
import numpy as np
from numpy.typing import NDArray
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
    Quantization,
    ScoredChunk,
    SearchQuery,
    Sparse,
)
from headwater.index_qdrant import QdrantIndex, fence_conditions

__all__ = ["ServerIndex"]

Vector = NDArray[np.float32]

_TYPES = {
    "keyword": m.PayloadSchemaType.KEYWORD,
    "integer": m.PayloadSchemaType.INTEGER,
    "datetime": m.PayloadSchemaType.DATETIME,
}
#: most bytes of points in one request; a server refuses bodies above 32 MiB by default
_BATCH_BYTES = 4 * 1024 * 1024
_TIMEOUT_S = 30
#: HTTP status for a collection that is to be made and is there
_EXISTS = 409
#: bytes of one number, and of one sparse entry (index and number), written as JSON, at most
_NUMBER_BYTES = 24
_SPARSE_BYTES = 36


#: how the copies are made; outliers beyond the 99th percentile do not stretch the scale of the others
_QUANTIZED: dict[Quantization, m.ScalarQuantization | m.BinaryQuantization | None] = {
    "none": None,
    "int8": m.ScalarQuantization(
        scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": m.BinaryQuantization(binary=m.BinaryQuantizationConfig(always_ram=True)),
}
#: the copies choose so many times the hits, and the true vectors the best of them
_SEARCHED = m.SearchParams(quantization=m.QuantizationSearchParams(rescore=True, oversampling=3.0))


class ServerIndex(QdrantIndex):
    """One collection on a server. Writes wait for the server, which keeps its own write-ahead log."""

    def __init__(self, client: QdrantClient, collection: str, where: str, quantization: Quantization = "none") -> None:
        self._client = client
        self._collection = collection
        self._where = where
        self._quantization: Quantization = quantization
        self._params = None if quantization == "none" else _SEARCHED

    @classmethod
    def connect(
        cls, url: str, api_key: str | None, collection: str, quantization: Quantization = "none"
    ) -> ServerIndex:
        """Raises IndexUnavailable if the URL is not one."""
        try:
            client = QdrantClient(url=url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False)
        except (ValueError, httpx.InvalidURL) as error:
            raise IndexUnavailable(f"QDRANT_URL={url!r} is no address of a Qdrant server ({error})") from None
        return cls(client, collection, url, quantization)

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
            manifest = self.manifest() or self._create(
                replace(Manifest.new(model, dimension), quantization=self._quantization)
            )
            manifest.check(model, dimension, f"{self._collection} at {self._where}")
            self.dimension = dimension
            self._ensure_payload_indexes()
            return self._quantized(manifest)

    def _quantized(self, manifest: Manifest) -> Manifest:
        """The manifest with the quantization that is wanted now; the server makes its segments anew by itself."""
        if manifest.quantization == self._quantization:
            return manifest
        changed = replace(manifest, quantization=self._quantization)
        self._client.update_collection(
            self._collection,
            quantization_config=_QUANTIZED[self._quantization] or m.Disabled.DISABLED,
            metadata={"headwater": changed.to_json()},
        )
        return changed

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
        dense = m.VectorParams(size=manifest.dimension, distance=m.Distance.COSINE, on_disk=True)
        try:
            self._client.create_collection(
                self._collection,
                vectors_config={"dense": dense},
                sparse_vectors_config={"sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
                quantization_config=_QUANTIZED[self._quantization],
                metadata={"headwater": manifest.to_json()},
            )
        except UnexpectedResponse as error:
            if error.status_code != _EXISTS:  # else another worker that started with this one was first
                raise
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
            found = self._client.query_points(self._collection, **_request(query, candidates, self._params)).points
        return [ScoredChunk(point.score, point.payload or {}, _dense_of(point.vector)) for point in found]

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        with self._answers():
            limit = self._client.count(self._collection, exact=True).count + 1
            hits = self._client.facet(self._collection, field, limit=limit, exact=exact).hits
        return sorted(str(hit.value) for hit in hits if hit.count)

    def newest_seq(self) -> int | None:
        newest = m.OrderBy(key="seq", direction=m.Direction.DESC)
        with self._answers():
            found, _ = self._client.scroll(self._collection, limit=1, with_payload=["seq"], order_by=newest)
        seq = (found[0].payload or {}).get("seq") if found else None
        return int(seq) if isinstance(seq, int | float) else None

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


def _dense_of(vectors: Any) -> Vector | None:
    dense = vectors.get("dense") if isinstance(vectors, dict) else None
    return None if dense is None else np.asarray(dense, np.float32)


def _request(query: SearchQuery, candidates: int, params: m.SearchParams | None) -> dict[str, Any]:
    conditions = _filter(query.conditions) if query.conditions else None
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
