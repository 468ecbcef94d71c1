"""The shadow check of ``headwater reindex``: what both indexes hold, and what both answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from headwater.errors import FileUnreadable, HeadwaterError, QueryError
from headwater.following import made_of
from headwater.hit import Hits
from headwater.index import open_index
from headwater.local import LocalEngine
from headwater.points import LocalPoints, Points, RemotePoints, pages
from headwater.query import Index
from headwater.settings import Settings
from headwater.shadow import TOP, Comparison, Held, compare_documents, overlap, sample_queries
from headwater.state import Layout, Lock, Service

__all__ = ["Comparing", "table"]

#: queries that are made from the documents
_SAMPLE = 50
#: pages of points that are looked through for them
_MOST_PAGES = 8
#: whoever holds the old index without a service lets go of it soon
_LOCK_WAIT_S = 10.0
#: measures of an evaluation set that are shown
_MEASURES = ("ndcg@10", "recall@10", "answer@5")


@dataclass(frozen=True)
class Comparing:
    """``old`` and ``new`` are the settings of both generations."""

    old: Settings
    new: Settings

    def documents(self, old: Layout, new: Layout) -> Comparison:
        """By the ledgers, which were compared with the indexes."""
        root = os.fsencode(self.new.required_folder())
        cuttings = made_of(self.old, old).cutting, made_of(self.new, new).cutting
        return compare_documents(
            _held(old),
            _held(new),
            lambda path: os.path.lexists(os.path.join(root, path)),
            cut_alike=None not in cuttings and cuttings[0] == cuttings[1],
        )

    def answers(
        self, found: Comparison, old: Layout, new: Layout, queries: Path | None, evaluation: Path | None
    ) -> Comparison:
        """With what both answer. An old index that cannot be asked is a note, not a reason to keep it. Raises
        ServiceUnavailable if the new one does not answer just now."""
        with _answering(self.new, new) as (candidate, points):
            asked = _read(queries) if queries is not None else _sampled(points)
            try:
                with contextlib.ExitStack() as held:
                    with _of_old():
                        current = held.enter_context(_current(self.old, old))
                    both = _both(current, candidate, asked)
                    pairs = [(_keys(found, one), _keys(found, other)) for one, other in both]
                    measures = self._measured(evaluation, current, candidate)
            except _OldIsSilent as error:
                return replace(found, notes=(*found.notes, f"the old index cannot be asked: {error}"))
        return replace(found, answers=overlap(pairs), measures=measures)

    def _measured(self, evaluation: Path | None, current: Index, candidate: Index) -> Mapping[str, tuple[float, float]]:
        if evaluation is None:
            return {}
        from headwater.evaluation.datasets import QuestionSet, load_set

        dataset = load_set(evaluation, self.new.required_folder())
        if not isinstance(dataset, QuestionSet) or dataset.kind != "questions":
            raise QueryError(f"{evaluation} holds no questions about the folder: write lines of question, tab, path")
        with _of_old():
            first = _figures(current, dataset)
        second = _figures(candidate, dataset)
        return {name: (first[name], second[name]) for name in _MEASURES if name in first}


def _figures(index: Index, dataset: Any) -> dict[str, float]:
    from headwater.evaluation.runs import ask
    from headwater.evaluation.scoring import figures, scores

    found = ask(index, dataset, "hybrid", _Silent())
    scored = [scores(question, one, documents=True) for question, one in zip(dataset.questions, found, strict=True)]
    return {name: interval.mean for name, interval in figures(scored).items()}


class _Silent:
    """A ``Stage`` that shows nothing."""

    def stage(self, name: str, total: int | None = None) -> None: ...

    def update(self, done: int, total: int) -> None: ...

    def note(self, text: str) -> None: ...


def _held(layout: Layout) -> dict[bytes, Held]:
    from producer.entries import Entries

    found: dict[bytes, Held] = {}
    with Entries(layout.ledger) as entries:
        for entry in entries.below(b""):
            in_index = entry.operation == "index" and entry.state in ("indexed", "partial")
            found[entry.path] = Held(entry.content_hash, entry.chunks if in_index else None, entry.waiting)
    return found


@contextlib.contextmanager
def _answering(settings: Settings, layout: Layout) -> Iterator[tuple[Index, Points]]:
    """The new index, which the worker of the reindex holds; without one, of a server, opened here."""
    from headwater.client import RemoteEngine

    service = Service.read_from(layout.private_service)
    if service is None:
        with contextlib.closing(open_index(settings)) as opened:
            points = LocalPoints(opened, opened.open_existing(), settings.source)
            with Index(LocalEngine.open(open_index(settings), settings)) as index:
                yield index, points
        return
    engine = RemoteEngine(service.url, layout.read_token())
    with Index(engine) as index:
        yield index, RemotePoints(engine.post, None)


@contextlib.contextmanager
def _current(settings: Settings, layout: Layout) -> Iterator[Index]:
    """The old index: the running service's, else opened here and held against others."""
    with contextlib.ExitStack() as held:
        if Service.read(layout) is None and not Lock.is_held(layout, "up"):
            lock = Lock(layout, "worker").acquire(_LOCK_WAIT_S)
            held.callback(lock.release)
        yield held.enter_context(Index.open(settings))


class _OldIsSilent(HeadwaterError):
    """The old index cannot be asked."""


@contextlib.contextmanager
def _of_old() -> Iterator[None]:
    """Errors within are those of the old index, but for what is wrong with a question."""
    try:
        yield
    except QueryError:
        raise
    except HeadwaterError as error:
        raise _OldIsSilent(str(error)) from error


def _both(current: Index, candidate: Index, queries: list[str]) -> Iterator[tuple[Hits, Hits]]:
    for text in queries:
        with contextlib.suppress(QueryError):  # longer than one of the models reads
            with _of_old():
                first = current.search(text, TOP)
            yield first, candidate.search(text, TOP)


def _keys(found: Comparison, hits: Hits) -> list[Any]:
    """Places are the same only where documents are cut alike."""
    return [(hit.path, hit.start, hit.end) if found.cut_alike else hit.path for hit in hits]


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(f"the queries in {file} cannot be read ({error}): write one per line, in UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def _sampled(points: Points) -> list[str]:
    """Ids are hashes, so the first points are a random sample."""
    first = (point for page in islice(pages(points), _MOST_PAGES) for point in page)
    return sample_queries(first, _SAMPLE)


def table(found: Comparison) -> Table:
    """For a person."""
    made = Table("", "old", "new", box=None)
    made.add_row("documents", *map(str, found.documents))
    made.add_row("chunks", *map(str, found.chunks))
    for name, values in found.measures.items():
        made.add_row(name, *(f"{value:.3f}" for value in values))
    if found.missing:
        made.add_row("only there", str(len(found.missing)), "")
    if found.answers is not None:
        made.add_row(f"overlap@{TOP}", "", f"{found.answers.mean:.2f} over {found.answers.queries} queries")
    return made
