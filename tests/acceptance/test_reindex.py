"""Reindex and rollback while people ask and edit: every answer is whole and of one index, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater, pids_with, wait_until
from hosts import asking
from notes import NOTES, TEXT, Notes, Traffic
from word_embedder import MODEL

from headwater.failpoints import MOVING
from headwater.generations import serve
from headwater.state import Layout, Pointer, Service

#: half as many numbers as the word embedder gives are another configuration, whose scores differ
_SMALLER = ("--set", "truncate_dim=16")
_DIMENSIONS = {1: 32, 2: 16}
#: steps that an embedded index does not pass
_ON_SERVERS = ("reindex:told", "move:alias")


@pytest.fixture
def run(of_notes: Headwater) -> Headwater:
    return of_notes


@contextmanager
def _flowing(run: Headwater) -> Iterator[list[Traffic]]:
    """People who edit and ask: over HTTP, with a new connection each time, and in Python, with one for all."""
    notes = Notes(run.folder)
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(run.open_index())
        both = [
            Traffic(notes, asking(run.peek()["api"]), _DIMENSIONS),
            Traffic(notes, lambda **question: index.search(**question).to_dict(), _DIMENSIONS, edits=False),
        ]
        for traffic in both:
            stack.enter_context(traffic.flowing())
        yield both


def _reindex(run: Headwater, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run.run("reindex", "--folder", str(run.folder), "--state-dir", str(run.state), *arguments, check=check)


def test_nobody_notices_a_reindex_and_a_rollback(run: Headwater) -> None:
    # Given a service that people ask and edit for
    run.up()
    with _flowing(run) as both:
        # When it moves to another configuration and back
        said = [json.loads(line) for line in _reindex(run, *_SMALLER, "--json").stdout.splitlines()]
        for traffic in both:
            moved = traffic.answers[2]
            wait_until(lambda asked=traffic, moved=moved: asked.answers[2] > moved + 10, "answers from the new index")
        assert run.status()["generation"] == 2
        run.run("rollback", "--state-dir", str(run.state))
        for traffic in both:
            back = traffic.answers[1]
            wait_until(
                lambda asked=traffic, back=back: asked.answers[1] > back + 10, "answers from the old index again"
            )
    # Then no question failed, and each answer was whole and of one index
    for traffic in both:
        assert not traffic.wrong, traffic.wrong[:5]
        assert set(traffic.answers) == {1, 2}
    compared = next(line for line in said if line.get("event") == "compared")
    assert compared["documents"] == {"old": NOTES, "new": NOTES} and compared["missing"] == 0
    # And both hold the last edits, the one that waits as soon as it is asked for again
    run.wait_in_step()
    status = run.status()
    assert (status["generation"], status["previous_generation"], status["answering"]) == (1, 2, 1)
    assert status["health"] == "ok" and status["notes"] == []
    last = max(map(int, Notes(run.folder).numbers()))
    found = run.search(f"edit {last}", "--mode", "sparse", "--limit", "1")[0]
    assert last > 20 and f"edit {last}" in found["text"]
    assert run.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("of_notes", ["embedded"], indirect=True)
def test_while_the_service_hands_over_the_index_that_answers_is_verified(run: Headwater) -> None:
    run.once()
    assert _reindex(run, *_SMALLER).returncode == 0
    run.run("rollback", "--state-dir", str(run.state), "--now")
    serve(Layout(run.state, 2))  # the one that answered last
    # Given a service that has begun to go back, and takes its time
    calm = dict(run.environment)
    run.environment["HEADWATER_FAILPOINTS"] = "up:beside=sleep25"
    run.up(in_step=False)
    run.environment = calm
    wait_until(lambda: (run.state / "logs" / "worker.log").stat().st_size and _answering(run) == 2, "the service")
    wait_until(lambda: Pointer.read(Layout(run.state)).generation == 1, "the pointer")
    # Then what it answers from is compared with its own ledger and model
    done = run.run("verify", "--json", "--state-dir", str(run.state), check=False)
    assert done.returncode == 0 and _answering(run) == 2, (done.stdout, done.stderr)
    wait_until(lambda: _answering(run) == 1, "the way back")
    assert run.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("of_notes", ["servers"], indirect=True)
def test_a_service_follows_an_alias_that_was_moved_by_a_command_that_was_killed(run: Headwater) -> None:
    run.up()
    calm = dict(run.environment)
    run.environment = {**calm, "HEADWATER_FAILPOINTS": "move:alias=kill"}
    assert _reindex(run, *_SMALLER, check=False).returncode == -signal.SIGKILL
    run.environment = calm
    wait_until(lambda: run.alive() and _answering(run) == 2, "the service follows")
    # And the same command has nothing more to do than to say so
    assert json.loads(_reindex(run, "--json").stdout.splitlines()[-1])["event"] == "moved"
    assert Pointer.read(Layout(run.state)) == Pointer(2, 1, Pointer.read(Layout(run.state)).moved_at)
    assert not Layout(run.state).reindex.exists()
    assert run.stop() == 0


def _killed(run: Headwater, name: str, token: Path) -> dict[str, str]:
    """An environment in which whoever reaches this place first is killed there."""
    token.touch()
    return {**run.environment, "HEADWATER_FAILPOINTS": f"{name}=kill@{token}"}


def _all_found(run: Headwater) -> int:
    """Every note is found by its words, in an index opened here; the generation that answered."""
    with run.open_index(model=MODEL) as index:
        hits = index.search(TEXT, 4 * NOTES, "dense")
    judge = Traffic(Notes(run.folder, edits=100), asking(""), _DIMENSIONS)
    assert judge.fault_of(hits.to_dict()) is None
    return hits.freshness.generation


@pytest.mark.timeout(600)
@pytest.mark.long
def test_killed_at_any_step_it_goes_on(run: Headwater, make_headwater: Callable[[Path, Path], Headwater]) -> None:
    run.once()
    calm = dict(run.environment)
    token = run.state.with_name("token")
    # When a reindex is killed at each of its steps in turn, and a file is edited after each
    steps = [name for name in MOVING if name.startswith(("reindex:", "move:"))]
    for step, name in enumerate(name for name in steps if run.servers is not None or name not in _ON_SERVERS):
        run.environment = _killed(run, name, token)
        settings = _SMALLER if step == 0 else ()  # what was asked for is noted
        assert _reindex(run, *settings, check=False).returncode == -signal.SIGKILL, name
        wait_until(lambda: pids_with(str(run.state)) == {}, "nothing of it is left")
        run.environment = calm
        # Then the old index answers until the move, and the new one afterwards
        assert _all_found(run) == (2 if name in ("move:pointer", "reindex:moved") else 1), name
        Notes(run.folder).write(0, step + 1)
    # And the next one ends it
    assert json.loads(_reindex(run, "--json").stdout.splitlines()[-1])["event"] == "moved"
    # And when it goes back, and the service is killed at each step of that
    run.run("rollback", "--state-dir", str(run.state), "--now")
    Pointer(1, 2, time.time()).write(Layout(run.state))  # which waits until it has caught up
    for name in (name for name in MOVING if name.startswith("up:")):
        serve(Layout(run.state, 2))  # it answered last: the next one begins with it
        run.environment = _killed(run, name, token)
        run.up(in_step=False)
        assert run.process is not None and run.process.wait(60) == -signal.SIGKILL, name
        wait_until(lambda: pids_with(str(run.state)) == {}, "no process outlives it")
        run.environment = calm
    # Then the last one gets there, and the index is as if it had been made anew
    serve(Layout(run.state, 2))
    run.up(in_step=False)
    wait_until(lambda: run.alive() and _answering(run) == 1, "the way back")
    assert run.stop() == 0
    anew = make_headwater(run.folder, run.state.with_name("anew"))
    anew.environment, anew.servers = calm, run.servers
    anew.once()
    assert _plain(run.points()) == _plain(anew.points())


def _answering(run: Headwater) -> int | None:
    service = Service.read(Layout(run.state))
    return None if service is None else service.generation


def _plain(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {point["id"]: ({**point["payload"], "seq": 0}, point["vector"].get("dense")) for point in points}


def test_what_cannot_be_done_is_one_sentence(run: Headwater) -> None:
    done = run.run("rollback", "--state-dir", str(run.state), check=False)
    assert done.returncode == 78 and "no index to go back to" in done.stderr
    done = _reindex(run, *_SMALLER, check=False)
    assert done.returncode == 78 and "no index" in done.stderr
    done = _reindex(run, "--set", "port=5", check=False)
    assert done.returncode == 78 and "NAME" in done.stderr
