"""kill -9 in the middle of the first ingest: after a restart the index is that of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import Headwater, pids_with, wait_until
from server_mode import embedded_only

#: chapters of the book that make a first ingest of some ten seconds
_CHAPTERS = "ch0[4-6]*.md"

Make = Callable[[Path, Path], Headwater]


@pytest.fixture(scope="module")
def chapters(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chapters") / "folder"
    folder.mkdir()
    for chapter in book.glob(_CHAPTERS):
        shutil.copy2(chapter, folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(chapters: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Status and points of a run that nothing disturbed."""
    run = Headwater(chapters, tmp_path_factory.mktemp("undisturbed") / "state")
    run.once()
    return run.status(), {point["id"]: point for point in run.points()}


def _kill_worker(run: Headwater) -> None:
    for pid in run.children("headwater work"):
        os.kill(pid, signal.SIGKILL)


def _kill_broker(run: Headwater) -> None:
    for pid in run.children("valkey-server"):
        os.kill(pid, signal.SIGKILL)


def _kill_producer(run: Headwater) -> None:
    for pid in run.children("headwater watch"):
        os.kill(pid, signal.SIGKILL)


def _kill_up(run: Headwater) -> None:
    assert run.process is not None
    run.process.kill()
    run.process.wait()
    wait_until(lambda: pids_with(str(run.state)) == {}, "no process outlives kill -9 of up")
    run.up(in_step=False)


_BROKER = pytest.param(_kill_broker, marks=embedded_only("the broker is not ours to kill"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("disturb", [_kill_worker, _BROKER, _kill_producer, _kill_up])
def test_the_index_is_as_if_nothing_had_happened(
    disturb: Callable[[Headwater], None],
    chapters: Path,
    undisturbed: tuple[dict[str, Any], dict[str, Any]],
    make_headwater: Make,
    tmp_path: Path,
) -> None:
    # Given a first ingest that is under way
    status, expected = undisturbed
    run = make_headwater(chapters, tmp_path / "state")
    run.up(in_step=False)
    wait_until(lambda: 0 < run.peek()["chunks"] < status["chunks"] * 0.8, "the middle of the first ingest")
    # When a part is killed
    disturb(run)
    run.wait_in_step()
    # Then the index is the same, and what it held was not embedded again
    after = run.status()
    assert after["documents"] == status["documents"]
    assert after["chunks"] == status["chunks"]
    _assert_equal({point["id"]: point for point in run.points()}, expected)
    assert run.stop() == 0


def _assert_equal(points: dict[str, Any], expected: dict[str, Any]) -> None:
    assert points.keys() == expected.keys()
    for identity, point in points.items():
        other = expected[identity]
        assert {**point["payload"], "seq": 0} == {**other["payload"], "seq": 0}
        assert ("dense" in point["vector"]) == ("dense" in other["vector"])
        if "dense" in point["vector"]:
            assert np.abs(np.subtract(point["vector"]["dense"], other["vector"]["dense"])).max() < 1e-3


def test_what_the_index_holds_is_not_embedded_again_after_a_crash(
    chapters: Path, undisturbed: tuple[dict[str, Any], dict[str, Any]], make_headwater: Make, tmp_path: Path
) -> None:
    # Given an ingest that is killed as a whole in its middle
    status, _ = undisturbed
    run = make_headwater(chapters, tmp_path / "state")
    run.up(in_step=False)
    wait_until(lambda: status["chunks"] * 0.3 < run.peek()["chunks"] < status["chunks"] * 0.9, "the middle")
    assert run.process is not None
    run.process.kill()
    run.process.wait()
    wait_until(lambda: pids_with(str(run.state)) == {}, "no process is left")
    held = {point["payload"]["text_hash"] for point in run.points() if "text" in point["payload"]}
    before = run.status()["embedded_texts_total"]
    # When it runs again
    run.once()
    # Then only texts that the index did not hold were embedded
    texts = {point["payload"]["text_hash"] for point in run.points() if "text" in point["payload"]}
    assert len(held) > 0
    assert run.status()["embedded_texts_total"] - before <= len(texts) - len(held)
