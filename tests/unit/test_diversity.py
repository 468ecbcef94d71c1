"""Maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headwater.diversity import diverse
from headwater.index import ScoredChunk


def chunk(name: str, *numbers: float) -> ScoredChunk:
    vector = np.array(numbers, np.float32)
    return ScoredChunk(1.0, {"name": name}, vector / np.linalg.norm(vector))


QUERY = np.array([1.0, 0.0, 0.0], np.float32)
FOUND = [chunk("best", 1.0, 0.1, 0.0), chunk("its twin", 1.0, 0.11, 0.0), chunk("another", 0.6, 0.0, 0.8)]


def names(diversity: float, number: int = 3) -> list[str]:
    return [found.payload["name"] for found in diverse(QUERY, FOUND, number, diversity)]


def test_without_diversity_the_nearest_come_first() -> None:
    assert names(0.0) == ["best", "its twin", "another"]


def test_with_diversity_a_twin_stands_back() -> None:
    assert names(0.5) == ["best", "another", "its twin"]
    assert names(0.5, 2) == ["best", "another"]


def test_hits_without_vectors_stay_in_their_order() -> None:
    found = [ScoredChunk(1.0, {}), ScoredChunk(0.5, {})]
    assert diverse(QUERY, found, 1, 0.5) == found[:1]


@given(st.integers(0, 12), st.integers(1, 15), st.floats(0, 1), st.integers(0, 5))
def test_each_hit_is_chosen_at_most_once(many: int, number: int, diversity: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(many, 3))
    found = [chunk(str(at), *row) for at, row in enumerate(rows)]
    chosen = [one.payload["name"] for one in diverse(QUERY, found, number, diversity)]
    assert len(chosen) == len(set(chosen)) == min(many, number)
