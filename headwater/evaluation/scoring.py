"""Answers to judged questions -> figures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwater.evaluation.measures import (
    Interval,
    Span,
    answer_rank,
    bootstrap_interval,
    ndcg,
    overlap,
    recall,
    reciprocal_rank,
)
from headwater.evaluation.question import Question

__all__ = ["MEASURES", "Answer", "Latency", "figures", "headline", "latency", "scores"]

#: chunks that a reader or a prompt is given, for the figures about spans
TOP_CHUNKS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What the index gave for a question: documents by their best chunk, the first chunks, and the time of one plain
    search. ``refused``: the query module would not search for it (longer than the model reads)."""

    ranking: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    latency_ms: float | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of a search that half, and 95 % of the searches, did not exceed."""

    p50_ms: float
    p95_ms: float


Measure = Callable[[Question, Answer], float]


def _documents(measure: Callable[[Sequence[str], Mapping[str, int], int], float], k: int) -> Measure:
    return lambda question, answer: measure(answer.ranking, question.grades, k)


def _answered(k: int) -> Measure:
    return lambda question, answer: float(answer_rank(answer.spans[:k], question.references) is not None)


def _answer_reciprocal(question: Question, answer: Answer) -> float:
    rank = answer_rank(answer.spans[:10], question.references)
    return 1 / rank if rank else 0.0


def _overlap(part: str) -> Measure:
    return lambda question, answer: float(getattr(overlap(answer.spans[:TOP_CHUNKS], question.references), part))


_DOCUMENTS: dict[str, Measure] = {
    "ndcg@10": _documents(ndcg, 10),
    "recall@10": _documents(recall, 10),
    "recall@100": _documents(recall, 100),
    "mrr@10": _documents(reciprocal_rank, 10),
}
_SPANS: dict[str, Measure] = {
    "answer@1": _answered(1),
    "answer@5": _answered(5),
    "answer_mrr@10": _answer_reciprocal,
    "span_recall@5": _overlap("recall"),
    "span_precision@5": _overlap("precision"),
    "span_iou@5": _overlap("iou"),
}
#: all measures by name, in the order in which they are shown
MEASURES: tuple[str, ...] = (*_DOCUMENTS, *_SPANS, "spearman")
#: the one that is shown with its interval, and drawn, where there are several
_HEADLINES = ("answer@5", "ndcg@10", "spearman")


def scores(question: Question, answer: Answer, *, documents: bool) -> dict[str, float]:
    """Every measure that the question has a judgement for; ``documents``: those of whole documents as well."""
    measures = {**(_DOCUMENTS if documents else {}), **(_SPANS if question.references else {})}
    return {name: measure(question, answer) for name, measure in measures.items()}


def figures(scored: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """The mean of each measure over the questions that have it, with its 95 % bootstrap interval."""
    names = [name for name in MEASURES if any(name in one for one in scored)]
    return {name: bootstrap_interval([one[name] for one in scored if name in one]) for name in names}


def headline(measured: Mapping[str, Any]) -> str:
    """The measure that stands for the others: whether the answer is there, else nDCG@10, else Spearman's."""
    return next(name for name in _HEADLINES if name in measured)


def latency(answers: Sequence[Answer]) -> Latency | None:
    """None if nothing was timed."""
    times = [answer.latency_ms for answer in answers if answer.latency_ms is not None]
    if not times:
        return None
    half, most = np.percentile(times, [50, 95])
    return Latency(float(half), float(most))
