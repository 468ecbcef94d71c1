"""Compaction of the embedded index: the same points before, during and after, whatever is written and whoever dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import wait_until
from versions import DIMENSION, MODEL, texts_of, vector, version
from wear import contents, wear_out

from headwater import index_process
from headwater.compaction import size_of
from headwater.document import document_id
from headwater.engine import EngineProcess
from headwater.errors import DiskFull, IndexUnavailable
from headwater.index import SearchQuery, SeenPoint
from headwater.index_edge import EdgeIndex
from headwater.index_process import ProcessIndex


def open_process_index(directory: Path, told: list[str]) -> ProcessIndex:
    index = ProcessIndex(directory / "index", directory / "index.json", on_damage=told.append)
    index.ensure_schema(MODEL, DIMENSION)
    return index


@pytest.fixture
def told() -> list[str]:
    """What the index told of damage."""
    return []


@pytest.fixture
def index(index_directory: Path, told: list[str]) -> Iterator[ProcessIndex]:
    made = open_process_index(index_directory, told)
    yield made
    made.close()


def test_a_compaction_changes_no_point(index: ProcessIndex, index_directory: Path) -> None:
    # Given an index most of whose points were deleted
    wear_out(index)
    before = contents(index)
    assert len(before) == 20 * 6
    # When it is compacted, twice
    assert index.compact()
    assert not index.compact(), "nothing is left to do"
    # Then the same points are there and found, now and by whoever opens it next
    assert contents(index) == before
    [best, *_] = index.search(SearchQuery("dense", 3, dense=vector("text 2 of 30")))
    assert best.payload["text"] == "text 2 of 30"
    index.close()
    edge = EdgeIndex(index_directory / "index", index_directory / "index.json")
    edge.open_existing()
    assert contents(edge) == before
    edge.close()
    assert {path.name for path in index_directory.iterdir()} <= {"index", "index.json", "index.wear.json"}


def test_a_compacted_index_takes_fewer_bytes(tmp_path: Path, told: list[str]) -> None:
    """On a disk: a file system in memory keeps all pages that the engine has ever touched."""
    index = open_process_index(tmp_path, told)
    for number in range(120):
        index.apply(version(f"d{number}", 10 + number, [f"{line} of {number} " * 500 for line in range(20)]))
    for number in range(1, 120):
        index.delete(document_id(f"d{number}".encode()), 1_000)
    index.close()
    worn = size_of(tmp_path / "index")
    index.open_existing()
    assert index.compact()
    index.close()
    assert size_of(tmp_path / "index") < worn


def test_what_is_written_during_a_compaction_is_in_the_compacted_index(index: ProcessIndex) -> None:
    # Given a writer that goes on all the time, with every kind of write, and a model of what must come of it
    wear_out(index)
    expected = {f"d{number}": [f"text {line} of {number}" for line in range(5)] for number in range(0, 60, 3)}
    chance = random.Random(7)
    ended = threading.Event()
    rounds = 0
    failures: list[BaseException] = []

    def write() -> None:
        nonlocal rounds
        while not ended.is_set():
            rounds += 1
            name, seq = f"d{chance.randrange(60)}", 10_000 + rounds
            kind = chance.choice(("apply", "apply", "delete", "sweep", "discard", "stage"))
            if kind == "delete":
                index.delete(document_id(name.encode()), seq)
                expected.pop(name, None)
                continue
            texts = [f"{kind} {line} of {rounds}" for line in range(chance.randrange(1, 9))]
            index.apply(version(name, seq, texts))
            expected[name] = texts
            if kind == "sweep":
                index.sweep([seq])
                del expected[name]
            elif kind == "discard":
                points, _ = index.page(None, document_id(name.encode()))
                index.discard([SeenPoint(point.id, seq) for point in points])
                del expected[name]
            elif kind == "stage":
                index.stage(version(name, seq + 1, [*texts, "staged"]))
                expected[name] = [*texts, "staged"]
                rounds += 1

    def guarded() -> None:
        try:
            write()
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=guarded)
    thread.start()
    # When the index is compacted over and over
    swaps = sum(index.compact() for _ in range(3))
    ended.set()
    thread.join()
    # Then it holds what was written, no more and no less
    assert not failures
    assert swaps, "no compaction had anything to do"
    assert rounds > 100
    for number in range(60):
        held = texts_of(index, f"d{number}")
        assert [held[line] for line in sorted(held)] == expected.get(f"d{number}", []), f"d{number}"
    for point in index.scan(with_vectors=True):
        if point.dense is not None:
            np.testing.assert_allclose(point.dense, vector(point.payload["text"]), atol=1e-5)


def test_searches_are_answered_while_a_compaction_runs(index: ProcessIndex) -> None:
    wear_out(index)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (index.compact(), done.set()))
    thread.start()
    answers = 0
    while not done.is_set():
        [best] = index.search(SearchQuery("dense", 1, dense=vector("text 2 of 30")))
        assert best.payload["text"] == "text 2 of 30"
        answers += 1
    thread.join()
    assert answers > 10


#: where the helpers are found
_TESTS = [str(Path(__file__).parents[1] / "support")]
_COMPACTING = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from versions import DIMENSION, MODEL, version
from wear import contents, wear_out
from headwater.index_process import ProcessIndex
index = ProcessIndex(Path({where!r}) / "index", Path({where!r}) / "index.json", on_damage=print)
index.ensure_schema(MODEL, DIMENSION)
wear_out(index)
index.flush()
print("ready", flush=True)
index.compact()
print("survived", flush=True)
"""


@pytest.mark.parametrize("step", ["copied", "optimized", "caught-up", "swapping", "swapped"])
@pytest.mark.parametrize("reader", [False, True], ids=["worker next", "reader next"])
def test_a_kill_at_any_step_of_a_compaction_loses_nothing(
    index_directory: Path, told: list[str], step: str, reader: bool
) -> None:
    # Given a process that is killed at that step
    script = _COMPACTING.format(tests=_TESTS, where=str(index_directory))
    environment = {**os.environ, "HEADWATER_FAILPOINTS": f"index:{step}=kill"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "ready\n")
    # When a reader opens the index next, or a worker does
    if reader:
        edge = EdgeIndex(index_directory / "index", index_directory / "index.json")
        edge.open_existing()
        assert len(contents(edge)) == 20 * 6
        edge.close()
    index = open_process_index(index_directory, told)
    # Then everything is there, and nothing else lies about
    assert len(contents(index)) == 20 * 6
    assert texts_of(index, "d30") == {line: f"text {line} of 30" for line in range(5)}
    assert index.compact() == (step not in ("swapping", "swapped"))
    index.close()
    assert told == []
    assert {path.name for path in index_directory.iterdir()} <= {"index", "index.json", "index.wear.json"}


def test_an_error_in_the_swap_leaves_the_old_index_in_its_place(index_directory: Path) -> None:
    script = _COMPACTING.format(tests=_TESTS, where=str(index_directory)).replace(
        "index.compact()",
        """try: index.compact()
except OSError as error: print(error.errno)
assert len(contents(index)) == 20 * 6
index.apply(version("new", 5, ["one"]))
assert index.compact()
assert len(contents(index)) == 20 * 6 + 2
index.close()""",
    )
    environment = {**os.environ, "HEADWATER_FAILPOINTS": "index:swapping=error"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (0, "ready\n5\nsurvived\n")


def test_an_index_whose_engine_dies_says_so(index: ProcessIndex, told: list[str]) -> None:
    index.apply(version("a", 1, ["one"]))
    assert index._engine is not None
    os.kill(index._engine.pid, signal.SIGKILL)
    with pytest.raises(IndexUnavailable, match="died by signal 9"):
        index.count()
    assert told == ["the index engine died by signal 9 (Killed)"]
    with pytest.raises(IndexUnavailable, match="is closed"):
        index.count()


class DiesWhenMoved(EngineProcess):
    """An engine that is killed right after it was put in its place."""

    def call(self, method: str, *arguments: Any) -> Any:
        if method == "moved":
            os.kill(self.pid, signal.SIGKILL)
        return super().call(method, *arguments)


def test_a_new_engine_that_dies_in_its_place_loses_nothing(
    index_directory: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an index whose compacted shard is in its place, while its engine dies
    index = open_process_index(index_directory, told)
    wear_out(index)
    monkeypatch.setattr(index_process, "EngineProcess", DiesWhenMoved)
    with pytest.raises(IndexUnavailable, match="died by signal 9"):
        index.compact()
    monkeypatch.undo()
    # When it is written to, then the write is refused and not lost in the directory that is gone
    with pytest.raises(IndexUnavailable, match="died by signal 9"):
        index.apply(version("new", 5, ["one"]))
    assert told == ["the index engine died by signal 9 (Killed)"]
    index.close()
    again = open_process_index(index_directory, told)
    assert len(contents(again)) == 20 * 6
    assert not again.compact(), "it is compacted"
    again.close()


def test_an_engine_ends_with_the_process_that_started_it(index_directory: Path) -> None:
    script = _COMPACTING.format(tests=_TESTS, where=str(index_directory)).replace(
        "index.compact()", "print(index._engine.pid, flush=True); import os; os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert ended.returncode == 9
    pid = int(ended.stdout.split()[1])
    wait_until(lambda: not _is_alive(pid), "the engine has ended", timeout_s=20)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_compaction_without_room_for_the_copy_is_refused(index_directory: Path, told: list[str]) -> None:
    path = index_directory / "index"
    index = ProcessIndex(path, index_directory / "index.json", on_damage=told.append, min_free_bytes=10**18)
    index.ensure_schema(MODEL, DIMENSION)
    wear_out(index)
    with pytest.raises(DiskFull, match="free some space"):
        index.compact()
    assert len(contents(index)) == 20 * 6
    index.close()
