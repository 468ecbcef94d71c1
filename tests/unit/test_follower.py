"""From the folder to the ledger's wants, with a real folder and ledger, a watcher that is told what it watches, and a
clock that is set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from headwater.messages import Outcome
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
    renewals: int = 0

    def renew(self) -> None:
        self.renewals += 1

    def unwatched(self, directories: Iterable[bytes]) -> list[bytes]:
        return sorted(set(directories) - self.watched)


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
    # When more comes into it, and below it, and nobody tells, and to watch all anew does not help
    make(world, "new/c.md")
    make(world, "new/deep/d.md")
    world.pass_by(2.1)
    assert (world.watches.renewals, world.notes["watch"]) == (1, None)
    world.follower.scan("a directory had no watch")
    assert world.notes["watch"] is not None
    assert world.notes["watch"].startswith("2 of 3 directories are not watched")
    make(world, "new/deep/e.md")
    world.pass_by(10.1)
    # Then it is found all the same
    assert world.known() == {b"a.md", b"new/b.md", b"new/c.md", b"new/deep/d.md", b"new/deep/e.md"}
    assert world.watches.renewals == 1
    # And once it is gone, so is the warning
    for path in sorted((world.root / "new").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (world.root / "new").rmdir()
    world.pass_by(10.1)
    world.pass_by(2.1)
    assert (world.known(), world.notes["watch"]) == ({b"a.md"}, None)


def test_what_was_missed_in_a_directory_without_a_watch_is_looked_at_at_once(world: World) -> None:
    # Given that to watch all anew was tried lately, and did not help
    make(world, "old/b.md")
    world.follower.scan("the timer")
    world.follower.scan("a directory had no watch")
    # When another directory gets no watch either, and more comes into it
    world.follower.look(frozenset({b"new"}))
    make(world, "new/c.md")
    world.follower.look(frozenset({b"new"}))
    make(world, "new/d.md")
    world.pass_by(2.1)
    world.pass_by(0.1)
    # Then it is looked at when that is found out
    assert b"new/d.md" in world.known()
    assert world.watches.renewals == 1


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


def lanes(world: World) -> dict[bytes, str]:
    return {entry.item.path: entry.lane for entry in world.ledger.due(10_000, attempts=3)}


def look(world: World, *names: str) -> None:
    for name in names:
        make(world, name)
    world.follower.look(frozenset(map(os.fsencode, names)))


def test_an_edit_passes_a_storm_of_new_files(world: World) -> None:
    # Given a folder in step, and many new files that are seen a few at a time
    world.ledger.applied(Outcome(b"a.md", world.ledger.wanted_seq(b"a.md"), "indexed"), attempts=3)
    for number in range(0, 200, 8):
        look(world, *(f"new{n}.md" for n in range(number, number + 8)))
    # When a known file is edited
    look(world, "a.md")
    # Then it is live work, and the storm is not, beyond its first files
    found = lanes(world)
    assert found[b"a.md"] == "live"
    assert Counter(found.values()) == {"live": 32 + 1, "bulk": 200 - 32}


def test_what_a_scan_finds_is_bulk_work_and_a_new_file_alone_is_live(world: World) -> None:
    make(world, "b.md")
    world.follower.scan("the timer")
    look(world, "c.md")
    assert lanes(world) == {b"a.md": "bulk", b"b.md": "bulk", b"c.md": "live"}


def test_edits_of_very_many_files_at_once_are_bulk_work(world: World) -> None:
    names = [f"f{n}.md" for n in range(65)]
    for name in names:
        make(world, name)
    world.follower.scan("the timer")
    for name in names:
        (world.root / name).write_text("changed")
    world.follower.look(frozenset(map(os.fsencode, names)))
    assert set(lanes(world).values()) == {"bulk"}
