"""Measures of retrieval quality, each with its source. Pure: numbers in, numbers out.

Ranks count from 1. A ``ranking`` names each document once, best first; ``grades`` tells how relevant a document is
(a whole number; 0 and below, and every document that is not named: not relevant).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval",
    "Overlap",
    "Span",
    "answer_rank",
    "bootstrap_interval",
    "ndcg",
    "overlap",
    "recall",
    "reciprocal_rank",
    "spearman",
]

Grades = Mapping[str, int]

#: with so many resamples the ends of an interval move by less than its third digit from seed to seed
_RESAMPLES = 2000
_SEED = 20240703


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (not included) of the text of the document at ``path``."""

    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """How retrieved spans and reference spans lie on each other, each 0 to 1."""

    recall: float
    precision: float
    iou: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


# -- documents ------------------------------------------------------------------------------------------------


def ndcg(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Normalised discounted cumulative gain of the first ``k``, 0 to 1.

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002; in the form of
    trec_eval's ``ndcg_cut`` that BEIR (Thakur et al. 2021) reports by pytrec_eval: the gain is the grade itself, the
    discount log2(rank + 1), and the ideal ranking is that of all judged documents. 0 if none is relevant.
    """
    ideal = _discounted(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
    return _discounted(max(grades.get(document, 0), 0) for document in ranking[:k]) / ideal if ideal else 0.0


def _discounted(gains: Iterable[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Share of the relevant documents among the first ``k`` (trec_eval's ``recall``). 0 if none is relevant."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """1 / rank of the first relevant document, 0 if none is among the first ``k``.

    Its mean over questions is MRR@k (Voorhees, "The TREC-8 Question Answering Track Report", 1999).
    """
    ranks = (rank for rank, document in enumerate(ranking[:k], start=1) if grades.get(document, 0) > 0)
    return 1 / next(ranks, float("inf"))


# -- spans ----------------------------------------------------------------------------------------------------


def answer_rank(retrieved: Sequence[Span], references: Sequence[Span]) -> int | None:
    """Rank of the first retrieved span that answers; None if none does.

    One answers that holds a reference whole (its reader sees all of it), or lies within one (a passage longer than a
    chunk). "The answer is among the first k" is the top-k retrieval accuracy of Karpukhin et al., "Dense Passage
    Retrieval", 2020, by place instead of by string: the words of an answer that stand elsewhere do not count.
    """
    for rank, found in enumerate(retrieved, start=1):
        if any(_holds(found, reference) or _holds(reference, found) for reference in references):
            return rank
    return None


def _holds(outer: Span, inner: Span) -> bool:
    return outer.path == inner.path and outer.start <= inner.start and inner.end <= outer.end


def overlap(retrieved: Sequence[Span], references: Sequence[Span]) -> Overlap:
    """Recall, precision and intersection over union, by characters.

    Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval", Chroma technical report, 2024. As there, a
    character of the references counts once among those found, while everything retrieved counts in the
    denominators: chunks that repeat each other cost precision and IoU.
    """
    found = _length(_intersections(_merged(retrieved), _merged(references)))
    wanted, taken = _length(_merged(references)), _length(retrieved)
    union = wanted + taken - found
    return Overlap(found / wanted if wanted else 0.0, found / taken if taken else 0.0, found / union if union else 0.0)


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The same characters, each once, in order."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.path, one.start)):
        if merged and merged[-1].path == span.path and span.start <= merged[-1].end:
            merged[-1] = Span(span.path, merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _intersections(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    return [
        Span(one.path, max(one.start, other.start), min(one.end, other.end))
        for one in some
        for other in others
        if one.path == other.path and one.start < other.end and other.start < one.end
    ]


def _length(spans: Sequence[Span]) -> int:
    return sum(span.end - span.start for span in spans)


# -- pairs of texts -------------------------------------------------------------------------------------------


def spearman(some: ArrayLike, others: ArrayLike) -> float:
    """Rank correlation, -1 to 1: Pearson's correlation of the ranks; equal values share the average of their ranks.

    Spearman, "The proof and measurement of association between two things", 1904. 0 where one side is the same
    throughout and so has no order (scipy gives NaN there).
    """
    ranks = [_average_ranks(np.asarray(values, np.float64)) for values in (some, others)]
    if ranks[0].shape != ranks[1].shape:
        raise ValueError(f"{ranks[0].size} values cannot be compared with {ranks[1].size}")
    first, second = (one - one.mean() for one in ranks)
    scale = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.clip(np.sum(first * second) / scale, -1, 1)) if scale else 0.0


def _average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, shape as that of the values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks


# -- uncertainty ----------------------------------------------------------------------------------------------


def bootstrap_interval(values: Sequence[float], level: float = 0.95, seed: int = _SEED) -> Interval:
    """The mean of one value per question, and the percentile interval that the bootstrap gives it.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979: the questions are drawn
    again with replacement. It tells how far the mean would move with other questions of the same kind; the same seed
    gives the same interval. Raises ValueError without values.
    """
    sample = np.asarray(values, np.float64)
    if not sample.size:
        raise ValueError("without a value there is no mean")
    random = np.random.default_rng(seed)
    # one resample at a time: all at once would need gigabytes for ten thousand questions
    means = [sample[random.integers(0, sample.size, sample.size)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))
