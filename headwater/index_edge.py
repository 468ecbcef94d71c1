"""The index in this process: the Qdrant Edge engine on one directory. One process may open it at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from headwater.compaction import settle_swap
from headwater.errors import HeadwaterError, IndexMismatch, IndexUnavailable
from headwater.index import (
    BATCH_POINTS,
    INDEXED_FIELDS,
    Condition,
    IndexCounts,
    Manifest,
    Point,
    Quantization,
    ScoredChunk,
    SearchQuery,
)
from headwater.index_qdrant import QdrantIndex, dense_of, fence_conditions, of_source, point_of
from headwater.state import check_free_space, write_atomically

__all__ = ["EdgeIndex", "MovableEdgeIndex"]

Vector = NDArray[np.float32]

_TYPES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "datetime": edge.PayloadSchemaType.Datetime,
}
#: another process that is ending may hold the shard for a moment
_LOCK_WAIT_S = 10.0
#: trouble of the process or the disk, not damage of the shard: it stays where it is
_PASSING = (
    "Too many open files",
    "TooManyOpenFiles",
    "os error 24",
    "os error 12",
    "os error 13",
    "os error 23",
    "os error 28",
    "Cannot allocate memory",
    "Permission denied",
    "No space left",
)
#: what the engine says when its files hold what it has never written; it then refuses all further writes
_UNREADABLE = ("Failed to decode", "Failed to deserialize")
#: processes that may end while they load the shard, before it counts as damaged
_MOST_OPENINGS = 3
#: free space that loading needs: the engine maps parts of 32 MiB, and a full disk beneath them is SIGBUS
_LOAD_BYTES = 128 * 1024 * 1024


class EdgeIndex(QdrantIndex):
    """A Qdrant Edge shard in ``directory``; ``manifest`` is a small file beside it."""

    def __init__(
        self,
        directory: Path,
        manifest: Path,
        *,
        on_damage: Callable[[str], object] | None = None,
        quantization: Quantization = "none",
    ) -> None:
        """``quantization`` begins with the next compaction. ``on_damage`` is told, with a sentence, when the engine
        finds its files damaged while it runs: the shard is marked, must not be used any more, and is set aside when it
        is opened next."""
        self._directory = directory
        self._on_damage = on_damage
        self._quantization: Quantization = quantization
        self._openings = directory.with_name(f"{directory.name}.opening")
        self._manifest_path = manifest
        self._shard: edge.EdgeShard | None = None
        self._writes = 0
        self._values: dict[tuple[str, bool], tuple[int, list[str]]] = {}

    # -- open and close --------------------------------------------------------------------------------------

    def ensure_schema(self, model: str, dimension: int) -> Manifest:
        settle_swap(self._directory)
        manifest = self.manifest()
        if manifest is not None:
            manifest.check(model, dimension, str(self._directory))
            manifest = self._quantized(manifest)
        self.dimension = dimension
        if self._shard is None:
            self._shard = self._load() if manifest is not None and self._directory.is_dir() else None
        if self._shard is None:
            manifest = self._create(model, dimension)
        self._ensure_payload_indexes(self._shard)
        assert manifest is not None
        return manifest

    def _quantized(self, manifest: Manifest) -> Manifest:
        """The manifest with the quantization that is wanted now."""
        if manifest.quantization != self._quantization:
            manifest = replace(manifest, quantization=self._quantization)
            write_atomically(self._manifest_path, manifest.to_json())
        return manifest

    def open_existing(self) -> Manifest:
        """Open an index that must be there. Raises IndexUnavailable if it is not."""
        settle_swap(self._directory)
        manifest = self.manifest()
        if manifest is None or not self._directory.is_dir():
            raise IndexUnavailable(f"there is no index in {self._directory}: run 'headwater up FOLDER' first")
        self.dimension = manifest.dimension
        self._shard = self._shard or self._load()
        if self._shard is None:
            raise IndexUnavailable(f"the index in {self._directory} is damaged: run 'headwater up' to rebuild it")
        return manifest

    def manifest(self) -> Manifest | None:
        """What the index was made with; None if none was made here."""
        try:
            return Manifest.from_json(self._manifest_path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise IndexMismatch(
                f"{self._manifest_path} cannot be read ({error}): delete it, and the index is made anew"
            ) from None

    def _load(self) -> edge.EdgeShard | None:
        """The shard, or None if it cannot be loaded: then it is set aside, and a new one is made.

        Damaged files may end the process in the middle of loading, so that is noted before: a shard that ended as many
        processes as that is damaged.
        """
        openings = _number_in(self._openings)
        if openings >= _MOST_OPENINGS:
            return None
        with contextlib.suppress(OSError):  # a state that may only be read has no such note
            self._openings.write_text(str(openings + 1))
        try:
            return self._load_when_free()
        finally:
            self._openings.unlink(missing_ok=True)

    def _place(self) -> str:
        """The shard's directory in the engine's words."""
        return str(self._directory)

    def _load_when_free(self) -> edge.EdgeShard | None:
        check_free_space(self._directory, _LOAD_BYTES)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                shard = edge.EdgeShard.load(self._place())
                shard.count(edge.CountRequest(exact=True))
                return shard
            except BaseException as error:  # the engine raises plain Exception, or its own panic
                if not (isinstance(error, Exception) or _is_panic(error)):
                    raise
                if any(mark in str(error) for mark in _PASSING):
                    raise IndexUnavailable(f"the index {self._directory} cannot be opened now: {error}") from error
                if "WouldBlock" not in str(error):
                    return None
                if time.monotonic() > deadline:
                    raise IndexUnavailable(
                        f"another process holds the index {self._directory}: ask through it, or stop it first"
                    ) from None
                time.sleep(0.1)

    def _create(self, model: str, dimension: int) -> Manifest:
        """A new shard. The manifest is written last, so that a crash on the way leaves no half-made index."""
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        check_free_space(self._directory.parent, _LOAD_BYTES)
        if self._directory.exists():
            self._set_aside()
        self._openings.unlink(missing_ok=True)
        self._manifest_path.unlink(missing_ok=True)
        self._directory.mkdir(exist_ok=True)
        self._shard = edge.EdgeShard.create(self._place(), _config(dimension, self._quantization))
        self._ensure_payload_indexes(self._shard)
        self._shard.flush()
        manifest = replace(Manifest.new(model, dimension), quantization=self._quantization)
        write_atomically(self._manifest_path, manifest.to_json())
        return manifest

    def _ensure_payload_indexes(self, shard: edge.EdgeShard | None) -> None:
        """Those that are missing: an older release made fewer."""
        if shard is None:
            return
        with self._engine_errors("make its payload indexes"):
            present = shard.info().payload_schema
            for name, kind in INDEXED_FIELDS.items():
                if name not in present:
                    shard.update(edge.UpdateOperation.create_field_index(name, _TYPES[kind]))

    def _set_aside(self) -> None:
        """Keep at most one shard that could not be loaded, for a person to look at."""
        aside = self._directory.with_name(f"{self._directory.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self._directory, aside)

    def close(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.flush()
            shard.close()

    @contextlib.contextmanager
    def _engine_errors(self, action: str) -> Iterator[None]:
        """The engine raises plain Exception: give it our type, and let our own errors pass."""
        try:
            yield
        except HeadwaterError:
            raise
        except BaseException as error:
            if _is_panic(error) or _tells_of_damage(error):
                raise self._distrust(f"it could not {action}: {error}") from None
            if not isinstance(error, Exception):
                raise
            raise IndexUnavailable(f"the embedded index could not {action}: {error}") from error

    def _distrust(self, reason: str) -> IndexUnavailable:
        sentence = f"the index {self._directory} is damaged ({reason}): it is made anew"
        self._shard = None  # nothing of it can be trusted
        with contextlib.suppress(OSError):
            self._openings.write_text(str(_MOST_OPENINGS))
        if self._on_damage is not None:
            self._on_damage(sentence)
        return IndexUnavailable(sentence)

    @property
    def _open(self) -> edge.EdgeShard:
        if self._shard is None:
            raise IndexUnavailable(f"the index {self._directory} is closed")
        return self._shard

    # -- write -----------------------------------------------------------------------------------------------

    def _upsert(self, points: Sequence[Point], fences: Mapping[str, int]) -> None:
        condition = edge.Filter(should=[_filter(fence) for fence in fence_conditions(fences)])
        self._update(edge.UpdateOperation.upsert_points([_to_edge(p) for p in points], condition=condition))

    def _delete(self, conditions: Sequence[Condition], ids: Sequence[str] = ()) -> None:
        self._update(edge.UpdateOperation.delete_points_by_filter(_filter(conditions, ids)))

    def _update(self, operation: edge.UpdateOperation) -> None:
        with self._engine_errors("write"):
            self._open.update(operation)
        self._writes += 1

    def flush(self) -> None:
        with self._engine_errors("flush"):
            self._open.flush()

    # -- read ------------------------------------------------------------------------------------------------

    def _page(
        self, conditions: Sequence[Condition], fields: Sequence[str] | None, offset: str | None, *, with_vectors: bool
    ) -> tuple[list[Point], str | None]:
        request = edge.ScrollRequest(
            offset=None if offset is None else _point_id(offset),
            limit=BATCH_POINTS,
            filter=_filter(conditions) if conditions else None,
            with_payload=True if fields is None else list(fields),
            with_vector=with_vectors,
        )
        with self._engine_errors("read"):
            records, following = self._open.scroll(request)
        return [point_of(record) for record in records], None if following is None else str(following)

    def _search(self, query: SearchQuery, candidates: int) -> list[ScoredChunk]:
        with self._engine_errors("search"):
            found = self._open.query(_request(query, candidates))
        return [ScoredChunk(point.score, point.payload or {}, dense_of(point.vector)) for point in found]

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        writes = self._writes
        known = self._values.get((field, exact))
        if known is None or known[0] != writes:
            with self._engine_errors("read"):
                limit = self._open.count(edge.CountRequest(exact=True)) + 1
                hits = self._open.facet(edge.FacetRequest(field, limit=limit, exact=exact)).hits
            known = self._values[field, exact] = writes, sorted(str(hit.value) for hit in hits if hit.count)
        return known[1]

    def newest_seq(self) -> int | None:
        newest = edge.OrderBy("seq", edge.Direction.Desc)
        with self._engine_errors("read"):
            found, _ = self._open.scroll(edge.ScrollRequest(limit=1, with_payload=["seq"], order_by=newest))
        return _seq_of(found[0].payload) if found else None

    def census(self, source: str | None = None) -> dict[int, int]:
        only = _filter(of_source(source)) if source is not None else None
        with self._engine_errors("count"):
            total = self._open.count(edge.CountRequest(exact=True, filter=only))
            counts = self._seq_counts(total, only, exact=False)  # from the field's index alone: 60 times as fast
            return counts if sum(counts.values()) == total else self._seq_counts(total, only, exact=True)

    def _seq_counts(self, most: int, only: edge.Filter | None, *, exact: bool) -> dict[int, int]:
        hits = self._open.facet(edge.FacetRequest("seq", limit=most + 1, exact=exact, filter=only)).hits
        return {int(hit.value): hit.count for hit in hits if hit.count}

    def count(self) -> IndexCounts:
        with self._engine_errors("count"):
            total = self._open.count(edge.CountRequest(exact=True))
            chunks = self._open.count(edge.CountRequest(exact=True, filter=_filter((Condition("chunk", gte=0),))))
        return IndexCounts(documents=total - chunks, chunks=chunks)


class MovableEdgeIndex(EdgeIndex):
    """A shard whose directory may be renamed while it is open, for a process that has nothing else to do: its working
    directory is the shard's, and the engine knows it by no other name. And what a compaction needs of the engine."""

    def _place(self) -> str:
        os.chdir(self._directory)
        return "."

    def moved(self, directory: Path) -> None:
        """The directory has another name now."""
        self._directory = directory
        self._openings = directory.with_name(f"{directory.name}.opening")

    def values_of(self, field: str, exact: bool) -> list[str]:
        """``values``, as it is called from the other side of a socket."""
        return self.values(field, exact=exact)

    def scan_page(self, offset: str | None, with_vectors: bool) -> tuple[list[Point], str | None]:
        """A step of ``scan``: some points, and the offset of the next."""
        return self._page((), None, offset, with_vectors=with_vectors)

    def points_count(self) -> int:
        """How many points there are, as the engine keeps count of them."""
        with self._engine_errors("count"):
            return int(self._open.info().points_count)

    def optimize(self) -> bool:
        """Merge the segments without what was deleted in them, with a graph for fast search where they are large;
        whether there was anything to do. Durable when it returns. Raises IndexUnavailable."""
        manifest = self.manifest()
        if manifest is None:
            raise IndexUnavailable(f"there is no index in {self._directory}")
        os.chdir(self._directory)
        with self._engine_errors("optimize"):
            shard = edge.EdgeShard.load(".", _config(manifest.dimension, manifest.quantization))
            done = bool(shard.optimize())
            shard.flush()
            shard.close()
        return done

    def documents_page(self, offset: str | None, document_ids: Sequence[str]) -> tuple[list[Point], str | None]:
        """As ``page``, of some documents."""
        of_documents = (Condition("document_id", any_of=tuple(document_ids)),)
        return self._page(of_documents, None, offset, with_vectors=True)

    def replace(self, document_ids: Sequence[str], points: Sequence[Point]) -> None:
        """Put these points in place of all that are there of some documents."""
        self._delete((Condition("document_id", any_of=tuple(document_ids)),))
        for first in range(0, len(points), BATCH_POINTS):
            batch = points[first : first + BATCH_POINTS]
            self._update(edge.UpdateOperation.upsert_points([_to_edge(point) for point in batch]))


#: links of a node, candidates looked at when it is placed; so few kB of vectors are compared one by one.
#: ``payload_m`` 0: no further links between points that share a value, which are 3/4 of the work (docs/performance.md)
_GRAPH = edge.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=16_000, payload_m=0)
#: candidates that a search of the graph looks at
_SEARCHED = 128
#: with a filter that lets through less than this share the search goes by neighbours of neighbours (ACORN-1: Patel,
#: Kraft, Guestrin, Zaharia 2024), as the points that pass have few links among them
_ACORN = edge.AcornSearchParams(enable=True, max_selectivity=0.6)


#: how the copies are made; outliers beyond the 99th percentile do not stretch the scale of the others
_QUANTIZED: dict[Quantization, Any] = {
    "none": None,
    "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned),
    "binary": edge.BinaryQuantizationConfig(memory=edge.Memory.Pinned),
}
#: the copies choose so many times the hits, and the true vectors the best of them
_RESCORED = edge.QuantizationSearchParams(rescore=True, oversampling=3.0)


def _config(dimension: int, quantization: Quantization) -> edge.EdgeConfig:
    """The vectors, and when a compaction has something to do; nothing else ever starts one."""
    return edge.EdgeConfig(
        vectors={
            "dense": edge.EdgeVectorParams(
                size=dimension, distance=edge.Distance.Cosine, quantization_config=_QUANTIZED[quantization]
            )
        },
        sparse_vectors={"sparse": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=_GRAPH,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=0.1, vacuum_min_vector_number=100, default_segment_number=1
        ),
    )


def _is_panic(error: BaseException) -> bool:
    """What Rust code raises through Python when it meets what cannot be: here, damaged files."""
    return type(error).__name__ == "PanicException"


def _tells_of_damage(error: BaseException) -> bool:
    """Whether an error is about what the files hold, not about what the disk or the process can do just now."""
    text = str(error)
    return any(sign in text for sign in _UNREADABLE) and not any(sign in text for sign in ("os error", *_PASSING))


def _number_in(path: Path) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _to_edge(point: Point) -> edge.Point:
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vectors["sparse"] = edge.SparseVector(list(point.sparse.indices), list(point.sparse.values))
    return edge.Point(uuid.UUID(point.id), vectors, dict(point.payload))


def _seq_of(payload: Mapping[str, Any] | None) -> int | None:
    seq = (payload or {}).get("seq")
    return int(seq) if isinstance(seq, int | float) else None


def _request(query: SearchQuery, candidates: int) -> edge.QueryRequest:
    conditions = _filter(query.conditions) if query.conditions else None
    halves: dict[str, Any] = {}
    common: Any = {
        "limit": query.limit,
        "score_threshold": query.score_threshold,
        "with_payload": True,
        "with_vector": ["dense"] if query.with_vectors else False,
        "params": edge.SearchParams(
            hnsw_ef=_SEARCHED, acorn=_ACORN if query.conditions else None, quantization=_RESCORED
        ),
    }
    if query.dense is not None:
        halves["dense"] = edge.Query.Nearest(query.dense.tolist(), using="dense")
    if query.sparse is not None:
        sparse = edge.SparseVector(list(query.sparse.indices), list(query.sparse.values))
        halves["sparse"] = edge.Query.Nearest(sparse, using="sparse")
    if query.mode != "hybrid":
        return edge.QueryRequest(query=halves[query.mode], filter=conditions, **common)
    weights = [query.fusion.dense_weight, query.fusion.sparse_weight]
    fusion: Any = (
        edge.Fusion.Dbsf() if query.fusion.method == "dbsf" else edge.Fusion.Rrf(k=query.fusion.k, weights=weights)
    )
    params = common.pop("params")
    return edge.QueryRequest(
        prefetches=[
            edge.Prefetch(limit=candidates, query=half, filter=conditions, params=params) for half in halves.values()
        ],
        query=fusion,
        **common,
    )


def _point_id(text: str) -> int | uuid.UUID:
    """The engine's form of an id: ours are UUIDs, other programs may use numbers."""
    return int(text) if text.isdecimal() else uuid.UUID(text)


def _filter(conditions: Sequence[Condition], ids: Sequence[str] = ()) -> edge.Filter:
    must: list[Any] = [_condition(condition) for condition in conditions if not condition.negate]
    if ids:
        must.append(edge.HasIdCondition({_point_id(text) for text in ids}))
    must_not: list[Any] = [_condition(condition) for condition in conditions if condition.negate]
    return edge.Filter(must=must or None, must_not=must_not or None)


def _condition(condition: Condition) -> edge.FieldCondition:
    if condition.any_of is not None:
        values: Any = list(condition.any_of)
        return edge.FieldCondition(condition.field, match=edge.MatchAny(values))
    bounds: Any = {
        name: value for name in ("gte", "gt", "lte", "lt") if (value := getattr(condition, name)) is not None
    }
    kind = edge.RangeDateTime if INDEXED_FIELDS[condition.field] == "datetime" else edge.RangeFloat
    return edge.FieldCondition(condition.field, range=kind(**bounds))
