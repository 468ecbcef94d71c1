"""The home of an extraction child: bounded, and emptied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker import homes
from worker.homes import Home, TooMuchWritten


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(homes, "MOST_BYTES", 1024 * 1024)
    monkeypatch.setattr(homes, "MOST_ENTRIES", 20)
    made = Home(tmp_path / "home")
    made.make()
    return made


def test_a_home_is_empty_and_private(home: Home) -> None:
    (home.path / "old").write_text("x")
    home.make()
    assert list(home.path.iterdir()) == []
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_several_files_may_not_be_larger_together_than_one_home(home: Home) -> None:
    below = home.path / "a" / "b"
    below.mkdir(parents=True)
    for number in range(2):
        (below / str(number)).write_bytes(bytes(400 * 1024))
        home.check(os.getpid())
    (below / "2").write_bytes(bytes(400 * 1024))
    with pytest.raises(TooMuchWritten):
        home.check(os.getpid())


def test_many_empty_files_are_too_much(home: Home) -> None:
    for number in range(21):
        (home.path / str(number)).touch()
    with pytest.raises(TooMuchWritten):
        home.check(os.getpid())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are seen in /proc only")
def test_a_file_without_a_name_counts(home: Home) -> None:
    with open(home.path / "gone", "wb") as file:
        file.write(bytes(2 * 1024 * 1024))
        file.flush()
        os.unlink(file.name)
        with pytest.raises(TooMuchWritten):
            home.check(os.getpid())
    home.check(os.getpid())


def test_tidying_follows_no_link(home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (home.path / "link").symlink_to(outside)
    (home.path / "directory").mkdir()
    (home.path / "directory" / "file").write_text("x")
    home.check(os.getpid())
    home.tidy()
    assert list(home.path.iterdir()) == []
    assert (outside / "kept").exists()
