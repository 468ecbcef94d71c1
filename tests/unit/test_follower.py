"""From the folder to the ledger's wants, with a real folder and ledger, a watcher that is told what it watches, and a
clock that is set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from headwater.settings import Settings
from producer.follower import Follower
from producer.ledger import Ledger
from producer.rules import Rules
from producer.scanner import Scanner
from producer.watcher import Watcher


@dataclass
class Clock:
    """Stands in for the module ``time``."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Watches:
    """A watcher as the follower sees it."""

    watched: set[bytes]

    def watches(self, path: bytes) -> bool:
        return path in self.watched


@dataclass
class World:
    root: Path
    clock: Clock
    watches: Watches = field(default_factory=lambda: Watches({b""}))
    notes: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.root.with_name("ledger.sqlite3"))
        scanner = Scanner(os.fsencode(self.root), Rules(os.fsencode(self.root)))
        settings = Settings.load(folder=self.root)
        watcher = cast(Watcher, self.watches)
        self.follower = Follower(settings, self.ledger, scanner, watcher, self._note)

    def _note(self, part: str, reason: str | None) -> None:
        self.notes[part] = reason

    def pass_by(self, seconds: float) -> None:
        self.clock.now += seconds
        self.follower.keep_up()

    def known(self) -> set[bytes]:
        return set(self.ledger.known())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    clock = Clock()
    monkeypatch.setattr("producer.follower.time", clock)
    (tmp_path / "root").mkdir()
    made = World(tmp_path / "root", clock)
    (made.root / "a.md").write_text("one")
    made.follower.scan("the start")
    yield made
    made.ledger.close()


def make(world: World, name: str) -> None:
    (world.root / name).parent.mkdir(parents=True, exist_ok=True)
    (world.root / name).write_text(name)


def test_a_new_directory_that_gets_no_watch_is_polled(world: World) -> None:
    # Given a new directory that is seen, but whose watch is refused
    make(world, "new/b.md")
    world.follower.look(frozenset({b"new"}))
    # When more comes into it, and below it, and nobody tells
    make(world, "new/c.md")
    make(world, "new/deep/d.md")
    world.pass_by(2.1)
    assert world.notes["watch"] is not None
    assert world.notes["watch"].startswith("1 of 2 directories are not watched")
    world.pass_by(10.1)
    # Then it is found all the same
    assert world.known() == {b"a.md", b"new/b.md", b"new/c.md", b"new/deep/d.md"}
    # And once it is gone, so is the warning
    for path in sorted((world.root / "new").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (world.root / "new").rmdir()
    world.pass_by(10.1)
    world.pass_by(2.1)
    assert (world.known(), world.notes["watch"]) == ({b"a.md"}, None)


def test_a_new_directory_that_is_watched_is_not_polled(world: World) -> None:
    make(world, "new/b.md")
    world.watches.watched.add(b"new")
    world.follower.look(frozenset({b"new"}))
    make(world, "new/c.md")
    for _ in range(10):
        world.pass_by(2.1)
    assert world.notes.get("watch") is None
    assert world.known() == {b"a.md", b"new/b.md"}


def test_a_directory_that_comes_back_without_a_watch_is_polled(world: World) -> None:
    make(world, "new/b.md")
    world.watches.watched.add(b"new")
    world.follower.look(frozenset({b"new"}))
    world.pass_by(2.1)
    # When it goes and comes back, and no watch is left for it
    world.watches.watched.discard(b"new")
    world.follower.look(frozenset({b"new"}))
    make(world, "new/c.md")
    world.pass_by(2.1)
    world.pass_by(10.1)
    assert world.known() == {b"a.md", b"new/b.md", b"new/c.md"}
