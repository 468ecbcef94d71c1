"""Answers questions from an index that this process holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from headwater.context import Context, assemble
from headwater.diversity import diverse
from headwater.document import document_id
from headwater.duplicates import near_duplicates
from headwater.errors import QueryError, ServiceUnavailable
from headwater.filters import from_mapping, from_text, glob_condition
from headwater.hit import DuplicatePair, Freshness, Hit, Hits
from headwater.index import Condition, Fusion, Manifest, ScoredChunk, SearchQuery, Sparse, VectorIndex
from headwater.metrics import answered
from headwater.question import IN_STEP, Question, check_limit, check_text
from headwater.rerank import Reranker
from headwater.settings import Settings
from headwater.sources import Sources
from headwater.tokens import counter

if TYPE_CHECKING:
    from headwater.embedder import Embedder

__all__ = ["LocalEngine", "Surroundings", "query_embedding"]

Vector = NDArray[np.float32]
#: query text and languages -> its lexical terms
EncodeSparse = Callable[[str, Iterable[str]], Sparse]

_EVEN = Fusion()
#: candidates of a search whose best are chosen by another measure
_CANDIDATES = 50
#: chunks of a document, on average, that a search by documents begins with, and how many chunks it looks at, at most
_CHUNKS_A_DOCUMENT = 4
_MOST_CHUNKS = 16_384
#: most tokens that a context may have
_MOST_TOKENS = 1_000_000
#: pause between two looks whether a change is in
_LOOK_S = 0.02


class Progress(Protocol):
    """How far the service is: paths noticed and not searchable yet, and whether there are none."""

    def __call__(self) -> tuple[int, bool]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a LocalEngine can know beside its index: the folders by name, the service's progress, and a model
    that ranks."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    reranker: Reranker | None = None
    fusion: Fusion = _EVEN
    #: gives that of the embedding model, in the JSON of the tokenizers library
    tokenizer: Callable[[], str] | None = None
    #: larger files are no documents
    max_file_bytes: int = 64 * 1024 * 1024
    #: which index of the folder it is
    generation: int = 1

    @classmethod
    def of(cls, settings: Settings, progress: Progress | None, tokenizer: Callable[[], str]) -> Self:
        return cls(
            settings.folders(),
            progress,
            Reranker.of(settings),
            Fusion(settings.fusion, settings.rank_constant, settings.dense_weight, settings.sparse_weight),
            tokenizer,
            settings.max_file_bytes,
            settings.generation or 1,
        )


class LocalEngine:
    """Answers from an index that this process holds. ``embed`` gives the vector of one query, shape [dimension]."""

    def __init__(
        self,
        index: VectorIndex,
        embed: Callable[[str], Vector],
        encode_sparse: EncodeSparse,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._whole, self._index = index, index.for_questions()
        self._embed = embed
        self._encode_sparse = encode_sparse
        self._around = surroundings or Surroundings()
        folders = self._around.folders
        self._sources = Sources(folders, most_bytes=self._around.max_file_bytes) if folders else None

    @classmethod
    def open(
        cls, index: VectorIndex, settings: Settings, progress: Progress | None = None, *, at_once: bool = False
    ) -> Self:
        """With a model of its own, loaded ``at_once`` or with the first question that needs it: one that only looks for
        words does not. Raises IndexUnavailable; and, when the model is loaded, IndexMismatch or ModelError."""
        from headwater.lexical import Bm25Encoder

        model = _OwnModel(settings, index.open_existing())
        if at_once:
            model.embedder()
        around = Surroundings.of(settings, progress, lambda: model.embedder().tokenizer_json)
        return cls(index, lambda text: query_embedding(model.embedder())(text), Bm25Encoder().query, around)

    # -- search ----------------------------------------------------------------------------------------------

    def search(self, question: Question) -> Hits:
        with answered(question.mode):
            return self._search(question)

    def _search(self, question: Question) -> Hits:
        if question.wait_for is not None:
            self._wait(question.wait_for, question.timeout)
        freshness = self.freshness()
        found = self._found(question)
        return Hits(map(self._hit, found), freshness)

    def _found(self, question: Question) -> list[ScoredChunk]:
        """Chunks in the order of the answer, its page only."""
        wanted = question.limit + question.offset
        reranker = self._around.reranker if question.rerank is not False else None
        if question.rerank and reranker is None:
            raise QueryError(
                "no model is configured that ranks: set HEADWATER_RERANKER to a cross-encoder's name or path"
            )
        chosen = reranker is not None or question.diversity is not None
        query = self._query(question, max(wanted, _CANDIDATES) if chosen else wanted)
        if not (chosen or question.group_by):
            return self._index.search(replace(query, limit=question.limit, offset=question.offset))
        found = self._documents(query) if question.group_by else self._index.search(query)
        if reranker is not None:
            found = reranker.rank(question.text, found)
        if question.diversity is not None and query.dense is not None:
            found = diverse(query.dense, found, wanted, question.diversity)
        return found[question.offset : wanted]

    def _query(self, question: Question, limit: int) -> SearchQuery:
        dense = self._embed(question.text) if question.mode != "sparse" or question.diversity is not None else None
        return SearchQuery(
            mode=question.mode,
            limit=limit,
            dense=dense,
            sparse=self._terms(question.text) if question.mode != "dense" else None,
            conditions=tuple(self._conditions(question)),
            score_threshold=question.score_threshold,
            fusion=self._around.fusion,
            with_vectors=question.diversity is not None,
        )

    def _terms(self, text: str) -> Sparse:
        return self._encode_sparse(text, self._index.values("language", exact=False))

    def _conditions(self, question: Question) -> list[Condition]:
        conditions = from_mapping(question.filters or {})
        if question.path_glob is not None:
            conditions.append(glob_condition(self._index, question.path_glob))
        if question.where is not None:
            conditions += from_text(question.where, self._index, now=datetime.now(UTC))
        return conditions

    def _documents(self, query: SearchQuery) -> list[ScoredChunk]:
        """The best chunk of each document: more chunks are looked at until there are documents enough."""
        limit = min(_CHUNKS_A_DOCUMENT * query.limit, _MOST_CHUNKS)
        while True:
            found = self._index.search(replace(query, limit=limit))
            best: dict[str, ScoredChunk] = {}
            for chunk in found:
                best.setdefault(chunk.payload["path"], chunk)
            if len(best) >= query.limit or len(found) < limit or limit == _MOST_CHUNKS:
                return list(best.values())[: query.limit]
            limit = min(4 * limit, _MOST_CHUNKS)

    # -- freshness -------------------------------------------------------------------------------------------

    def freshness(self) -> Freshness:
        """How new an answer is that is given now."""
        seq = self._index.newest_seq()
        if self._around.progress is None:
            return Freshness(seq, generation=self._around.generation)
        pending, in_step = self._around.progress()
        return Freshness(seq, pending, in_step, self._around.generation)

    def _hit(self, found: ScoredChunk) -> Hit:
        hit = Hit.from_mapping({**found.payload, "score": found.score})
        if self._sources is None or not self._sources.sees(hit.path):
            return hit
        return replace(hit, stale=self._sources.modified(hit.document) != hit.modified_at)

    def _wait(self, what: str, timeout_s: float) -> None:
        """Until a path is searchable as it is now, or everything that was noticed is. Raises ServiceUnavailable."""
        reached = self._in_step if what == IN_STEP else lambda: self._is_in(what)
        deadline = time.monotonic() + timeout_s
        while not reached():
            if time.monotonic() >= deadline:
                how = "headwater status" if what == IN_STEP else f"headwater why {what}"
                subject = "not in step" if what == IN_STEP else f"without {what} as it is now"
                raise ServiceUnavailable(f"after {timeout_s:g} s the index is {subject}: see '{how}', or wait longer")
            time.sleep(_LOOK_S)

    def _in_step(self) -> bool:
        if self._around.progress is None:
            raise QueryError("nobody here knows whether the index is in step: ask a running service ('headwater up')")
        return self._around.progress()[1]

    def _is_in(self, path: str) -> bool:
        if self._sources is None or not self._sources.sees(path):
            raise QueryError("the folder is not known here, so there is no waiting for a file: give --folder")
        names = dict.fromkeys((path.encode("utf-8", "surrogateescape"), unquote_to_bytes(path)))
        records = (self._index.record(document_id(name)) for name in names)
        record = next((found for found in records if found is not None), None)
        modified = self._sources.modified(path)
        return record is None if modified is None else record is not None and record["modified_at"] == modified

    # -- context ---------------------------------------------------------------------------------------------

    def context(self, question: Question, max_tokens: int, tokenizer: str | None) -> Context:
        if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or not 1 <= max_tokens <= _MOST_TOKENS:
            raise QueryError(f"max_tokens is {max_tokens!r}: give a whole number from 1 to {_MOST_TOKENS}")
        if tokenizer is not None and not (isinstance(tokenizer, str) and tokenizer):
            raise QueryError(f"the tokenizer is {tokenizer!r}: give the path or name of one")
        count = counter(tokenizer, self._own_tokenizer)
        return assemble(
            question.text,
            self.search(question),
            max_tokens,
            count,
            texts=self._sources,
            neighbours=self._chunks,
        )

    def _own_tokenizer(self) -> str:
        if self._around.tokenizer is None:
            raise QueryError("the tokens cannot be counted here: name a tokenizer")
        return self._around.tokenizer()

    def _chunks(self, path: str, first: int, last: int) -> list[Hit]:
        for name in (path.encode("utf-8", "surrogateescape"), unquote_to_bytes(path)):
            if found := self._index.document_chunks(document_id(name), first, last):
                return [self._hit(ScoredChunk(0.0, payload)) for payload in found]
        return []

    # -- similarity ------------------------------------------------------------------------------------------

    def similar(self, path: str | None, text: str | None, limit: int) -> Hits:
        with answered("similar"):
            return self._similar(path, text, limit)

    def _similar(self, path: str | None, text: str | None, limit: int) -> Hits:
        check_limit(limit)
        if (path is None) == (text is None):
            raise QueryError("give either a path or a text to find what is similar to it")
        if path is None:
            check_text(text)
            assert text is not None
            query = SearchQuery("dense", limit, self._embed(text))
        else:
            check_text(path)
            own, vectors = self._vectors_of(path)
            if not len(vectors):
                raise QueryError(f"no document {path!r} is in the index: give its path relative to the folder")
            mean = vectors.mean(axis=0)
            dense = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
            query = SearchQuery("dense", limit, dense, conditions=(replace(own, negate=True),))
        return Hits(map(self._hit, self._index.search(query)), self.freshness())

    def _vectors_of(self, path: str) -> tuple[Condition, Vector]:
        """What is asked for, and its vectors: by the path itself, by the form in which a name that is not UTF-8 is
        shown, or by the path of a file within a document."""
        for name in (path.encode("utf-8", "surrogateescape"), unquote_to_bytes(path)):
            document = document_id(name)
            if len(vectors := self._index.document_vectors(document)):
                return Condition("document_id", any_of=(document,)), vectors
        return Condition("path", any_of=(path,)), self._index.path_vectors(path)

    def similarity(self, a: str, b: str) -> float:
        for text in (a, b):
            check_text(text)
        return float(np.clip(np.dot(self._embed(a), self._embed(b)), -1.0, 1.0))

    def near_duplicates(self, threshold: float, limit: int) -> list[DuplicatePair]:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise QueryError(f"the threshold is {threshold!r}: give a cosine similarity above 0 and up to 1")
        check_limit(limit)
        return near_duplicates(self._index, float(threshold), limit)

    # -- what the index says ---------------------------------------------------------------------------------

    def record(self, document_id: str) -> dict[str, Any] | None:
        """What the index says of a document, with the name of its model; None if it has no such document."""
        found = self._index.record(document_id)
        return None if found is None else {**found, "model": self._index.open_existing().model}

    def model(self) -> dict[str, Any]:
        """For who embeds by ``embed`` elsewhere: name and dimension as the index has them, and the tokenizer."""
        manifest = self._index.open_existing()
        return {"name": manifest.model, "dimension": manifest.dimension, "tokenizer": self._own_tokenizer()}

    def embed(self, text: str) -> list[float]:
        """The vector of a question. Raises QueryError if the model would cut it off."""
        check_text(text)
        vector: list[float] = self._embed(text).tolist()
        return vector

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Those of the texts whose vectors the index has."""
        return set(self._index.vectors(text_hashes))

    def close(self) -> None:
        self._whole.close()


class _OwnModel:
    """The model that the settings name, loaded once, when it is first needed."""

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        self._settings = settings
        self._manifest = manifest
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    def embedder(self) -> Embedder:
        """Raises ModelError, and IndexMismatch if the index holds another model's vectors."""
        from headwater.embedder import load_embedder

        with self._lock:
            if self._embedder is None:
                embedder = load_embedder(self._settings)
                self._manifest.check(embedder.name, embedder.dimension, "here")
                self._embedder = embedder
            return self._embedder


def query_embedding(embedder: Any, encode: Callable[[str], Vector] | None = None) -> Callable[[str], Vector]:
    """A function from one query to its vector that refuses what the model would cut off silently."""

    def embed(text: str) -> Vector:
        tokens = embedder.count_tokens(text)
        if tokens > embedder.window:
            raise QueryError(f"the text has {tokens} tokens and the model reads {embedder.window}: shorten it")
        vector: Vector = encode(text) if encode is not None else embedder.encode([text], "query")[0]
        return vector

    return embed
