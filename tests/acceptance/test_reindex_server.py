"""Reindex and rollback with a server: processes on many hosts follow the alias, and nobody who asks notices."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import pids_with, wait_until
from hosts import Hosts, Pair, asking
from notes import NOTES, TEXT, Notes, Traffic

from headwater.state import Layout, Pointer

pytestmark = pytest.mark.long

_SMALLER = ("--set", "truncate_dim=16")
_DIMENSIONS = {1: 32, 2: 16}
_SLOW_S = 25


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A worker that answers, too, a producer and a query server, in step with a folder of notes."""
    Notes(tmp_path / "folder").fill()
    often = {"HEADWATER_ALIAS_POLL_S": "0.3", "HEADWATER_SANDBOXES": "1"}
    folder = str(tmp_path / "folder")
    with Pair.started(tmp_path) as pair, Hosts.of(tmp_path, pair, "library", HEADWATER_FOLDER=folder, **often) as made:
        slow = tmp_path / "slow"
        slow.touch()  # the first time that it begins anew, the worker takes its time
        made.start("worker", "work", "--serve", HEADWATER_FAILPOINTS=f"work:anew=sleep{_SLOW_S}@{slow}")
        made.start("producer", "watch")
        wait_until(lambda: made.in_step("producer"), f"in step {made.log('worker')}")
        made.start("query", "serve")
        made.url("query")
        yield made


@pytest.mark.timeout(300)
def test_every_host_follows_the_alias(hosts: Hosts) -> None:
    # Given people who edit, and ask the query server and the worker
    notes, pids = Notes(hosts.root / "folder"), {host: process.pid for host, process in hosts.running.items()}
    asked = [
        Traffic(notes, asking(hosts.url(host)), _DIMENSIONS, edits=host == "query") for host in ("query", "worker")
    ]
    with contextlib.ExitStack() as stack:
        for traffic in asked:
            stack.enter_context(traffic.flowing())
        # When the producer's host reindexes
        said = hosts.said("producer", "reindex", *_SMALLER, "--json")
        compared = next(line for line in map(json.loads, said.splitlines()) if line.get("event") == "compared")
        for traffic in asked:
            wait_until(lambda asked=traffic: asked.answers[2] > 3, f"answers from the new index {hosts.logs()}")
        assert Pointer.read(Layout(hosts.state("producer"))).generation == 2
        # And back
        hosts.said("producer", "rollback")
        for traffic in asked:
            before = traffic.answers[1]
            wait_until(lambda asked=traffic, before=before: asked.answers[1] > before + 3, "answers from the old index")
    # Then all followed, in the processes that they were, and no answer was wrong
    for traffic in asked:
        assert not traffic.wrong, traffic.wrong[:5]
        assert traffic.longest_s < _SLOW_S / 2, "nobody waits for a worker that begins anew"
    assert not (hosts.root / "slow").exists()
    assert compared["documents"] == {"old": NOTES, "new": NOTES}
    wait_until(lambda: hosts.in_step("producer", 1), "in step")
    found = asking(hosts.url("query"))(text=TEXT, limit=4 * NOTES, mode="dense")["hits"]
    assert {hit["text"].split("edit ")[1].split(".")[0] for hit in found} == notes.numbers()
    assert {host: process.pid for host, process in hosts.running.items() if process.poll() is None} == pids, (
        hosts.logs()
    )
    # And what was left goes when it is told to
    assert json.loads(hosts.said("producer", "reindex", "--drop-old", "--json"))["dropped"] == [2]


@pytest.mark.timeout(300)
def test_workers_of_other_hosts_may_fill_the_new_index(hosts: Hosts) -> None:
    # Given a reindex that embeds nothing itself
    hosts.start("laptop", "reindex", "--no-worker", *_SMALLER, HEADWATER_STATE_DIR=str(hosts.state("producer")))
    wait_until(lambda: "--generation 2" in hosts.log("laptop"), "it says what is to be done")
    assert Pointer.read(Layout(hosts.state("producer"))).generation == 1
    # When a worker comes for it, which knows no settings but those of the collection
    hosts.start("helper", "work", "--generation", "2")
    # Then it is filled, compared and moved to
    wait_until(
        lambda: hosts.running["laptop"].poll() is not None, f"the end {hosts.log('laptop')}{hosts.log('helper')}"
    )
    assert hosts.running["laptop"].returncode == 0, hosts.logs()
    assert "overlap@10" in hosts.log("laptop")
    assert Pointer.read(Layout(hosts.state("producer"))).generation == 2
    answer = asking(hosts.url("query"))
    wait_until(lambda: answer(text=TEXT)["freshness"]["generation"] == 2, "the query server follows")
    fault = Traffic(Notes(hosts.root / "folder"), answer, _DIMENSIONS).fault_of(
        answer(text=TEXT, limit=50, mode="dense")
    )
    assert fault is None


@pytest.mark.timeout(300)
def test_a_worker_for_an_index_that_is_not_there_ends_with_a_sentence(hosts: Hosts) -> None:
    done = hosts.run("helper", "work", "--generation", "7")
    assert done.returncode == 75 and "generation 7 is not there" in done.stderr


@pytest.mark.timeout(300)
def test_a_part_that_is_told_to_end_while_it_follows_ends(hosts: Hosts) -> None:
    # Given a worker and a producer that take their time between two generations
    hosts.stop("producer")
    parts = {"second": ("work", "--serve"), "producer": ("watch",)}
    held = {host: hosts.root / f"{host}.held" for host in parts}
    for host, arguments in parts.items():
        held[host].touch()
        hosts.start(host, *arguments, HEADWATER_FAILPOINTS=f"follow:anew=sleep2@{held[host]}")
    hosts.url("second")
    wait_until(lambda: hosts.in_step("producer"), "in step")
    # When they follow a move, and are told to end just then
    hosts.said("producer", "reindex", *_SMALLER)
    for host in parts:
        wait_until(lambda host=host: not held[host].exists(), f"{host} follows {hosts.log(host)}")
        # Then they end, in order
        assert hosts.stop(host) == 0, hosts.log(host)
    # And nothing that they started goes on
    wait_until(lambda: pids_with(str(hosts.state("second"))) == {}, "no stand-in is left")
