"""One data set with one configuration, through the whole path: index, ask, score."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headwater.embedder import Embedder, load_embedder
from headwater.errors import QueryError
from headwater.evaluation.configuration import Configuration
from headwater.evaluation.corpus import write_corpus
from headwater.evaluation.datasets import DataSet, PairSet, QuestionSet
from headwater.evaluation.indexing import Built, build_index
from headwater.evaluation.measures import Interval, Span, spearman
from headwater.evaluation.question import Question
from headwater.evaluation.scoring import Answer, figures, latency, scores
from headwater.evaluation.stage import Stage
from headwater.index import Mode
from headwater.query import Hit, Index
from headwater.question import MOST_HITS

__all__ = ["Evaluator", "ModelFacts", "Result", "Searcher", "ask"]

#: hits of the search that is timed, as many as a caller gets who asks for nothing else
_PLAIN_HITS = 10
#: documents of a ranking that are kept
_RANKED = 100
#: what a question's entry in the JSON shows of its ranking
_RANKED_SHOWN = 10
#: pairs whose texts are embedded between two steps of the progress bar
_PAIRS = 256


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the model is. ``window``: most tokens of a text."""

    name: str
    parameters: int
    dimension: int
    window: int


@dataclass(frozen=True, slots=True)
class Result:
    """The row of one configuration on one data set. ``details`` holds an entry for each question, for programs."""

    dataset: str
    kind: str
    asked: int
    configuration: Configuration
    model: ModelFacts
    measures: Mapping[str, Interval | float]
    texts_per_s: float | None
    built: Built | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    refused: int = 0
    details: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        measures = {
            name: asdict(value) if isinstance(value, Interval) else {"mean": value}
            for name, value in self.measures.items()
        }
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "asked": self.asked,
            "refused": self.refused,
            "configuration": self.configuration.to_dict(),
            "model": asdict(self.model),
            "measures": measures,
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "texts_per_s": self.texts_per_s,
            "index": None if self.built is None else self.built.to_dict(),
            "questions": list(self.details),
        }


class Searcher(Protocol):
    """What questions are put to; ``headwater.Index`` is one."""

    def search(self, text: str, limit: int, mode: Mode) -> list[Hit]: ...


class Evaluator:
    """Runs data sets with configurations; an index, and what is known of a model, serve all that share them."""

    def __init__(self, work: Path, stage: Stage) -> None:
        self._work = work
        self._stage = stage
        self._facts: dict[Any, ModelFacts] = {}
        self._compared: set[Any] = set()
        self._built: dict[Any, Built] = {}

    def run(self, dataset: DataSet, configuration: Configuration) -> Result | None:
        """None for pairs of texts with settings that cannot change their result, once one of the kind was measured.

        Raises what the command, the model or the index raise.
        """
        if isinstance(dataset, PairSet):
            return self._compare(dataset, configuration)
        return self._question(dataset, configuration)

    def _question(self, dataset: QuestionSet, configuration: Configuration) -> Result:
        model = self._model(configuration)  # first: a model that cannot be loaded is told before anything is written
        built = self._index(dataset, configuration)
        self._stage.stage(f"asking {dataset.name} {configuration.mode}", len(dataset.questions))
        with Index.open(built.settings.model_copy(update=configuration.of_search())) as index:
            answers = ask(index, dataset, configuration.mode, self._stage)
        whole = dataset.kind != "spans"
        scored = [scores(q, a, documents=whole) for q, a in zip(dataset.questions, answers, strict=True)]
        taken = latency(answers)
        return Result(
            dataset=dataset.name,
            kind=dataset.kind,
            asked=len(answers),
            configuration=configuration,
            model=model,
            measures=figures(scored),
            texts_per_s=built.texts_per_s,
            built=built,
            p50_ms=None if taken is None else taken.p50_ms,
            p95_ms=None if taken is None else taken.p95_ms,
            refused=sum(answer.refused for answer in answers),
            details=tuple(map(_detail, dataset.questions, answers, scored)),
        )

    def _index(self, dataset: QuestionSet, configuration: Configuration) -> Built:
        key = (dataset.name, dataset.folder, dataset.corpus, configuration.same_index())
        if key not in self._built:
            self._stage.stage(f"indexing {dataset.name}")
            folder = dataset.folder
            if dataset.corpus is not None:
                folder = write_corpus(dataset.corpus, self._work / "corpora")
            assert folder is not None
            ours = dataset.kind != "questions"
            self._built[key] = build_index(configuration, folder, self._work, self._stage, ours=ours)
        return self._built[key]

    def _model(self, configuration: Configuration) -> ModelFacts:
        key = configuration.same_vectors()
        if key not in self._facts:
            self._facts[key] = _facts(self._load(configuration))
        return self._facts[key]

    def _load(self, configuration: Configuration) -> Embedder:
        self._stage.stage("loading the model")
        return load_embedder(configuration.settings())

    def _compare(self, dataset: PairSet, configuration: Configuration) -> Result | None:
        key = (dataset, configuration.same_vectors())
        if key in self._compared:
            return None
        self._compared.add(key)
        embedder = self._load(configuration)
        self._stage.stage(f"comparing {dataset.name}", len(dataset.pairs))
        began = time.monotonic()
        cosines = _cosines(embedder, dataset, self._stage)
        seconds = time.monotonic() - began
        return Result(
            dataset=dataset.name,
            kind="pairs",
            asked=len(dataset.pairs),
            configuration=configuration,
            model=_facts(embedder),
            measures={"spearman": 100 * spearman([pair.score for pair in dataset.pairs], cosines)},
            texts_per_s=2 * len(dataset.pairs) / seconds,
        )


def _facts(embedder: Embedder) -> ModelFacts:
    return ModelFacts(embedder.name, embedder.parameters, embedder.dimension, embedder.window)


def _cosines(embedder: Embedder, dataset: PairSet, stage: Stage) -> list[float]:
    """Cosine of each pair, both embedded as queries are: what ``Index.similarity`` gives."""
    found: list[float] = []
    for first in range(0, len(dataset.pairs), _PAIRS):
        part = dataset.pairs[first : first + _PAIRS]
        rows = embedder.encode([text for pair in part for text in (pair.one, pair.other)], "query")
        found += np.sum(rows[0::2] * rows[1::2], axis=1).tolist()
        stage.update(len(found), len(dataset.pairs))
    return found


# -- asking ---------------------------------------------------------------------------------------------------


def ask(index: Searcher, dataset: QuestionSet, mode: Mode, stage: Stage) -> list[Answer]:
    """An answer to each question, in their order. The first question is asked once before, untimed: it warms up."""
    deep = dataset.kind != "spans"
    answers: list[Answer] = []
    for number, question in enumerate(dataset.questions, start=1):
        if number == 1:
            _answer(index, question, mode, deep=False)
        answers.append(_answer(index, question, mode, deep=deep))
        stage.update(number, len(dataset.questions))
    return answers


def _answer(index: Searcher, question: Question, mode: Mode, *, deep: bool) -> Answer:
    """A plain search is timed and gives the spans; a ``deep`` one after it gives the ranking of documents."""
    try:
        began = time.perf_counter()
        hits = index.search(question.text, _PLAIN_HITS, mode)
        latency_ms = 1000 * (time.perf_counter() - began)
        ranked = index.search(question.text, MOST_HITS, mode) if deep else hits
    except QueryError:
        return Answer(refused=True)
    _check_lines(question, hits)
    return Answer(_documents(ranked, question.own), tuple(Span(h.path, h.start, h.end) for h in hits), latency_ms)


def _documents(hits: Iterable[Hit], own: str | None) -> tuple[str, ...]:
    """Paths by their best chunk, without that of the question itself."""
    paths = dict.fromkeys(hit.path for hit in hits)
    paths.pop(own or "", None)
    return tuple(paths)[:_RANKED]


def _check_lines(question: Question, hits: Sequence[Hit]) -> None:
    """Spans are compared by characters of the file; a hit of a format without lines counts those of extracted text."""
    lineless = {hit.path for hit in hits if hit.start_line is None}
    for reference in question.references:
        if reference.path in lineless:
            raise QueryError(
                f"{reference.path} has no lines in the index, so the question {question.text!r} cannot name any: "
                "leave '#L...' out"
            )


def _detail(question: Question, answer: Answer, scored: dict[str, float]) -> dict[str, Any]:
    return {
        "id": question.id,
        "latency_ms": answer.latency_ms,
        "refused": answer.refused,
        "ranking": list(answer.ranking[:_RANKED_SHOWN]),
        "measures": scored,
    }
