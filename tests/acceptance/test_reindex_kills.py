"""Reindex and rollback with a server, killed at each step, while people edit and ask: no answer fails, is empty, or
comes from two indexes, and what comes of it is what a new index of the folder would be."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import pids_with, wait_until
from hosts import Hosts, Pair, asking
from notes import Notes, Traffic
from server_mode import Servers, raw_points

from headwater.failpoints import MOVING
from headwater.state import Layout, Pointer

pytestmark = pytest.mark.long

_NAME = "library"
_OTHER = {"HEADWATER_TRUNCATE_DIM": "16"}
_SETTINGS = ("--set", "truncate_dim=16")
_THERE = [name for name in MOVING if name.startswith(("reindex:", "move:"))]
_BACK = [name for name in MOVING if name.startswith("rollback:")]
_BACK[-1:-1] = [name for name in MOVING if name.startswith("move:")]
_FILLING = "filling"
#: who is killed beside the command, in turn
_VICTIMS = ("worker", "producer", "broker", "qdrant")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair.started(tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.fixture
def hosts(tmp_path: Path, pair: Pair) -> Iterator[Hosts]:
    """A worker, a producer and a query server, in step with a folder of notes."""
    Notes(tmp_path / "folder").fill()
    common = {"HEADWATER_ALIAS_POLL_S": "0.3", "HEADWATER_SANDBOXES": "1"}
    with Hosts.of(tmp_path, pair, _NAME, HEADWATER_FOLDER=str(tmp_path / "folder"), **common) as made:
        made.start("worker", "work")
        made.start("producer", "watch")
        wait_until(lambda: made.in_step("producer"), f"in step {made.log('worker')}")
        made.start("query", "serve")
        made.url("query")
        yield made
    _servers(pair).drop(_NAME)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victims", [(), _VICTIMS], ids=["the command", "and others"])
def test_killed_at_any_step_it_goes_on(hosts: Hosts, pair: Pair, victims: tuple[str, ...]) -> None:
    run = _Run(hosts, pair, victims)
    with run.traffic.flowing():
        # When a reindex is killed at each of its steps in turn
        for step in (*_THERE[:2], _FILLING, *_THERE[2:]):
            run.kill_at(step, "reindex", *(_SETTINGS if step == _THERE[0] else ()))
            if _THERE.index("move:alias") > (_THERE.index(step) if step in _THERE else 0):
                # Then the old index answers until the move
                assert run.answers_come() == 1 and not run.traffic.answers[2], step
        # And the next one ends it
        hosts.said("producer", "reindex")
        wait_until(lambda: run.answers_come() == 2, "answers from the new index")
    run.judge(2, _OTHER)
    with run.traffic.flowing():
        # And so the way back
        for step in _BACK:
            run.kill_at(step, "rollback")
            if step in ("rollback:noted", "rollback:filled"):
                assert run.answers_come() == 2, step
                assert json.loads(hosts.said("producer", "status", "--json"))["rollback"]["generation"] == 1
        hosts.said("producer", "rollback")
        wait_until(lambda: run.answers_come() == 1, "answers from the old index")
    assert json.loads(hosts.said("producer", "status", "--json"))["rollback"] is None
    run.judge(1, {})
    # And nothing is left of the other index when it is dropped
    hosts.said("producer", "reindex", "--drop-old")
    run.judge_rest()


class _Run:
    def __init__(self, hosts: Hosts, pair: Pair, victims: tuple[str, ...]) -> None:
        self.hosts = hosts
        self.pair = pair
        self.notes = Notes(hosts.root / "folder")
        self.traffic = Traffic(self.notes, asking(hosts.url("query")), {1: 32, 2: 16})
        self._victims = victims
        self._turn = 0

    def kill_at(self, step: str, *command: str) -> None:
        """The command, and whoever's turn it is; the others are started again."""
        if step == _FILLING:
            self._kill_filling(command)
        else:
            done = self.hosts.run("producer", *command, HEADWATER_FAILPOINTS=f"{step}=kill")
            assert done.returncode == -signal.SIGKILL, f"{step}: {done.stdout}{done.stderr}{self.hosts.logs()}"
        if self._victims:
            self._kill(self._victims[self._turn % len(self._victims)])
            self._turn += 1
        wait_until(lambda: not self._parts(), "nothing of it is left")

    def _kill_filling(self, command: tuple[str, ...]) -> None:
        """As soon as the new collection is there."""
        process = self.hosts.start("reindex", *command, HEADWATER_STATE_DIR=str(self.hosts.state("producer")))
        wait_until(lambda: f"{_NAME}.g2" in self._collections(), "the new collection is made")
        assert process.poll() is None, self.hosts.log("reindex")
        self.hosts.kill("reindex")

    def _parts(self) -> dict[int, str]:
        """Parts that a reindex or rollback started."""
        return {
            pid: command
            for pid, command in pids_with(str(self.hosts.state("producer"))).items()
            if "headwater work" in command
        }

    def _kill(self, victim: str) -> None:
        if victim == "broker":
            self.pair.broker.restart()
        elif victim == "qdrant":
            with self.traffic.without_index():
                self.pair.qdrant.restart()
        else:
            self.hosts.kill(victim)
            self.hosts.start(victim, {"worker": "work", "producer": "watch"}[victim])

    def answers_come(self) -> int:
        """Which generation gives the next answers."""
        before = self.traffic.answers.copy()
        wait_until(lambda: (self.traffic.answers - before).total() >= 3, "answers")
        assert not self.traffic.wrong, self.traffic.wrong[:5]
        return (self.traffic.answers - before).most_common(1)[0][0]

    def judge(self, generation: int, settings: dict[str, str]) -> None:
        """At rest, no answer was wrong, and the index is as if it had been made anew."""
        hosts = self.hosts
        assert not self.traffic.wrong, self.traffic.wrong[:5]
        assert Pointer.read(Layout(hosts.state("producer"))).generation == generation
        assert self._aliases() == {_NAME: f"{_NAME}.g{generation}"}
        wait_until(lambda: hosts.in_step("producer", generation, checked=True), f"at rest {hosts.logs()}")
        assert all(process.poll() is None for process in hosts.running.values()), hosts.logs()
        fresh = f"fresh-{generation}"
        hosts.said(fresh, "up", str(self.notes.folder), "--once", HEADWATER_COLLECTION=fresh, **settings)
        found, wanted = (_plain(raw_points(_servers(self.pair), name)) for name in (_NAME, fresh))
        assert found == wanted
        _servers(self.pair).drop(fresh)

    def judge_rest(self) -> None:
        """Neither collections, aliases, keys nor files of the other index."""
        state = self.hosts.state("producer")
        assert self._collections() == {f"{_NAME}.g1"}
        assert self._aliases() == {_NAME: f"{_NAME}.g1"}
        with self.pair.broker.client() as broker:
            assert [key for key in broker.keys("*") if b".g2" in key] == []
            assert [value for value in broker.hvals("unacked") if b".g2" in value] == []
        assert [*state.glob("generations/*"), *state.glob("re*.json"), *state.rglob("*.tmp")] == []

    def _collections(self) -> set[str]:
        with _servers(self.pair).qdrant() as client:
            return {one.name for one in client.get_collections().collections}

    def _aliases(self) -> dict[str, str]:
        with _servers(self.pair).qdrant() as client:
            return {one.alias_name: one.collection_name for one in client.get_aliases().aliases}


def _servers(pair: Pair) -> Servers:
    return Servers(pair.broker.url, pair.qdrant.url)


def _plain(points: list[dict[str, Any]]) -> dict[str, Any]:
    """What must be alike in two indexes of one folder: all but the numbers of versions."""
    return {
        point["id"]: (
            {**point["payload"], "seq": 0},
            point["vector"].get("dense"),
            _terms(point["vector"].get("sparse")),
        )
        for point in points
    }


def _terms(sparse: Any) -> Any:
    return None if sparse is None else sorted(zip(sparse.indices, sparse.values, strict=True))
