"""The options of reindex and rollback, on an embedded index and on servers, without a service that runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater
from notes import NOTES, Notes
from server_mode import collection_of

from headwater.generations import Note, pins
from headwater.state import Layout, Pointer

_SMALLER = ("--set", "truncate_dim=16")


@pytest.fixture
def run(of_notes: Headwater) -> Headwater:
    """A folder of notes that is indexed."""
    of_notes.once()
    return of_notes


def _reindex(run: Headwater, *arguments: str, status: int = 0) -> str:
    """What it says: on the standard output, or the one sentence of a failure."""
    done = run.run("reindex", "--state-dir", str(run.state), *arguments, check=False)
    assert done.returncode == status, done.stdout + done.stderr + run.logs()
    return done.stderr.strip().rpartition("\n")[2] if status else done.stdout


def _compared(said: str) -> dict[str, Any]:
    return next(line for line in map(json.loads, said.splitlines()) if line.get("event") == "compared")


def _current(run: Headwater) -> int:
    return Pointer.read(Layout(run.state)).generation


def test_what_is_compared_decides_and_a_cancelled_reindex_leaves_nothing(run: Headwater, tmp_path: Path) -> None:
    queries, judged = tmp_path / "queries.txt", tmp_path / "judged.tsv"
    queries.write_text("".join(f"w{number}w and another line\n" for number in range(NOTES)))
    judged.write_text("".join(f"the sentinel w{number}w\t{number}.md\n" for number in range(NOTES)))
    # When both must find the same, which they do not, Then one sentence refuses the move
    said = _reindex(run, *_SMALLER, "--queries", str(queries), "--min-overlap", "1", status=78)
    assert "not moved" in said and "--min-overlap asks for 1.00" in said and _current(run) == 1
    # When it is only to be compared, Then it goes on where it was, and says what the answers are worth
    compared = _compared(
        _reindex(run, "--check-only", "--queries", str(queries), "--evaluation", str(judged), "--json")
    )
    assert compared["overlap@10"]["queries"] == NOTES and 0 < compared["overlap@10"]["mean"] < 1
    assert set(compared["measures"]) == {"ndcg@10", "recall@10"}
    assert all(set(values) == {"old", "new"} for values in compared["measures"].values())
    assert _current(run) == 1 and run.status()["reindex"]["phase"] == "checked"
    # When files of queries cannot be used, Then a sentence says so
    said = _reindex(run, "--queries", str(tmp_path / "absent.txt"), status=78)
    assert "absent.txt" in said and "cannot be read" in said
    said = _reindex(run, "--set", "truncate_dim=8", status=78)
    assert "under way" in said and "--cancel" in said
    # When it is given up, Then nothing of it is left
    assert "removed" in _reindex(run, "--cancel")
    _assert_nothing_left(run)
    assert "no reindex is under way" in _reindex(run, "--cancel")
    assert len(run.search("sentinel", "--mode", "sparse", "--limit", "50")) == NOTES


def _assert_nothing_left(run: Headwater) -> None:
    layout = Layout(run.state)
    assert Note.read(layout) is None and pins(layout) == {}
    assert [*run.state.glob("generations/*"), *run.state.glob("re*.json")] == []
    if run.servers is None:
        return
    name = collection_of(run.state)
    with run.servers.qdrant() as client:
        assert [one.name for one in client.get_collections().collections if one.name.startswith(name)] == [f"{name}.g1"]
        metadata = client.get_collection(f"{name}.g1").config.metadata
        assert metadata is not None and json.loads(metadata["headwater_pins"]) == {}
    with run.servers.broker() as broker:
        assert [key for key in broker.keys("*") if f"{name}.g2".encode() in key] == []


def test_the_way_back_may_be_taken_at_once(run: Headwater) -> None:
    # When a reindex is killed in the middle of its move, Then it cannot be given up any more, and goes on
    calm, step = dict(run.environment), "reindex:moved" if run.servers is None else "move:alias"
    run.environment["HEADWATER_FAILPOINTS"] = f"{step}=kill"
    _reindex(run, *_SMALLER, "--min-overlap", "0", status=-signal.SIGKILL)
    run.environment = calm
    assert "has been moved to generation 2 already" in _reindex(run, "--cancel", status=78)
    _reindex(run)
    assert _current(run) == 2 and Pointer.read(Layout(run.state)).previous == 1
    # When it is gone back at once, Then the index is the one before it, as it was, and catches up at the next start
    Notes(run.folder).write(3, 77)
    done = run.run("rollback", "--now", "--json", "--state-dir", str(run.state))
    assert json.loads(done.stdout)["generation"] == 1 and _current(run) == 1
    assert run.search("77", "--mode", "sparse") == []
    run.once()
    assert {hit["path"] for hit in run.search("77", "--mode", "sparse")} == {"3.md"}
    # And the other one goes when it is told to, once
    assert json.loads(_reindex(run, "--drop-old", "--json"))["dropped"] == [2]
    assert "nothing" in _reindex(run, "--drop-old")
    done = run.run("rollback", "--state-dir", str(run.state), check=False)
    assert done.returncode == 78 and "no index to go back to" in done.stderr
