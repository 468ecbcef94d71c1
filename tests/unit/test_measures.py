"""Measures of retrieval quality: cases worked out by hand, and what holds for every input."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.evaluation.measures import (
    Interval,
    Span,
    answer_rank,
    bootstrap_interval,
    ndcg,
    overlap,
    recall,
    reciprocal_rank,
    spearman,
)

DOCUMENTS = [f"d{number}" for number in range(12)]
rankings = st.permutations(DOCUMENTS).flatmap(lambda all_of_them: st.integers(0, 12).map(lambda n: all_of_them[:n]))
judgements = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-1, 4))
depths = st.integers(1, 15)
spans = st.builds(
    lambda path, start, length: Span(path, start, start + length),
    st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 20),
)  # fmt: skip
numbers = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=30)


# -- documents ------------------------------------------------------------------------------------------------


def test_ndcg_of_a_graded_ranking_by_hand() -> None:
    # gains 0, 3, 1 at ranks 1, 2, 3; ideal 3, 2, 1
    got = ndcg(["x", "a", "c"], {"a": 3, "b": 2, "c": 1}, 3)
    assert got == pytest.approx((3 / log2(3) + 1 / 2) / (3 + 2 / log2(3) + 1 / 2))


def test_the_ideal_of_ndcg_is_cut_at_k_as_well() -> None:
    assert ndcg(["a"], {"a": 1, "b": 1, "c": 1}, 1) == 1.0
    assert ndcg(["a"], {"a": 1, "b": 1}, 10) == pytest.approx(1 / (1 + 1 / log2(3)))


def test_the_gain_of_ndcg_is_linear_in_the_grade() -> None:
    # with an exponential gain it would be (1 + 7 / log2(3)) / (7 + 1 / log2(3))
    assert ndcg(["b", "a"], {"a": 3, "b": 1}, 2) == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)))


def test_a_negative_grade_is_as_good_as_none() -> None:
    assert ndcg(["bad", "a"], {"a": 1, "bad": -2}, 2) == pytest.approx(1 / log2(3))
    assert recall(["bad"], {"a": 1, "bad": -2}, 2) == 0
    assert reciprocal_rank(["bad", "a"], {"a": 1, "bad": -2}, 2) == 0.5


def test_recall_and_reciprocal_rank_by_hand() -> None:
    grades = {"a": 1, "b": 2, "c": 0}
    assert recall(["c", "b", "x"], grades, 3) == 0.5
    assert recall(["c", "b", "x"], grades, 1) == 0
    assert reciprocal_rank(["c", "x", "b"], grades, 3) == pytest.approx(1 / 3)
    assert reciprocal_rank(["c", "x", "b"], grades, 2) == 0


def test_where_nothing_is_relevant_every_measure_is_zero() -> None:
    assert ndcg(["a"], {"a": 0}, 5) == recall(["a"], {}, 5) == reciprocal_rank([], {}, 5) == 0


@given(rankings, judgements, depths)
def test_measures_of_documents_stay_between_0_and_1(ranking: list[str], grades: dict[str, int], k: int) -> None:
    for measure in (ndcg, recall, reciprocal_rank):
        assert 0 <= measure(ranking, grades, k) <= 1 + 1e-12


@given(judgements, depths)
def test_the_ideal_ranking_has_an_ndcg_of_1(grades: dict[str, int], k: int) -> None:
    ideal = sorted(grades, key=lambda document: -grades[document])
    assert ndcg(ideal, grades, k) == pytest.approx(1.0 if any(grade > 0 for grade in grades.values()) else 0.0)


@given(rankings, judgements, depths)
def test_a_longer_look_never_lowers_recall_and_reciprocal_rank(
    ranking: list[str], grades: dict[str, int], k: int
) -> None:
    for measure in (recall, reciprocal_rank):
        assert measure(ranking, grades, k) <= measure(ranking, grades, k + 1)


@given(rankings, judgements, depths, st.integers(0, 10))
def test_moving_the_better_document_up_never_lowers_ndcg(
    ranking: list[str], grades: dict[str, int], k: int, at: int
) -> None:
    if at + 1 >= len(ranking) or grades.get(ranking[at], 0) > grades.get(ranking[at + 1], 0):
        return
    swapped = [*ranking[:at], ranking[at + 1], ranking[at], *ranking[at + 2 :]]
    assert ndcg(swapped, grades, k) >= ndcg(ranking, grades, k) - 1e-12


# -- spans ----------------------------------------------------------------------------------------------------


def test_a_span_answers_that_holds_a_reference_or_lies_within_one() -> None:
    reference = Span("a", 10, 20)
    assert answer_rank([Span("a", 0, 19), Span("b", 0, 99), Span("a", 10, 20)], [reference]) == 3
    assert answer_rank([Span("a", 12, 18)], [reference]) == 1
    assert answer_rank([Span("a", 5, 15), Span("a", 15, 25)], [reference]) is None
    assert answer_rank([], [reference]) is None


def test_overlap_by_hand() -> None:
    # 5 of 10 wanted characters among 20 retrieved ones: the union has 25
    found = overlap([Span("a", 0, 15), Span("b", 0, 5)], [Span("a", 10, 20)])
    assert (found.recall, found.precision, found.iou) == (0.5, 0.25, 0.2)


def test_what_is_retrieved_twice_counts_once_as_found_and_twice_as_retrieved() -> None:
    # as in Chroma's report: 10 of 10 wanted found, 20 retrieved, union 10 + 20 - 10
    found = overlap([Span("a", 0, 10), Span("a", 0, 10)], [Span("a", 0, 10)])
    assert (found.recall, found.precision, found.iou) == (1.0, 0.5, 0.5)


def test_references_that_overlap_are_wanted_once() -> None:
    assert overlap([Span("a", 0, 10)], [Span("a", 0, 10), Span("a", 5, 10)]).iou == 1.0


def test_nothing_retrieved_and_nothing_wanted_overlap_in_nothing() -> None:
    for retrieved, references in (([], [Span("a", 0, 1)]), ([Span("a", 0, 1)], []), ([], [])):
        found = overlap(retrieved, references)
        assert (found.recall, found.precision, found.iou) == (0, 0, 0)


@given(st.lists(spans, max_size=6), st.lists(spans, max_size=6))
def test_overlap_is_what_sets_of_characters_say(retrieved: list[Span], references: list[Span]) -> None:
    found = overlap(retrieved, references)
    wanted = {(span.path, at) for span in references for at in range(span.start, span.end)}
    taken = [(span.path, at) for span in retrieved for at in range(span.start, span.end)]
    common = len(wanted & set(taken))
    assert found.recall == pytest.approx(common / len(wanted) if wanted else 0)
    assert found.precision == pytest.approx(common / len(taken) if taken else 0)
    assert found.iou == pytest.approx(common / union if (union := len(wanted) + len(taken) - common) else 0)


@given(st.lists(spans, min_size=1, max_size=6), st.lists(spans, min_size=1, max_size=6))
def test_one_more_span_never_lowers_recall_nor_the_rank_of_the_answer(one: list[Span], references: list[Span]) -> None:
    assert overlap(one, references).recall >= overlap(one[:-1], references).recall
    if (rank := answer_rank(one[:-1], references)) is not None:
        assert answer_rank(one, references) == rank


# -- pairs of texts -------------------------------------------------------------------------------------------


def test_spearman_without_ties_is_the_classic_formula() -> None:
    # differences of ranks 0, 1, 1, 1, 1: 1 - 6 * 4 / (5 * 24)
    assert spearman([1, 2, 3, 4, 5], [10, 30, 20, 50, 40]) == pytest.approx(0.8)


def test_equal_values_share_the_average_of_their_ranks() -> None:
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_without_an_order_there_is_no_correlation() -> None:
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def test_sides_of_different_lengths_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="3 values cannot be compared with 2"):
        spearman([1, 2, 3], [1, 2])


@given(numbers)
def test_only_the_order_counts_for_spearman(values: list[float]) -> None:
    if len(set(values)) < 2:
        return
    assert spearman(values, [value**3 + 7 * value for value in values]) == pytest.approx(1)
    assert spearman(values, [-value for value in values]) == pytest.approx(-1)


@given(numbers.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_spearman_is_symmetric_and_bounded(sides: tuple[list[float], list[float]]) -> None:
    values, others = sides
    assert -1 <= spearman(values, others) <= 1
    assert spearman(values, others) == pytest.approx(spearman(others, values))


# -- uncertainty ----------------------------------------------------------------------------------------------


def test_the_interval_of_a_constant_is_the_constant() -> None:
    assert bootstrap_interval([0.25] * 7) == Interval(0.25, 0.25, 0.25)


def test_the_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    # 400 coins of mean 0.5: the standard error is 0.5 / 20, and 1.96 of it are 0.049
    found = bootstrap_interval([0.0, 1.0] * 200)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert found.high == pytest.approx(0.5 + 0.049, abs=0.006)


def test_without_values_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="without a value"):
        bootstrap_interval([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_interval_lies_within_the_values_and_is_the_same_each_time(values: list[float]) -> None:
    found = bootstrap_interval(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.mean == pytest.approx(np.mean(values))
    assert found == bootstrap_interval(values)
