"""Answers become figures: which measures a question has, and what is left out."""

from __future__ import annotations

import pytest

from headwater.evaluation.measures import Span
from headwater.evaluation.question import Question
from headwater.evaluation.scoring import MEASURES, Answer, Latency, figures, headline, latency, scores

WITH_LINES = Question("1", "q", {"a": 1}, (Span("a", 0, 10),))
WITHOUT = Question("2", "q", {"b": 1})
FOUND = Answer(("b", "a"), (Span("b", 0, 10), Span("a", 0, 20)), 3.0)


def test_a_question_has_the_measures_that_it_has_judgements_for() -> None:
    whole = {"ndcg@10", "recall@10", "recall@100", "mrr@10"}
    assert set(scores(WITHOUT, FOUND, documents=True)) == whole
    assert set(scores(WITH_LINES, FOUND, documents=True)) == set(MEASURES) - {"spearman"}
    assert set(scores(WITH_LINES, FOUND, documents=False)) == set(MEASURES) - {"spearman"} - whole


def test_the_values_are_those_of_the_measures() -> None:
    found = scores(WITH_LINES, FOUND, documents=True)
    assert found["mrr@10"] == found["answer_mrr@10"] == 0.5
    assert (found["answer@1"], found["answer@5"]) == (0.0, 1.0)
    assert found["span_recall@5"] == 1.0
    assert found["span_precision@5"] == pytest.approx(1 / 3)
    assert found["span_iou@5"] == pytest.approx(10 / 30)


def test_only_the_first_five_chunks_count_for_spans() -> None:
    late = Answer(("a",), (*[Span("b", 0, 1)] * 5, Span("a", 0, 10)))
    found = scores(WITH_LINES, late, documents=False)
    assert found["answer@5"] == found["span_recall@5"] == 0
    assert found["answer_mrr@10"] == pytest.approx(1 / 6)


def test_a_question_that_was_refused_counts_as_not_answered() -> None:
    assert set(scores(WITH_LINES, Answer(refused=True), documents=True).values()) == {0.0}


def test_a_mean_is_over_the_questions_that_have_the_measure() -> None:
    scored = [scores(WITH_LINES, FOUND, documents=True), scores(WITHOUT, FOUND, documents=True)]
    found = figures(scored)
    assert list(found) == [name for name in MEASURES if name in found]  # in the order in which they are shown
    assert found["mrr@10"].mean == 0.75
    assert found["answer@5"].mean == found["answer@5"].low == 1.0


@pytest.mark.parametrize(
    ("names", "main"),
    [(["ndcg@10", "recall@10"], "ndcg@10"), (["ndcg@10", "answer@5"], "answer@5"), (["spearman"], "spearman")],
)
def test_one_measure_stands_for_the_others(names: list[str], main: str) -> None:
    assert headline(dict.fromkeys(names)) == main


def test_latency_is_of_the_searches_that_were_made() -> None:
    answers = [Answer(latency_ms=float(ms)) for ms in range(1, 102)]
    assert latency([*answers, Answer(refused=True)]) == Latency(51.0, 96.0)
    assert latency([Answer(refused=True)]) is None
