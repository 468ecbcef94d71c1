"""Kept vectors: found again exactly, forgotten in time, and never another text's, whatever happens to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from worker import kept
from worker.kept import KeptVectors

DIMENSION = 384


def unit(seed: int) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).normal(size=DIMENSION)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def store(path: Path, model: str = "model@1", keep_s: float = 100.0) -> KeptVectors:
    return KeptVectors(path / "kept.sqlite3", model, keep_s)


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(kept, "time", made)
    return made


def test_what_is_kept_is_found_to_the_last_bit_after_a_restart(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.keep({f"h{n}": unit(n) for n in range(1200)})
    first.close()
    found = store(tmp_path).find([f"h{n}" for n in range(0, 2000, 2)])
    assert set(found) == {f"h{n}" for n in range(0, 1200, 2)}
    assert all(np.array_equal(vector, unit(int(name[1:]))) for name, vector in found.items())


def test_another_model_finds_nothing(tmp_path: Path) -> None:
    store(tmp_path).keep({"a": unit(1)})
    assert store(tmp_path, "model@2").find(["a"]) == {}


def test_what_is_older_than_the_time_goes(tmp_path: Path, clock: Clock) -> None:
    store(tmp_path).keep({"old": unit(1)})
    clock.now += 90
    store(tmp_path).keep({"new": unit(2)})
    clock.now += 20
    later = store(tmp_path)
    later.keep({"newest": unit(3)})
    assert set(later.find(["old", "new", "newest"])) == {"new", "newest"}


def test_only_so_many_are_kept_the_latest(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 10)
    monkeypatch.setattr(kept, "_PRUNE_EVERY", 1)
    made = store(tmp_path)
    for number in range(30):
        clock.now += 1
        made.keep({f"h{number}": unit(number)})
    found = made.find([f"h{n}" for n in range(30)])
    assert {f"h{n}" for n in range(20, 30)} <= set(found)
    assert len(found) <= 11  # what was added last came after the look


@pytest.mark.parametrize("seed", range(8))
def test_a_spoilt_file_gives_no_wrong_vector_and_is_made_anew(tmp_path: Path, seed: int) -> None:
    made = store(tmp_path)
    vectors = {f"h{n}": unit(n) for n in range(50)}
    made.keep(vectors)
    made.close()
    # Given a file with some bytes of it changed
    chance = np.random.default_rng(seed)
    file = tmp_path / "kept.sqlite3"
    data = bytearray(file.read_bytes())
    for place in chance.integers(0, len(data), size=40):
        data[place] ^= int(chance.integers(1, 256))
    file.write_bytes(data)
    # Then what is found is right, and what is kept next is found
    after = store(tmp_path)
    for name, vector in after.find(list(vectors)).items():
        assert np.array_equal(vector, vectors[name])
    after.keep(vectors)
    after.keep(vectors)
    assert len(after.find(list(vectors))) == 50


def test_without_a_place_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    nowhere = store(tmp_path / "not there")
    nowhere.keep({"a": unit(1)})
    assert nowhere.find(["a"]) == {}
    (tmp_path / "kept.sqlite3").mkdir()
    blocked = store(tmp_path)
    blocked.keep({"a": unit(1)})
    assert blocked.find(["a"]) == {}
    blocked.close()
