"""Ask the index: the public query module.

    from headwater import Index

    with Index.open() as index:
        for hit in index.search("how do I rotate the keys", limit=5):
            print(hit.score, hit.path, hit.start_line)

While ``headwater up`` runs, the questions go to the running service; when nothing runs, the index is opened here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from headwater.context import Context
from headwater.errors import ServiceUnavailable
from headwater.filters import FilterValue
from headwater.hit import DuplicatePair, Hit, Hits
from headwater.index import Mode, open_index
from headwater.question import Question
from headwater.settings import Settings
from headwater.state import Layout, Lock, Service, find_layout, noted_folder
from headwater.tokens import absolute

if TYPE_CHECKING:
    from headwater.ask import Cited

__all__ = ["Engine", "Hit", "Hits", "Index", "running_service"]

#: how long a question waits for a service that is starting
_START_WAIT_S = 30.0


class Engine(Protocol):
    """Answers questions: here (LocalEngine) or in the running service (RemoteEngine)."""

    def search(self, question: Question) -> Hits: ...

    def context(self, question: Question, max_tokens: int, tokenizer: str | None) -> Context: ...

    def similar(self, path: str | None, text: str | None, limit: int) -> Hits: ...

    def similarity(self, a: str, b: str) -> float: ...

    def near_duplicates(self, threshold: float, limit: int) -> list[DuplicatePair]: ...

    def close(self) -> None: ...


class Index:
    """The live index of one folder. Safe to use from several threads; close it, or use it in a ``with``."""

    def __init__(self, engine: Engine, settings: Settings | None = None) -> None:
        """``settings`` name the language model for ``ask``; None: those of the environment."""
        self._engine = engine
        self._settings = settings

    @classmethod
    def open(cls, settings: Settings | None = None, **flags: Any) -> Self:
        """Open the index that the settings name (``folder=``, ``state_dir=``, ``model=`` ... go before all others).

        Raises SettingsError if none is named or known, IndexUnavailable if there is none yet or it is held by
        another process. The model is loaded with the first question that needs it, which raises ModelError, or
        IndexMismatch if the index was made with another one.
        """
        settings = settings or Settings.load(**flags)
        return cls(_open_engine(settings), settings)

    def search(
        self,
        text: str,
        limit: int = 10,
        mode: Mode = "hybrid",
        path_glob: str | None = None,
        filters: Mapping[str, FilterValue] | None = None,
        score_threshold: float | None = None,
        *,
        where: str | None = None,
        offset: int = 0,
        group_by: Literal["document"] | None = None,
        diversity: float | None = None,
        rerank: bool | None = None,
        wait_for: str | None = None,
        timeout: float = 10.0,
    ) -> Hits:
        """The chunks that answer ``text`` best, best first; at most ``limit`` (1 to 1000) of them.

        ``mode``: "dense" compares meanings (cosine similarity, -1 to 1), "sparse" compares words (BM25), "hybrid"
        fuses both by weighted reciprocal rank (Cormack, Clarke, Buettcher 2009). ``path_glob`` is in gitignore syntax
        (``*.md``, ``guide/``). ``filters`` maps a field (kind, extension, language, title, headings, page, path,
        modified_at, ``meta.NAME`` of the front matter ...) to a value, a list of values, or bounds such as
        ``{"gte": "2026-01-01T00:00:00Z"}``; ``where`` says the same as text: ``ext:md -lang:de after:30d``
        (``headwater.filters``).

        ``offset`` leaves out the best ones, for the next page. ``group_by="document"`` gives the best chunk of each
        document. ``diversity`` from 0 to 1 prefers hits that do not repeat each other (maximal marginal relevance,
        Carbonell, Goldstein 1998). ``rerank``: whether a configured cross-encoder ranks the candidates; None: if there
        is one. ``wait_for`` a path, relative to the folder, waits until the file as it is now is searchable (or is gone
        from the index, if it is gone); "in-step" until all changes that were noticed are; ``timeout`` in seconds.

        Raises QueryError if anything asked for does not exist, ServiceUnavailable if the wait was too short.
        """
        question = Question(
            text=text,
            limit=limit,
            mode=mode,
            path_glob=path_glob,
            filters=filters,
            where=where,
            score_threshold=score_threshold,
            offset=offset,
            group_by=group_by,
            diversity=diversity,
            rerank=rerank,
            wait_for=wait_for,
            timeout=timeout,
        )
        return self._engine.search(question)

    def context(
        self,
        question: str,
        max_tokens: int = 2000,
        *,
        tokenizer: str | None = None,
        limit: int = 30,
        mode: Mode = "hybrid",
        where: str | None = None,
        rerank: bool | None = None,
    ) -> Context:
        """The passages that answer a question, for a prompt: of the best ``limit`` chunks as many as ``max_tokens``
        tokens hold (1 to 1,000,000), neighbours merged, no text twice, each with a citation that is checked against the
        file.

        ``tokenizer`` counts: a tokenizer.json, its directory, or the name of a model in the Hugging Face cache; None:
        the embedding model's. ``Context.prompt`` is the whole prompt. Raises QueryError if anything asked for does not
        exist.
        """
        asked = Question(text=question, limit=limit, mode=mode, where=where, rerank=rerank)
        named = absolute(tokenizer) if isinstance(tokenizer, str) else tokenizer
        return self._engine.context(asked, max_tokens, named)

    def prompt(self, question: str, max_tokens: int = 2000, **options: Any) -> str:
        """Instructions, passages and question, for any language model. ``options`` as for ``context``."""
        return self.context(question, max_tokens, **options).prompt

    def ask(self, question: str, max_tokens: int = 2000, **options: Any) -> Iterator[str | Cited]:
        """What the language model of the settings (``llm_url``, ``llm_model``) answers to ``prompt``: pieces of text as
        they come, then the passages that the answer cites. ``options`` as for ``context``.

        Raises SettingsError at once if no model is configured, and ModelEndpointError, also between two pieces, if it
        does not answer as it should.
        """
        from headwater.ask import ChatEndpoint, answer

        endpoint = ChatEndpoint.of(self._settings or Settings.load())
        return answer(self.context(question, max_tokens, **options), endpoint)

    def similar(self, path: str | None = None, limit: int = 10, *, text: str | None = None) -> Hits:
        """Chunks of other documents nearest to the mean vector of the document at ``path``, or nearest to ``text``
        (cosine similarity).

        Raises QueryError if no such document is in the index.
        """
        return self._engine.similar(path, text, limit)

    def similarity(self, a: str, b: str) -> float:
        """Cosine similarity of two texts, -1 to 1, by the model of the index."""
        return self._engine.similarity(a, b)

    def near_duplicates(self, threshold: float = 0.95, limit: int = 100) -> list[DuplicatePair]:
        """Pairs of documents that say nearly the same: the cosine similarity of their mean vectors is at least
        ``threshold`` (above 0, up to 1). At most ``limit`` pairs, nearest first."""
        return self._engine.near_duplicates(threshold, limit)

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
    from headwater.following import at_server
    from headwater.local import LocalEngine

    settings = at_server(settings)
    if settings.folder is None and layout is not None:
        settings = settings.model_copy(update={"folder": noted_folder(layout)})
    return LocalEngine.open(open_index(settings, layout), settings)


def running_service(layout: Layout) -> Service | None:
    """The service to ask; waits for one that is just starting. None if none runs."""
    deadline = time.monotonic() + _START_WAIT_S
    while (service := Service.read(layout)) is None and Lock.is_held(layout, "up"):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"the service on {layout.root} does not answer yet: see 'headwater status'")
        time.sleep(0.1)
    return service
