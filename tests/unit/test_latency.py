"""From a save to its outcome, and the changes that no event told of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from headwater.document import Fingerprint
from headwater.messages import Outcome
from headwater.metrics import PRODUCER
from producer.diff import Changes, Seen
from producer.latency import Latency
from producer.stall import Stall


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def latency(clock: Clock) -> Latency:
    return Latency(clock)


class Since:
    """How much a number has grown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._before: dict[str, float] = {}
        self._before = {name: self(name) for name in ("count", "sum", "missed")}

    def __call__(self, what: str) -> float:
        name = {
            "count": "headwater_saved_to_searchable_seconds_count",
            "sum": "headwater_saved_to_searchable_seconds_sum",
            "missed": "headwater_missed_events_total",
        }[what]
        return (self._registry.get_sample_value(name) or 0.0) - self._before.get(what, 0.0)


@pytest.fixture
def grown() -> Iterator[Since]:
    yield Since(PRODUCER)


def mark(saved: float) -> Fingerprint:
    return Fingerprint(1, 0, int(saved * 1e9), 1)


def seen(**saved: float) -> dict[bytes, Seen]:
    return {name.encode(): Seen(mark(at)) for name, at in saved.items()}


def test_a_saved_file_is_measured_from_its_change_to_its_outcome(latency: Latency, clock: Clock, grown: Since) -> None:
    latency.noticed(Changes(created=(b"a",)), {}, seen(a=1010.0))
    clock.now = 1012.5
    latency.settled(Outcome(b"a", 1, "indexed"))
    latency.settled(Outcome(b"a", 1, "indexed"))  # came twice
    assert (grown("count"), grown("sum")) == (1, 2.5)


def test_what_was_saved_before_the_start_or_did_not_change_is_not_measured(latency: Latency, grown: Since) -> None:
    latency.noticed(Changes(created=(b"old",)), {}, seen(old=900.0))
    latency.noticed(Changes(changed=(b"again",)), {b"again": None}, seen(again=1001.0))  # only looked at again
    for path in (b"old", b"again", b"other"):
        latency.settled(Outcome(path, 1, "indexed"))
    assert grown("count") == 0


def test_a_deletion_is_measured_from_when_it_was_noticed(latency: Latency, clock: Clock, grown: Since) -> None:
    latency.noticed(Changes(deleted=(b"a",)), {b"a": mark(900.0)}, {})
    clock.now += 1.5
    latency.settled(Outcome(b"a", 1, "deleted"))
    assert (grown("count"), grown("sum")) == (1, 1.5)


def test_a_failure_is_no_searchable_document(latency: Latency, grown: Since) -> None:
    latency.noticed(Changes(created=(b"a",)), {}, seen(a=1010.0))
    latency.settled(Outcome(b"a", 1, "failed"))
    assert grown("count") == 0


def test_a_scan_counts_what_events_should_have_told(latency: Latency, clock: Clock, grown: Since) -> None:
    clock.now = 1100.0
    found = seen(before=900.0, missed=1050.0, moved=1060.0, just_now=1099.0, again=1050.0)
    changes = Changes(
        created=(b"before", b"missed", b"just_now"), changed=(b"again",), moved=((b"x", b"moved"),), deleted=(b"gone",)
    )
    latency.missed(changes, {b"again": None, b"gone": mark(1.0)}, found)
    assert grown("missed") == 2


# -- no worker takes hints --------------------------------------------------------------------------------


def test_hints_that_nobody_takes_are_told_after_a_minute_without_an_outcome(clock: Clock) -> None:
    waiting = 3
    stall = Stall(lambda: waiting, clock)
    assert stall.reason(on_their_way=True) is None
    clock.now += 61
    assert "no worker takes hints" in str(stall.reason(on_their_way=True))
    stall.landed()
    assert stall.reason(on_their_way=True) is None


def test_hints_that_a_worker_has_taken_are_no_trouble(clock: Clock) -> None:
    stall = Stall(lambda: 0, clock)
    clock.now += 600
    assert stall.reason(on_their_way=True) is None


def test_the_time_without_anything_to_do_does_not_count(clock: Clock) -> None:
    stall = Stall(lambda: 1, clock)
    clock.now += 600
    assert stall.reason(on_their_way=False) is None
    clock.now += 30
    assert stall.reason(on_their_way=True) is None
