"""What is wrong, how bad it is, and what is said to do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import producer
from headwater.errors import SettingsError
from headwater.state import Layout
from producer.ledger import Ledger
from producer.status import check_state, read_status
from producer.verdict import Facts, causes, health

ROOT = Path(producer.__file__).parents[1]
MIB = 1024**2
WELL = Facts({}, (), waiting=0, failed=0, example=None, free_bytes=10**12, least_free_bytes=128 * MIB)
PARTS = ("broker", "service", "worker", "index", "folder", "deletions", "watch")


def test_nothing_wrong_is_ok() -> None:
    assert causes(WELL) == [] and health([]) == "ok"


@pytest.mark.parametrize("part", ["broker", "service", "worker", "index"])
def test_what_stops_the_service_is_failing_while_something_waits(part: str) -> None:
    idle = replace(WELL, troubles={part: "it is away"})
    assert health(causes(idle)) == "degraded"
    assert health(causes(replace(idle, waiting=1))) == "failing"


@pytest.mark.parametrize("part", ["folder", "deletions", "watch"])
def test_what_costs_freshness_only_is_never_failing(part: str) -> None:
    assert health(causes(replace(WELL, troubles={part: "it is away"}, waiting=5))) == "degraded"


def test_a_full_disk_is_failing_and_one_that_fills_up_degraded() -> None:
    [full] = causes(replace(WELL, free_bytes=100 * MIB))
    assert (full.part, full.health) == ("disk", "failing") and "100 MiB left" in full.cause
    [low] = causes(replace(WELL, free_bytes=150 * MIB))
    assert (low.part, low.health) == ("disk", "degraded")


def test_failed_documents_are_counted_and_one_is_named() -> None:
    [cause] = causes(replace(WELL, failed=3, example="a.pdf: it is damaged"))
    assert cause.cause == "3 documents failed, such as a.pdf: it is damaged"
    assert "headwater failures" in cause.next_step


def test_the_worst_comes_first() -> None:
    facts = replace(WELL, troubles={"watch": "deaf", "broker": "away"}, processes=("the worker ended",), waiting=1)
    assert [cause.health for cause in causes(facts)] == ["failing", "failing", "degraded"]


def test_every_next_step_leads_to_a_section_of_the_manual() -> None:
    facts = replace(WELL, troubles=dict.fromkeys(PARTS, "x"), processes=("x",), failed=1, free_bytes=0)
    manual = (ROOT / "docs" / "operations.md").read_text("utf-8")
    found = causes(facts)
    assert {cause.part for cause in found} == {*PARTS, "process", "disk", "documents"}
    for cause in found:
        step, place = re.fullmatch(r"(.+) \(docs/operations\.md#(\S+)\)", cause.next_step).groups()  # type: ignore[union-attr]
        assert step and f'<a id="{place}">' in manual


def test_the_status_has_causes_of_a_running_service_only(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ledger = Ledger(layout.ledger)
    ledger.set_metas({"scanned": "1", "troubles": '{"broker": "the broker does not answer"}'})
    ledger.close()
    running = read_status(layout, running=True)
    assert (running["health"], running["reasons"]) == ("degraded", ["the broker does not answer"])
    assert running["causes"][0]["part"] == "broker" and "CELERY_BROKER_URL" in running["causes"][0]["next_step"]
    assert read_status(layout, running=False)["health"] == "ok"


def test_a_directory_without_state_has_no_status(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no state of Headwater"):
        check_state(Layout(tmp_path / "nothing"))
    Ledger(Layout(tmp_path).ledger).close()
    check_state(Layout(tmp_path))
