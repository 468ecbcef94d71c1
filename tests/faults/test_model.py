"""A part of the fault group "model", small enough for every run of the tests; model.py runs all of it."""

from __future__ import annotations

import pytest
from model import Bench
from tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    directory = tmp_path_factory.mktemp("bench")
    return Bench(directory, make_tiny_model(directory))


def test_a_model_that_gives_no_numbers_is_one_sentence_at_start_and_costs_no_document_a_try(bench: Bench) -> None:
    assert bench.at_start("weights not numbers", 7).violations == []


def test_texts_that_spoil_or_stall_the_model_fail_and_no_other_is_touched(bench: Bench) -> None:
    assert bench.at_work("all at once", 7).violations == []
