"""The vector index: values, and the contract of what holds them, ``VectorIndex``.

Points of one document all carry its ``seq``. A chunk point has the vectors ``dense`` and ``sparse``; the document's
record is a point without vectors, so it is never found by a search.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headwater.document import embedded_text
from headwater.errors import IndexMismatch, IndexUnavailable
from headwater.settings import Settings

if TYPE_CHECKING:
    from headwater.state import Layout

__all__ = [
    "Chunk",
    "Condition",
    "DocumentState",
    "DocumentWrite",
    "Fusion",
    "IndexCounts",
    "Manifest",
    "Member",
    "Mode",
    "Point",
    "Quantization",
    "ScoredChunk",
    "SearchQuery",
    "SeenPoint",
    "Sparse",
    "VectorIndex",
    "open_index",
]

Vector = NDArray[np.float32]
Mode = Literal["hybrid", "dense", "sparse"]
Quantization = Literal["none", "int8", "binary"]
_Item = TypeVar("_Item")

#: raised whenever points are stored in another form
SCHEMA_VERSION = 1
#: most points in one engine call: Edge holds the interpreter lock meanwhile
BATCH_POINTS = 256
#: payload fields that filters may name, with the type of their index
INDEXED_FIELDS: Mapping[str, str] = {
    "document_id": "keyword",
    "text_hash": "keyword",
    "path": "keyword",
    "seq": "integer",
    "chunk": "integer",
    "kind": "keyword",
    "title": "keyword",
    "headings": "keyword",
    "page": "integer",
    "content_hash": "keyword",
    "modified_at": "datetime",
    "extension": "keyword",
    "directories": "keyword",
    "language": "keyword",
    "fields": "keyword",
    "created": "datetime",
    "pages": "integer",
    "source": "keyword",
}


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector: token ids and weights of equal length."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: ``start``/``end`` are characters of the extracted text, lines and pages count from 1. All
    of them are those of a file within the document, if the chunk is from ``members[member]`` of its version."""

    number: int
    text: str
    text_hash: str
    start: int
    end: int
    start_line: int | None = None
    end_line: int | None = None
    page: int | None = None
    headings: tuple[str, ...] = ()
    #: what is put above the text for the model and for the search by words; ``text_hash`` is of both
    context: str = ""
    member: int | None = None

    @property
    def embedded(self) -> str:
        """What the model reads."""
        return embedded_text(self.text, self.context)


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a document (of an archive, attached to a mail), by its name there: to those who search, a document
    of its own."""

    name: str
    kind: str
    title: str | None = None
    #: ISO 639-1
    language: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """One version of a document, ready to be written. ``dense`` has shape [chunks, dimension], unit rows."""

    document_id: str
    path: str
    seq: int
    content_hash: str
    pipeline: str
    kind: str
    modified_at: str
    size: int
    chunks: Sequence[Chunk]
    dense: Vector
    sparse: Sequence[Sparse]
    title: str | None = None
    #: ISO 639-1
    language: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    partial: str | None = None
    members: Sequence[Member] = ()
    #: files within it that are not indexed, each with the reason
    unread: Sequence[str] = ()
    #: name of the folder, where several share a collection; ``path`` begins with it
    source: str = ""
    #: chunks of the whole version, when these are only some of them
    total_chunks: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What the index holds of one document. ``seq`` and ``content_hash`` are those of its record, if it has one;
    ``highest_seq`` and ``lowest_seq`` are over all its points."""

    seq: int
    highest_seq: int
    lowest_seq: int
    content_hash: str | None
    chunks: int
    partial: str | None
    #: content hashes of chunk points that carry ``highest_seq``
    newest_hashes: frozenset[str]
    #: how many points carry ``highest_seq``
    newest_points: int


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: the field's value is one of ``any_of``, or lies within the bounds (numbers or RFC 3339 times)."""

    field: str
    any_of: tuple[str | int, ...] | None = None
    gte: float | str | None = None
    gt: float | str | None = None
    lte: float | str | None = None
    lt: float | str | None = None
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Fusion:
    """How a hybrid search joins its halves: "dbsf" by the sum of scores that are scaled by their mean and three
    deviations (distribution-based score fusion), the default since it ranked best over several sets
    (docs/choosing-a-model.md); "rrf" by reciprocal rank (Cormack, Clarke, Buettcher 2009), the sum of
    1 / (k - 1 + rank / weight), ranks from 1 (a weight says little where k is large). The other fields are of "rrf"."""

    method: Literal["rrf", "dbsf"] = "dbsf"
    k: int = 60
    dense_weight: float = 1.0
    sparse_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search by vectors. ``dense`` has shape [dimension]; the mode says which of the two are used."""

    mode: Mode
    limit: int
    dense: Vector | None = None
    sparse: Sparse | None = None
    conditions: tuple[Condition, ...] = ()
    score_threshold: float | None = None
    #: best hits that are left out, for the next page of an answer
    offset: int = 0
    fusion: Fusion = Fusion()
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A found chunk point with its payload. ``dense`` is None if vectors were not asked for."""

    score: float
    payload: Mapping[str, Any]
    dense: Vector | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A stored point. ``dense`` is None for a document's record, or if vectors were not asked for."""

    id: str
    payload: Mapping[str, Any]
    dense: Vector | None = None
    sparse: Sparse | None = None


@dataclass(frozen=True, slots=True)
class SeenPoint:
    """A point as it was seen. ``seq`` is None if its payload holds no number there."""

    id: str
    seq: int | float | None


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """How many document records and chunk points the index holds."""

    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index was made with. ``index_id`` is new whenever an index is made."""

    index_id: str
    model: str
    dimension: int
    schema: int = SCHEMA_VERSION
    #: how large segments keep a small copy of their vectors to search in; the vectors themselves stay as they are
    quantization: Quantization = "none"

    @classmethod
    def new(cls, model: str, dimension: int) -> Manifest:
        return cls(uuid.uuid4().hex, model, dimension)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        return cls(**json.loads(text))

    def check(self, model: str, dimension: int, where: str) -> None:
        """Raises IndexMismatch if the index cannot hold this model's vectors."""
        if (self.model, self.dimension, self.schema) == (model, dimension, SCHEMA_VERSION):
            return
        raise IndexMismatch(
            f"the index {where} was made with the model {self.model} ({self.dimension} dimensions, schema "
            f"{self.schema}), not {model} ({dimension}, schema {SCHEMA_VERSION}): go back to that model, or run "
            "'headwater reindex' to make the index anew beside this one"
        )


class VectorIndex(Protocol):
    """One collection of chunk points. Safe to call from several threads.

    Every method may block on the engine and raises IndexUnavailable when it does not answer.
    """

    def ensure_schema(self, model: str, dimension: int) -> Manifest:
        """Make the collection and its payload indexes, or check those that are there. Idempotent.
        Raises IndexMismatch if it was made with another model or schema."""
        ...

    def open_existing(self) -> Manifest:
        """Open a collection that must be there, to read it. Raises IndexUnavailable if it is not."""
        ...

    def document_state(self, document_id: str) -> DocumentState | None:
        """What is held of a document; None if nothing is."""
        ...

    def document_states(self, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        """``document_state`` of many in one question; those of which nothing is held are left out."""
        ...

    def record(self, document_id: str) -> Mapping[str, Any] | None:
        """The payload of a document's record; None if there is none."""
        ...

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """Dense vectors of those texts that any document in the index has; missing and damaged ones are left out."""
        ...

    def stage(self, document: DocumentWrite) -> None:
        """Fenced: write some chunks of a version ahead of its last ones, which ``apply`` brings. A crash between
        leaves them in place of older ones, and their vectors to be found. Raises ValueError as ``apply`` does."""
        ...

    def apply(self, document: DocumentWrite) -> None:
        """Fenced: write all (or the last) chunks of a version and its record, then delete the document's points of
        lower seq. Points with a higher seq stay as they are. Not durable until ``flush``. Raises ValueError before
        any write if a vector is not finite, not of unit length or of wrong dimension, and IndexUnavailable if the
        engine took the write and does not have it."""
        ...

    def apply_all(self, documents: Sequence[DocumentWrite]) -> None:
        """``apply`` to each of some documents, all different, in as few writes as the engine takes. Raises as it does;
        IndexUnavailable may leave some applied."""
        ...

    def delete(self, document_id: str, seq: int) -> None:
        """Fenced: delete the document's points whose seq is lower. Nothing there is no error."""
        ...

    def remove(self, document_id: str, seq: int) -> DocumentState | None:
        """As ``delete``; what is left of the document, which is newer. Raises IndexUnavailable if it is not."""
        ...

    def census(self, source: str | None = None) -> dict[int, int]:
        """How many points carry each seq; with ``source`` only those of the folder of this name. A seq belongs to one
        version of one document of a folder, so this tells in one cheap question which versions are whole: chunks and
        one record."""
        ...

    def sweep(self, seqs: Sequence[int], source: str | None = None) -> None:
        """Delete all points (with ``source`` only those of the folder of this name) that carry one of these seqs
        exactly. Idempotent."""
        ...

    def sweep_unversioned(self) -> None:
        """Delete all points that carry no seq. Every write has one, so these are a damaged shard's; and no fenced write
        would ever go over them. Idempotent."""
        ...

    def search(self, query: SearchQuery) -> list[ScoredChunk]:
        """The best chunks, best first. Never returns a document's record."""
        ...

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        """The values that an indexed field of texts has in the index, sorted: the paths of all documents, say. Not
        ``exact``, which is faster, it may name some that no point has any more."""
        ...

    def document_vectors(self, document_id: str) -> Vector:
        """Dense vectors of a document's chunks, shape [chunks, dimension]; no rows if there are none."""
        ...

    def path_vectors(self, path: str) -> Vector:
        """As ``document_vectors``, of what has this path: a file within a document too."""
        ...

    def document_chunks(self, document_id: str, first: int, last: int) -> list[Mapping[str, Any]]:
        """Payloads of a document's chunks from number ``first`` to ``last``, in order; those that are not there are
        left out."""
        ...

    def newest_seq(self) -> int | None:
        """The highest seq of any point; None if there are none."""
        ...

    def scan(self, *, with_vectors: bool = False) -> Iterator[Point]:
        """Every point, in no promised order."""
        ...

    def page(
        self, offset: str | None = None, document_id: str | None = None, source: str | None = None
    ) -> tuple[list[Point], str | None]:
        """Some points with their vectors (at most ``BATCH_POINTS``, in the order of their ids), and the offset of the
        next ones; None after the last. With ``document_id`` only that document's, with ``source`` only the folder's."""
        ...

    def discard(self, points: Sequence[SeenPoint]) -> None:
        """Fenced: delete each of these points whose seq is still the one that was seen. Missing ones are no error."""
        ...

    def flush(self) -> None:
        """Returns when everything written before the call is durable."""
        ...

    def checkpoint(self) -> None:
        """Flush, and bring all files up to date: nothing is left that only a log has, or that is done later."""
        ...

    def count(self) -> IndexCounts:
        """Exact counts."""
        ...

    def for_questions(self) -> Self:
        """The same index, opened, for somebody who waits: a server that gives no answer is given up sooner. It is
        closed with this one."""
        ...

    def close(self) -> None:
        """Flush and let go. Idempotent."""
        ...


def open_index(
    settings: Settings, layout: Layout | None = None, *, on_damage: Callable[[str], object] | None = None
) -> VectorIndex:
    """The index that the settings name: a Qdrant server if ``QDRANT_URL`` is set, else the embedded engine. With
    ``on_damage``, which is told when its files turn out to be damaged, it is for a service that writes: the engine is
    in a process of its own and is compacted.

    Raises IndexUnavailable if it does not answer or if another process holds the embedded shard.
    """
    if settings.qdrant_url:
        from headwater.index_server import ServerIndex, ServerOptions

        return ServerIndex.connect(
            settings.qdrant_url,
            ServerOptions.of(settings),
            settings.collection,
            settings.quantization,
            settings.generation,
        )
    if layout is None:
        raise IndexUnavailable("the embedded index needs a state directory, or set QDRANT_URL")
    try:
        from headwater.index_edge import EdgeIndex
    except ImportError:
        raise IndexUnavailable(
            "the embedded index is not installed: pip install 'headwater[query]', or set QDRANT_URL"
        ) from None
    if on_damage is None:
        return EdgeIndex(layout.index, layout.manifest, quantization=settings.quantization)
    from headwater.index_process import ProcessIndex

    return ProcessIndex(
        layout.index,
        layout.manifest,
        on_damage=on_damage,
        min_free_bytes=settings.min_free_bytes,
        least_dead=settings.compaction_points,
        quantization=settings.quantization,
    )
