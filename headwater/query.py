"""Ask the index: the public query module.

    from headwater import Index

    with Index.open() as index:
        for hit in index.search("how do I rotate the keys", limit=5):
            print(hit.score, hit.path, hit.start_line)

While ``headwater up`` runs, the questions go to the running service; when nothing runs, the index is opened here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from math import isfinite
from types import TracebackType
from typing import Any, Protocol, Self, get_args
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from headwater.document import document_id
from headwater.errors import QueryError, ServiceUnavailable
from headwater.index import (
    INDEXED_FIELDS,
    Condition,
    Mode,
    ScoredChunk,
    SearchQuery,
    Sparse,
    VectorIndex,
    glob_conditions,
    open_index,
)
from headwater.settings import Settings
from headwater.state import Layout, Lock, Service, find_layout

__all__ = ["Engine", "Hit", "Index", "LocalEngine", "running_service"]

Vector = NDArray[np.float32]
FilterValue = str | int | Sequence[str] | Sequence[int] | Mapping[str, float | str]

MOST_HITS = 1000
MOST_CHARACTERS = 20_000
#: how long a question waits for a service that is starting
_START_WAIT_S = 30.0
_BOUNDS = ("gte", "gt", "lte", "lt")


@dataclass(frozen=True, slots=True)
class Hit:
    """A found piece of a document.

    ``path`` is relative to the folder, with ``/``. ``start`` and ``end`` are characters of the document's text (of
    the file itself for text formats); lines and pages count from 1 and are None where the format has none. A higher
    ``score`` is better; scores of different modes do not compare.
    """

    score: float
    text: str
    path: str
    start: int
    end: int
    start_line: int | None
    end_line: int | None
    page: int | None
    headings: tuple[str, ...]
    seq: int
    chunk: int
    title: str | None
    kind: str
    modified_at: str

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Hit:
        values = {name: raw.get(name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "headings": tuple(raw.get("headings") or ())})  # type: ignore[arg-type]  # JSON

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "headings": list(self.headings)}


class Engine(Protocol):
    """Answers questions: here (LocalEngine) or in the running service (RemoteEngine)."""

    def search(
        self,
        text: str,
        limit: int,
        mode: Mode,
        path_glob: str | None,
        filters: Mapping[str, FilterValue] | None,
        score_threshold: float | None,
    ) -> list[Hit]: ...

    def similar(self, path: str, limit: int) -> list[Hit]: ...

    def similarity(self, a: str, b: str) -> float: ...

    def close(self) -> None: ...


class Index:
    """The live index of one folder. Safe to use from several threads; close it, or use it in a ``with``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, settings: Settings | None = None, **flags: Any) -> Index:
        """Open the index that the settings name (``folder=``, ``state_dir=``, ``model=`` ... go before all others).

        Raises SettingsError if none is named or known, IndexUnavailable if there is none yet or it is held by
        another process, IndexMismatch if it was made with another model.
        """
        return cls(_open_engine(settings or Settings.load(**flags)))

    def search(
        self,
        text: str,
        limit: int = 10,
        mode: Mode = "hybrid",
        path_glob: str | None = None,
        filters: Mapping[str, FilterValue] | None = None,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        """The chunks that answer ``text`` best, best first; at most ``limit`` (1 to 1000) of them.

        ``mode``: "dense" compares meanings (cosine similarity, -1 to 1), "sparse" compares words (BM25), "hybrid"
        fuses both by reciprocal rank (Cormack, Clarke, Buettcher 2009). ``path_glob`` is in gitignore syntax
        (``*.md``, ``guide/``). ``filters`` maps a field (kind, title, headings, page, path, modified_at ...) to a
        value, a list of values, or bounds such as ``{"gte": "2026-01-01T00:00:00Z"}``.

        Raises QueryError if anything asked for does not exist.
        """
        return self._engine.search(text, limit, mode, path_glob, filters, score_threshold)

    def similar(self, path: str, limit: int = 10) -> list[Hit]:
        """Chunks of other documents nearest to the mean vector of the document at ``path`` (cosine similarity).

        Raises QueryError if no such document is in the index.
        """
        return self._engine.similar(path, limit)

    def similarity(self, a: str, b: str) -> float:
        """Cosine similarity of two texts, -1 to 1, by the model of the index."""
        return self._engine.similarity(a, b)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_engine(settings: Settings) -> Engine:
    layout = None if settings.qdrant_url and not (settings.state_dir or settings.folder) else find_layout(settings)
    service = None if layout is None else running_service(layout)
    if service is not None:
        from headwater.client import RemoteEngine

        return RemoteEngine(service.url)
    return LocalEngine.open(open_index(settings, layout), settings)


def running_service(layout: Layout) -> Service | None:
    """The service to ask; waits for one that is just starting. None if none runs."""
    deadline = time.monotonic() + _START_WAIT_S
    while (service := Service.read(layout)) is None and Lock.is_held(layout, "up"):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"the service on {layout.root} does not answer yet: see 'headwater status'")
        time.sleep(0.1)
    return service


class LocalEngine:
    """Answers from an index that this process holds. ``embed`` gives the vector of one query, shape [dimension]."""

    def __init__(
        self, index: VectorIndex, embed: Callable[[str], Vector], encode_sparse: Callable[[str], Sparse]
    ) -> None:
        self._index = index
        self._embed = embed
        self._encode_sparse = encode_sparse

    @classmethod
    def open(cls, index: VectorIndex, settings: Settings) -> LocalEngine:
        """With a model of its own. Raises IndexUnavailable, IndexMismatch or ModelError."""
        from headwater.embedder import load_embedder
        from headwater.lexical import Bm25Encoder

        manifest = index.open_existing()
        embedder = load_embedder(settings)
        manifest.check(embedder.name, embedder.dimension, "here")
        return cls(index, query_embedding(embedder), Bm25Encoder().query)

    def search(
        self,
        text: str,
        limit: int = 10,
        mode: Mode = "hybrid",
        path_glob: str | None = None,
        filters: Mapping[str, FilterValue] | None = None,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        _check(text, limit, mode)
        _check_options(path_glob, filters, score_threshold)
        conditions = [*_conditions(filters or {})]
        if path_glob is not None:
            conditions.append(glob_conditions(self._index, path_glob))
        query = SearchQuery(
            mode=mode,
            limit=limit,
            dense=self._embed(text) if mode != "sparse" else None,
            sparse=self._encode_sparse(text) if mode != "dense" else None,
            conditions=tuple(conditions),
            score_threshold=score_threshold,
        )
        return [_hit(found) for found in self._index.search(query)]

    def similar(self, path: str, limit: int = 10) -> list[Hit]:
        _check(path, limit, "dense")
        document, vectors = self._vectors_of(path)
        if not len(vectors):
            raise QueryError(f"no document {path!r} is in the index: give its path relative to the folder")
        mean = vectors.mean(axis=0)
        others = Condition("document_id", any_of=(document,), negate=True)
        dense = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
        return [_hit(found) for found in self._index.search(SearchQuery("dense", limit, dense, conditions=(others,)))]

    def _vectors_of(self, path: str) -> tuple[str, Vector]:
        """By the path itself, or by the form in which a name that is not UTF-8 is shown."""
        for name in (path.encode("utf-8", "surrogateescape"), unquote_to_bytes(path)):
            document = document_id(name)
            if len(vectors := self._index.document_vectors(document)):
                break
        return document, vectors

    def similarity(self, a: str, b: str) -> float:
        for text in (a, b):
            _check(text, 1, "dense")
        return float(np.clip(np.dot(self._embed(a), self._embed(b)), -1.0, 1.0))

    def record(self, document_id: str) -> dict[str, Any] | None:
        """What the index says of a document, with the name of its model; None if it has no such document."""
        found = self._index.record(document_id)
        return None if found is None else {**found, "model": self._index.open_existing().model}

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Those of the texts whose vectors the index has."""
        return set(self._index.vectors(text_hashes))

    def close(self) -> None:
        self._index.close()


def query_embedding(embedder: Any, encode: Callable[[str], Vector] | None = None) -> Callable[[str], Vector]:
    """A function from one query to its vector that refuses what the model would cut off silently."""

    def embed(text: str) -> Vector:
        tokens = embedder.count_tokens(text)
        if tokens > embedder.window:
            raise QueryError(f"the text has {tokens} tokens and the model reads {embedder.window}: shorten it")
        vector: Vector = encode(text) if encode is not None else embedder.encode([text], "query")[0]
        return vector

    return embed


def _check(text: str, limit: int, mode: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise QueryError("the text to search for is empty: give some words")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("the text holds half of a character (a lone surrogate): give whole ones")
    if len(text) > MOST_CHARACTERS:
        raise QueryError(f"the text has {len(text)} characters, more than {MOST_CHARACTERS}: shorten it")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_HITS:
        raise QueryError(f"the limit is {limit!r}: give a whole number from 1 to {MOST_HITS}")
    if mode not in get_args(Mode):
        raise QueryError(f"the mode is {mode!r}: give one of {', '.join(get_args(Mode))}")


def _conditions(filters: Mapping[str, FilterValue]) -> list[Condition]:
    return [_condition(name, value) for name, value in filters.items()]


def _condition(name: str, value: FilterValue) -> Condition:
    if name not in INDEXED_FIELDS:
        raise QueryError(f"there is no filter {name!r}: filters are {', '.join(sorted(INDEXED_FIELDS))}")
    if isinstance(value, Mapping):
        if not value or set(value) - set(_BOUNDS):
            raise QueryError(f"the filter {name!r} has the bounds {list(value)}: give some of {', '.join(_BOUNDS)}")
        if not all(_is_bound(name, bound) for bound in value.values()):
            wanted = "RFC 3339 times" if INDEXED_FIELDS[name] == "datetime" else "numbers"
            raise QueryError(f"the filter {name!r} has the bounds {dict(value)!r}: give {wanted}")
        bounds: dict[str, Any] = dict(value)
        return Condition(name, **bounds)
    values: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    plain = all(isinstance(one, str | int) and not isinstance(one, bool) for one in values)
    if not plain or len({type(one) for one in values}) > 1:
        raise QueryError(f"the filter {name!r} has the value {value!r}: give texts, whole numbers, or bounds")
    return Condition(name, any_of=values)


def _check_options(path_glob: object, filters: object, score_threshold: object) -> None:
    if path_glob is not None and not isinstance(path_glob, str):
        raise QueryError(f"the path glob is {path_glob!r}: give a text such as '*.md'")
    if filters is not None and not isinstance(filters, Mapping):
        raise QueryError(f"the filters are {filters!r}: give fields with their values")
    if score_threshold is not None and not _is_number(score_threshold):
        raise QueryError(f"the score threshold is {score_threshold!r}: give a number")


def _is_bound(name: str, value: object) -> bool:
    """A number, or for times a text that the engine will read as one."""
    if INDEXED_FIELDS[name] != "datetime":
        return _is_number(value)
    try:
        return isinstance(value, str) and isinstance(datetime.fromisoformat(value), datetime)
    except ValueError:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _hit(found: ScoredChunk) -> Hit:
    return Hit.from_mapping({**found.payload, "score": found.score})
