"""The simulation of docs/scaling.md: its queues against queueing theory, and its fleet against what must hold."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bench.simulation import Parameters, erlang_c, simulate
from bench.stations import All, BatchDevice, Clock, Job, Station, Visit, start

_SMALL = Parameters(seconds=10.0, edits_per_s=1.0)


def mean_wait(servers: int, load: float, customers: int) -> float:
    """Of an M/M/c queue with a mean service time of one second."""
    clock, chance = Clock(), random.Random(3)
    station = Station(clock, servers)
    waits: list[float] = []

    def customer() -> Job:
        came, service = clock.now, chance.expovariate(1.0)
        yield Visit(station, service)
        waits.append(clock.now - came - service)

    at = 0.0
    for _ in range(customers):
        at += chance.expovariate(load)
        clock.after(at, lambda: start(customer()))
    clock.run(at + 1000)
    assert len(waits) == customers
    return sum(waits) / customers


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 3.0)])
def test_customers_wait_as_long_as_erlang_says(servers: int, load: float) -> None:
    expected = erlang_c(load, servers) / (servers - load)
    assert mean_wait(servers, load, 20_000) == pytest.approx(expected, rel=0.1)


def test_erlang_c_of_one_server_is_its_load() -> None:
    assert erlang_c(0.7, 1) == pytest.approx(0.7)


def test_an_urgent_job_goes_before_those_that_wait_and_interrupts_none() -> None:
    clock, order = Clock(), list[str]()
    station = Station(clock, 1)
    for name, urgent in (("first", False), ("second", False), ("urgent", True)):
        station.ask(1.0, urgent, lambda name=name: order.append(name))  # type: ignore[misc]  # the default is its value
    clock.run(10)
    assert order == ["first", "urgent", "second"]


def test_parts_that_share_a_core_take_turns() -> None:
    clock, ends = Clock(), list[float]()
    core = Station(clock, 1)
    for _ in range(3):
        Station(clock, 1, core).ask(2.0, False, lambda: ends.append(clock.now))
    clock.run(10)
    assert ends == [2.0, 4.0, 6.0]


def test_a_device_fills_its_batches_and_a_long_job_takes_several() -> None:
    clock, ends = Clock(), dict[str, float]()
    device = BatchDevice(clock, most=10, seconds=lambda texts: 1.0)
    for name, texts in (("long", 25.0), ("short", 5.0)):
        device.ask(texts, False, lambda name=name: ends.__setitem__(name, clock.now))  # type: ignore[misc]  # as above
    clock.run(10)
    assert ends == {"long": 3.0, "short": 3.0}
    assert device.passes == 3


def test_a_job_with_visits_at_once_goes_on_after_the_last() -> None:
    clock, ends = Clock(), list[float]()

    def job() -> Job:
        yield All((Visit(Station(clock, 1), 1.0), Visit(Station(clock, 1), 3.0)))
        ends.append(clock.now)

    start(job())
    clock.run(10)
    assert ends == [3.0]


def test_a_model_of_no_cost_leaves_the_interpreter_and_four_workers_do_four_times_as_much() -> None:
    one, four = (simulate(replace(_SMALL, gpus=0, shards=8, workers=workers)) for workers in (1, 4))
    assert next(iter(one.utilisation)) == "worker's interpreter"
    assert four.chunks_per_s / one.chunks_per_s == pytest.approx(4, rel=0.05)


def test_no_fleet_is_faster_than_its_slowest_part() -> None:
    slow = replace(_SMALL, workers=8, gpus=1, tokens_per_s=60_000)
    found = simulate(slow)
    assert next(iter(found.utilisation)) == "GPU"
    assert found.chunks_per_s == pytest.approx(slow.tokens_per_s / slow.tokens_per_chunk, rel=0.05)
    assert found.first_index_s == pytest.approx(slow.chunks / found.chunks_per_s)


def test_a_backfill_holds_an_edit_up_only_for_what_is_under_way() -> None:
    alone, beside = simulate(replace(_SMALL, window=1, workers=1)), simulate(_SMALL)
    assert 0 < alone.p50_s < 1
    assert alone.p95_s <= beside.p99_s < 2


def test_the_same_seed_gives_the_same_figures() -> None:
    assert simulate(_SMALL) == simulate(_SMALL)
