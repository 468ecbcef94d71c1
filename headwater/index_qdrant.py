"""What the adapters for Qdrant's engine share: the order of writes, fencing, and documents as points."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headwater.document import in_utc, member_path, point_id, record_id
from headwater.errors import IndexUnavailable, QueryError
from headwater.failpoints import reach
from headwater.index import (
    BATCH_POINTS,
    INDEXED_FIELDS,
    Condition,
    DocumentState,
    DocumentWrite,
    Member,
    Point,
    ScoredChunk,
    SearchQuery,
    SeenPoint,
    Sparse,
)

__all__ = ["QdrantIndex", "are_units", "dense_of", "document_points", "fence_conditions", "of_source", "point_of"]

Vector = NDArray[np.float32]
_Item = TypeVar("_Item")

#: payload fields of a document's record
RECORD_FIELDS = (
    "path", "document_id", "content_hash", "seq", "title", "modified_at", "kind", "size", "chunks", "pipeline",
    "partial", "metadata", "members", "unread", "source",
)  # fmt: skip
#: candidates that each half of a hybrid search brings, at least
_CANDIDATES = 50
#: a front-matter value is filtered by its beginning
_MOST_FIELD_CHARACTERS = 200
#: files within a document that its record names
_MOST_NAMED = 1000
#: allowed distance of a vector's length from 1
_UNIT_TOLERANCE = 1e-2
#: true of a point whose seq is missing or not a number
_NO_SEQ = Condition("seq", gte=-1e300, negate=True)


class QdrantIndex(ABC):
    """What both adapters share: the order of writes, fencing, and the translation of documents into points."""

    dimension: int = 0

    @abstractmethod
    def _upsert(self, points: Sequence[Point], fences: Mapping[str, int]) -> None:
        """Write points of documents, each with the seq that ``fences`` has for its document; one that exists with a
        higher seq is left alone.

        One with the same seq is written again: after a crash the engine replays this write over whatever parts of it
        had reached the disk, and a fence that these parts satisfy would leave the rest as it was (a payload of the
        old version under an index of the new one).
        """

    @abstractmethod
    def _delete(self, conditions: Sequence[Condition], ids: Sequence[str] = ()) -> None:
        """Delete the points that meet all conditions and, if ids are given, have one of them."""

    @abstractmethod
    def _distrust(self, reason: str) -> IndexUnavailable:
        """The error for an engine that does not do what it says: its files may be damaged without a sign."""

    @abstractmethod
    def _page(
        self, conditions: Sequence[Condition], fields: Sequence[str] | None, offset: str | None, *, with_vectors: bool
    ) -> tuple[list[Point], str | None]:
        """At most ``BATCH_POINTS`` points from the offset on, and the next offset."""

    @abstractmethod
    def _search(self, query: SearchQuery, candidates: int) -> list[ScoredChunk]: ...

    def stage(self, document: DocumentWrite) -> None:
        _check_vectors(document, self.dimension)
        for batch in _batches(list(_chunk_points(document)), BATCH_POINTS):
            self._upsert(batch, {document.document_id: document.seq})

    def apply(self, document: DocumentWrite) -> None:
        self.apply_all([document])

    def apply_all(self, documents: Sequence[DocumentWrite]) -> None:
        for document in documents:
            _check_vectors(document, self.dimension)
        held = self._write(documents)
        reach("worker:upserted")
        if again := [document for document in documents if not _holds(held.get(document.document_id), document)]:
            held |= self._write(again)  # a sweep may have come between; an engine that is damaged does it again
        if not all(_holds(held.get(document.document_id), document) for document in again):
            raise self._distrust("it does not have what was written to it")
        for document in documents:
            state = held[document.document_id]
            # a newer version may have come first: then what this write added beside it goes as well
            if state.lowest_seq < state.highest_seq:
                self.delete(document.document_id, state.highest_seq)

    def _write(self, documents: Sequence[DocumentWrite]) -> dict[str, DocumentState]:
        """Write all points, and tell what is held then."""
        fences = {document.document_id: document.seq for document in documents}
        points = [point for document in documents for point in document_points(document)]
        for batch in _batches(points, BATCH_POINTS):
            named = {str(point.payload["document_id"]) for point in batch}
            self._upsert(batch, {document_id: fences[document_id] for document_id in named})
        return self.document_states(list(fences))

    def delete(self, document_id: str, seq: int) -> None:
        self._delete((Condition("document_id", any_of=(document_id,)), Condition("seq", lt=seq)))

    def remove(self, document_id: str, seq: int) -> DocumentState | None:
        self.delete(document_id, seq)
        left = self.document_state(document_id)
        if left is not None and left.highest_seq < seq:
            raise self._distrust("it still has what was deleted from it")
        return left

    def sweep(self, seqs: Sequence[int], source: str | None = None) -> None:
        for batch in _batches(list(seqs), BATCH_POINTS):
            self._delete((Condition("seq", any_of=tuple(batch)), *of_source(source)))

    def sweep_unversioned(self) -> None:
        self._delete((_NO_SEQ,))

    def checkpoint(self) -> None:
        self.flush()

    @abstractmethod
    def flush(self) -> None: ...

    def for_questions(self) -> Self:
        """One that waits for nobody, unless it says otherwise."""
        return self

    def document_state(self, document_id: str) -> DocumentState | None:
        return self.document_states([document_id]).get(document_id)

    def document_states(self, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        fields = ("document_id", "seq", "content_hash", "chunks", "partial", "chunk")
        payloads: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for batch in _batches(document_ids, BATCH_POINTS):
            of_documents = (Condition("document_id", any_of=tuple(batch)),)
            for point in self._scroll(of_documents, fields, with_vectors=False):
                payloads[point.payload["document_id"]].append(point.payload)
        return {document_id: _state(found) for document_id, found in payloads.items()}

    def record(self, document_id: str) -> Mapping[str, Any] | None:
        of_document = (Condition("document_id", any_of=(document_id,)),)
        points = self._scroll(of_document, RECORD_FIELDS, with_vectors=False)
        return next((point.payload for point in points if point.payload.get("pipeline") is not None), None)

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        for batch in _batches(list(dict.fromkeys(text_hashes)), BATCH_POINTS):
            found |= self._vectors_of(list(batch))
        return found

    def _vectors_of(self, missing: list[str]) -> dict[str, Vector]:
        """One page at a time, leaving out what is found: a text that stands in 10,000 documents is read once."""
        found: dict[str, Vector] = {}
        offset: str | None = None
        while missing:
            having = (Condition("text_hash", any_of=tuple(missing)),)
            page, offset = self._page(having, ("text_hash",), offset, with_vectors=True)
            usable = (point for point in page if point.dense is not None and are_units(point.dense[np.newaxis]))
            found |= {point.payload["text_hash"]: point.dense for point in usable if point.dense is not None}
            if offset is None:
                break
            missing = [text_hash for text_hash in missing if text_hash not in found]
        return found

    def document_vectors(self, document_id: str) -> Vector:
        return self._dense_of(Condition("document_id", any_of=(document_id,)))

    def path_vectors(self, path: str) -> Vector:
        return self._dense_of(Condition("path", any_of=(path,)))

    def _dense_of(self, which: Condition) -> Vector:
        points = self._scroll((which,), ("chunk",), with_vectors=True)
        found = [point for point in points if point.dense is not None]
        found.sort(key=lambda point: int(point.payload["chunk"]))
        rows = [point.dense for point in found if point.dense is not None]
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def search(self, query: SearchQuery) -> list[ScoredChunk]:
        needed = {"hybrid": (query.dense, query.sparse), "dense": (query.dense,), "sparse": (query.sparse,)}
        if any(vector is None for vector in needed[query.mode]):
            raise QueryError(f"a {query.mode} search needs its vectors")
        _check_fields(query.conditions)
        whole = query.limit + query.offset
        found = self._search(replace(query, limit=whole, offset=0), max(_CANDIDATES, 2 * whole))
        return sorted(found, key=_by_score)[query.offset :]

    def document_chunks(self, document_id: str, first: int, last: int) -> list[Mapping[str, Any]]:
        wanted = (Condition("document_id", any_of=(document_id,)), Condition("chunk", gte=first, lte=last))
        found = [point.payload for point in self._scroll(wanted, None, with_vectors=False)]
        return sorted(found, key=lambda payload: int(payload["chunk"]))

    def scan(self, *, with_vectors: bool = False) -> Iterator[Point]:
        return self._scroll((), None, with_vectors=with_vectors)

    def _scroll(
        self, conditions: Sequence[Condition], fields: Sequence[str] | None, *, with_vectors: bool
    ) -> Iterator[Point]:
        offset: str | None = None
        while True:
            points, offset = self._page(conditions, fields, offset, with_vectors=with_vectors)
            yield from points
            if offset is None:
                return

    def page(
        self, offset: str | None = None, document_id: str | None = None, source: str | None = None
    ) -> tuple[list[Point], str | None]:
        of_document = () if document_id is None else (Condition("document_id", any_of=(document_id,)),)
        return self._page((*of_document, *of_source(source)), None, offset, with_vectors=True)

    def discard(self, points: Sequence[SeenPoint]) -> None:
        by_seq: dict[int | float | None, list[str]] = {}
        for point in points:
            by_seq.setdefault(point.seq, []).append(point.id)
        for seq, ids in by_seq.items():
            fence = _NO_SEQ if seq is None else Condition("seq", gte=seq, lte=seq)
            for batch in _batches(ids, BATCH_POINTS):
                self._delete((fence,), batch)


def of_source(source: str | None) -> tuple[Condition, ...]:
    """The condition for points of one folder; none for those of all."""
    return () if source is None else (Condition("source", any_of=(source,)),)


def _by_score(found: ScoredChunk) -> tuple[float, str, int]:
    """Best first; equal scores, which ranks often give, in an order of their own and not in the engine's of the day."""
    return -found.score, str(found.payload.get("path")), int(found.payload.get("chunk") or 0)


def _check_fields(conditions: Iterable[Condition]) -> None:
    for condition in conditions:
        if condition.field not in INDEXED_FIELDS:
            known = ", ".join(sorted(INDEXED_FIELDS))
            raise QueryError(f"there is no filter {condition.field!r}: filters are {known}")


def _check_vectors(document: DocumentWrite, dimension: int) -> None:
    shape = (len(document.chunks), dimension)
    if document.dense.shape != shape or len(document.sparse) != len(document.chunks):
        raise ValueError(f"vectors of shape {document.dense.shape} were given where {shape} was expected")
    if not are_units(document.dense):
        raise ValueError("a vector is not finite or not of unit length")
    if not all(math.isfinite(value) for sparse in document.sparse for value in sparse.values):
        raise ValueError("a sparse vector is not finite")


def are_units(rows: Vector) -> bool:
    """Whether each row is finite and of unit length: a damaged index may hold others."""
    lengths = np.linalg.norm(rows, axis=1)
    return bool(np.all(np.abs(lengths - 1.0) < _UNIT_TOLERANCE))  # also false for NaN and infinity


def document_points(document: DocumentWrite) -> Iterator[Point]:
    """The points of a version: one for each chunk, then the record."""
    yield from _chunk_points(document)
    yield _record_point(document)


def _chunk_points(document: DocumentWrite) -> Iterator[Point]:
    whole = Member("", document.kind, document.title, document.language, document.metadata)
    shared: dict[int | None, dict[str, Any]] = {None: _shared_fields(document, whole)}
    shared |= {at: _shared_fields(document, member) for at, member in enumerate(document.members)}
    for chunk, dense, sparse in zip(document.chunks, document.dense, document.sparse, strict=True):
        payload = {
            "text": chunk.text,
            "document_id": document.document_id,
            "chunk": chunk.number,
            "text_hash": chunk.text_hash,
            "content_hash": document.content_hash,
            "seq": document.seq,
            "headings": list(chunk.headings),
            "start": chunk.start,
            "end": chunk.end,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "page": chunk.page,
            "modified_at": document.modified_at,
            **({"context": chunk.context} if chunk.context else {}),
            **shared[chunk.member],
        }
        yield Point(point_id(document.document_id, chunk.number), payload, dense, sparse)


def _shared_fields(document: DocumentWrite, of: Member) -> dict[str, Any]:
    """What all chunks of a document, or of one file within it, carry: whose they are, and what they are filtered by."""
    member = of.name or None
    path = member_path(document.path, member)
    return {
        "path": path,
        "source": document.source,
        **({"member": member} if member else {}),
        "title": of.title,
        "kind": of.kind,
        **filter_fields(path, of.language, of.metadata),
    }


def filter_fields(path: str, language: str | None, metadata: Mapping[str, object]) -> dict[str, Any]:
    """Extension (lower case, without dot), the directories that hold it, language, when it was created, how many pages
    it has, and its other fields as "name=value", one for each value of a list."""
    parents = PurePosixPath(path).parents
    own = {"created": _moment(metadata.get("created") or metadata.get("date")), "pages": _count(metadata.get("pages"))}
    return {
        "extension": PurePosixPath(path).suffix.lstrip(".").lower() or None,
        "directories": [str(parent) for parent in parents if str(parent) != "."],
        "language": language,
        "fields": sorted(
            f"{name.lower()}={_field_text(one)}"
            for name, value in metadata.items()
            for one in (value if isinstance(value, list | tuple) else [value])
        ),
        **{name: value for name, value in own.items() if value is not None},
    }


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object) -> str | None:
    """A date or time of a document's own, as RFC 3339 in UTC; None if it is none."""
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        return None if found is None else in_utc(found)
    except (ValueError, OverflowError):
        return None


def _field_text(value: object) -> str:
    """As a person writes it: yes and no of YAML are true and false."""
    return str(value).lower() if isinstance(value, bool) else str(value)[:_MOST_FIELD_CHARACTERS]


def _record_point(document: DocumentWrite) -> Point:
    payload = {
        "path": document.path,
        "source": document.source,
        "document_id": document.document_id,
        "content_hash": document.content_hash,
        "seq": document.seq,
        "title": document.title,
        "modified_at": document.modified_at,
        "kind": document.kind,
        "size": document.size,
        "chunks": len(document.chunks) if document.total_chunks is None else document.total_chunks,
        "pipeline": document.pipeline,
        "partial": document.partial,
        "metadata": dict(document.metadata),
        **({"members": [member.name for member in document.members[:_MOST_NAMED]]} if document.members else {}),
        **({"unread": list(document.unread)} if document.unread else {}),
    }
    return Point(record_id(document.document_id), payload)


def _state(payloads: Sequence[Mapping[str, Any]]) -> DocumentState:
    record = next((payload for payload in payloads if payload.get("chunks") is not None), None)
    seqs = [int(payload["seq"]) for payload in payloads]
    highest = max(seqs)
    return DocumentState(
        seq=0 if record is None else int(record["seq"]),
        highest_seq=highest,
        lowest_seq=min(seqs),
        content_hash=None if record is None else record["content_hash"],
        chunks=0 if record is None else int(record["chunks"]),
        partial=None if record is None else record.get("partial"),
        newest_hashes=frozenset(p["content_hash"] for p in payloads if int(p["seq"]) == highest),
        newest_points=seqs.count(highest),
    )


def fence_conditions(fences: Mapping[str, int]) -> Iterator[tuple[Condition, ...]]:
    """What a point that exists must meet to be written over, one of these: its seq is not above its document's."""
    for document_id, seq in fences.items():
        yield Condition("document_id", any_of=(document_id,)), Condition("seq", lte=seq)


def _holds(held: DocumentState | None, document: DocumentWrite) -> bool:
    """Whether all points of a version are there, or a newer one's."""
    if held is None or held.highest_seq < document.seq:
        return False
    chunks = len(document.chunks) if document.total_chunks is None else document.total_chunks
    return held.highest_seq > document.seq or held.newest_points > chunks


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def point_of(record: Any) -> Point:
    """A record as the server's client or the embedded engine gives it: both have the same fields."""
    vectors: Any = record.vector or {}
    sparse = vectors.get("sparse")
    return Point(
        id=str(record.id),
        payload=record.payload or {},
        dense=dense_of(vectors),
        sparse=None if sparse is None else Sparse(sparse.indices, sparse.values),
    )


def dense_of(vectors: Any) -> Vector | None:
    dense = vectors.get("dense") if isinstance(vectors, dict) else None
    return None if dense is None else np.asarray(dense, np.float32)
