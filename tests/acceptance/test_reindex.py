"""Reindex and rollback while people ask and edit: every answer is whole and of one index, whatever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater, pids_with, wait_until
from word_embedder import MODEL

from headwater import Index
from headwater.failpoints import MOVING
from headwater.generations import serve
from headwater.state import Layout, Pointer, Service

_NOTES = 12
#: the word embedder gives vectors of this many numbers; half of them are another configuration, of which scores differ
_SMALLER = ("--set", "truncate_dim=16")
_TEXT = "the sentinel of this note"


def _fill(folder: Path) -> None:
    for number in range(_NOTES):
        (folder / f"{number:02}.md").write_text(_note(number, "as it was"))


def _note(number: int, edit: str) -> str:
    return f"# Note {number}\n\nThe sentinel of this note is w{number}w. It is {edit}.\n"


@dataclass
class Traffic:
    """People who ask and edit without a pause, in threads of this process."""

    run: Headwater
    url: str
    #: answers by generation
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    edits: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def ask_over_http(self) -> None:
        """A new connection each time."""
        body = json.dumps({"text": _TEXT, "limit": _NOTES, "mode": "dense"}).encode()
        self._repeat(lambda: json.loads(urllib.request.urlopen(f"{self.url}/v1/search", body, timeout=60).read()))

    def ask_in_python(self) -> None:
        """One connection for as long as it lasts."""
        with Index.open(state_dir=self.run.state) as index:
            self._repeat(lambda: index.search(_TEXT, _NOTES, "dense").to_dict())

    def _repeat(self, ask: Callable[[], dict[str, Any]]) -> None:
        while not self._ended.wait(0.04):
            try:
                self._judge(ask())
            except Exception as error:  # whatever it is, a question was not answered
                self.wrong.append(repr(error))

    def _judge(self, answer: dict[str, Any]) -> None:
        self.answers[answer["freshness"]["generation"]] += 1
        if len({hit["path"] for hit in answer["hits"]}) != _NOTES:
            self.wrong.append(f"{len(answer['hits'])} hits")

    def edit(self) -> None:
        while not self._ended.wait(0.15):
            self.edits += 1
            number = self.edits % _NOTES
            (self.run.folder / f"{number:02}.md").write_text(_note(number, f"edit {self.edits}"))

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        threads = [threading.Thread(target=step) for step in (self.ask_over_http, self.ask_in_python, self.edit)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def run(headwater: Headwater) -> Headwater:
    _fill(headwater.folder)
    headwater.environment["HEADWATER_SANDBOXES"] = "1"
    return headwater


def _traffic(run: Headwater) -> Traffic:
    return Traffic(run, run.peek()["api"])


def _reindex(run: Headwater, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run.run("reindex", "--folder", str(run.folder), "--state-dir", str(run.state), *arguments, check=check)


def test_nobody_notices_a_reindex_and_a_rollback(run: Headwater) -> None:
    # Given a service that people ask and edit for
    run.up()
    with _traffic(run).flowing() as traffic:
        # When it moves to another configuration and back
        said = [json.loads(line) for line in _reindex(run, *_SMALLER, "--json").stdout.splitlines()]
        moved = traffic.answers[2]
        wait_until(lambda: traffic.answers[2] > moved + 20, "answers from the new index")
        assert run.status()["generation"] == 2
        run.run("rollback", "--state-dir", str(run.state))
        back = traffic.answers.copy()
        wait_until(lambda: traffic.answers[1] > back[1] + 20, "answers from the old index again")
    # Then no question failed, no answer was empty, and nothing was left out
    assert not traffic.wrong, traffic.wrong[:5]
    assert set(traffic.answers) == {1, 2} and traffic.edits > 20
    compared = next(line for line in said if line.get("event") == "compared")
    assert compared["documents"] == {"old": _NOTES, "new": _NOTES} and compared["missing"] == 0
    # And both hold the last edits, the one that waits as soon as it is asked for again
    run.wait_in_step()
    status = run.status()
    assert (status["generation"], status["previous_generation"], status["answering"]) == (1, 2, 1)
    assert status["health"] == "ok" and status["notes"] == []
    last = run.search(f"edit {traffic.edits}", "--mode", "sparse", "--limit", "1")[0]
    assert f"edit {traffic.edits}" in last["text"]
    assert run.stop() == 0


def _killed(run: Headwater, name: str, token: Path) -> dict[str, str]:
    """An environment in which whoever reaches this place first is killed there."""
    token.touch()
    return {**run.environment, "HEADWATER_FAILPOINTS": f"{name}=kill@{token}"}


def _all_found(run: Headwater) -> int:
    """Every note is found by its words, in an index opened here; the generation that answered."""
    with Index.open(state_dir=run.state, model=MODEL) as index:
        hits = index.search(_TEXT, 2 * _NOTES, "dense")
    assert {hit.path for hit in hits} == {f"{number:02}.md" for number in range(_NOTES)}
    return hits.freshness.generation


@pytest.mark.timeout(300)
@pytest.mark.long
def test_killed_at_any_step_it_goes_on(run: Headwater, make_headwater: Callable[[Path, Path], Headwater]) -> None:
    run.once()
    calm = dict(run.environment)
    token = run.state.with_name("token")
    # When a reindex is killed at each of its steps in turn, and a file is edited after each
    for step, name in enumerate(name for name in MOVING if name.startswith("reindex:")):
        run.environment = _killed(run, name, token)
        settings = _SMALLER if step == 0 else ()  # what was asked for is noted
        assert _reindex(run, *settings, check=False).returncode == -signal.SIGKILL, name
        wait_until(lambda: pids_with(str(run.state)) == {}, "nothing of it is left")
        run.environment = calm
        # Then the old index answers until the move, and the new one afterwards
        assert _all_found(run) == (2 if name == "reindex:moved" else 1), name
        (run.folder / "00.md").write_text(_note(0, f"edited after {name}"))
    # And the next one ends it
    assert json.loads(_reindex(run, "--json").stdout.splitlines()[-1])["event"] == "moved"
    # And when it goes back, and the service is killed at each step of that
    Pointer(1, 2, time.time()).write(Layout(run.state))
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
    anew.environment = calm
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
