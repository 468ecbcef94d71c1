"""The generations of an index: where each lies, which is current, which settings stay with it, which may go."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headwater.errors import SettingsError
from headwater.generations import (
    Made,
    Note,
    Return,
    as_pinned,
    drop_expired,
    existing,
    overruled,
    pin,
    pins,
    serve,
    serving,
    under_way,
    unpin,
)
from headwater.settings import Settings
from headwater.state import Layout, Lock, Pointer, find_layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state directory with an index of each of three generations."""
    for number in (1, 2, 3):
        layout = Layout(tmp_path, number).create()
        layout.index.mkdir()
        for file in (layout.ledger, layout.manifest, layout.kept):
            file.write_text("{}")
    return tmp_path


def _settings(root: Path, **flags: object) -> Settings:
    return Settings.load(state_dir=root, **flags)


def test_generations_share_what_is_for_all_and_nothing_else() -> None:
    first, second = Layout(Path("/s")), Layout(Path("/s"), 2)
    own = (
        "ledger",
        "index",
        "manifest",
        "kept",
        "broker",
        "sandboxes",
        "configuration",
        "pinned",
        "troubles",
        "socket",
    )
    shared = ("pointer", "service", "serving", "token", "logs", "reindex")
    assert all(getattr(first, name) != getattr(second, name) for name in own)
    assert all(getattr(first, name) == getattr(second, name) for name in shared)
    assert first.lock("worker") != second.lock("worker") and first.lock("up") == second.lock("up")
    assert first.ledger == Path("/s/ledger.sqlite3")


def test_the_pointer_says_which_is_meant_unless_the_settings_do(root: Path) -> None:
    assert find_layout(_settings(root)).generation == 1
    Pointer(2, 1, 5.0).write(Layout(root))
    assert find_layout(_settings(root)).generation == 2
    assert find_layout(_settings(root, generation=3)).generation == 3
    assert Pointer.read(Layout(root, 3)) == Pointer(2, 1, 5.0)


def test_a_pointer_that_cannot_be_read_is_not_guessed(root: Path) -> None:
    Layout(root).pointer.write_text("{")
    with pytest.raises(SettingsError, match="restore it"):
        _settings(root)


def test_settings_stay_with_their_generation(root: Path) -> None:
    pin(Layout(root, 2), {"model": "b", "truncate_dim": 64})
    pin(Layout(root, 2), {"truncate_dim": 32, "port": 5})
    assert pins(Layout(root, 2)) == {"model": "b", "truncate_dim": 32}
    assert _settings(root, model="a").model == "a"
    Pointer(2, 1, 5.0).write(Layout(root))
    found = _settings(root, model="a", chunk_tokens=99)
    assert (found.model, found.truncate_dim, found.chunk_tokens, found.prefix) == ("b", 32, 99, "headwater.g2")
    assert as_pinned(found) == found
    unpin(Layout(root, 2), ["model"])
    assert _settings(root, model="a").model == "a"


def test_a_setting_that_is_given_and_not_used_is_told(root: Path) -> None:
    values = {"model": "b"}
    assert overruled(Settings.read(state_dir=root, model="b"), values) == []
    [sentence] = overruled(Settings.read(state_dir=root, model="a"), values)
    assert '"b"' in sentence and "HEADWATER_MODEL" in sentence


def test_a_generation_goes_when_nobody_needs_it(root: Path) -> None:
    assert drop_expired(root, 0.0) == []  # none was ever left
    Pointer(2, 1, time.time()).write(Layout(root))
    assert drop_expired(root, 60.0, spared={3}) == []
    assert drop_expired(root, 60.0) == [3]
    lock = Lock(Layout(root), "worker").acquire()
    assert drop_expired(root, 0.0) == []
    lock.release()
    assert drop_expired(root, 0.0) == [1]
    assert existing(root) == [2] and Pointer.read(Layout(root)).previous is None
    assert not Layout(root).ledger.exists() and Layout(root).pointer.exists()
    assert Layout(root, 2).ledger.exists()


def test_one_that_may_not_go_stays(root: Path) -> None:
    Pointer(3, 2, 5.0).write(Layout(root))
    assert drop_expired(root, 0.0, may_go=lambda layout: layout.generation == 1) == [1]
    assert existing(root) == [2, 3] and Pointer.read(Layout(root)).previous == 2


def test_a_move_that_is_made_twice_keeps_the_way_back() -> None:
    moved = Pointer(1).moved_to(2)
    assert (moved.generation, moved.previous, moved.at_once) == (2, 1, False)
    assert moved.moved_to(2, at_once=True) == Pointer(2, 1, moved.moved_at, at_once=True)
    assert moved.moved_to(1).previous == 2


def test_what_is_under_way_is_known(root: Path) -> None:
    layout = Layout(root)
    assert under_way(layout) == set() and Return.read(layout) is None
    Note(3, 2, {}, {}).write(layout)
    Return(1, 2).write(layout)
    assert under_way(layout) == {1, 3} and Return.read(layout) == Return(1, 2)
    layout.rollback.write_text("{")
    with pytest.raises(SettingsError, match="a rollback"):
        Return.read(layout)


def test_notes_are_read_as_they_were_written(root: Path) -> None:
    layout = Layout(root)
    assert (Note.read(layout), serving(layout), Made.read(layout)) == (None, None, Made())
    note = Note(2, 1, {"model": "b"}, {"model": "a"}, "filling")
    note.write(layout)
    serve(Layout(root, 2))
    Made({"model": "a"}, "p", "c").write(layout)
    assert (Note.read(layout), serving(layout)) == (note, 2)
    assert Made.read(layout) == Made({"model": "a"}, "p", "c")
    layout.reindex.write_text("[]")
    with pytest.raises(SettingsError, match="begin anew"):
        Note.read(layout)


def test_only_what_cuts_changes_the_fingerprint_of_cutting() -> None:
    plain = Settings.read().cutting_fingerprint("{}", 254)
    assert Settings.read(model="b", truncate_dim=8, document_prompt="x").cutting_fingerprint("{}", 512) == plain
    assert Settings.read(model="b").cutting_fingerprint('{"a":1}', 254) != plain
    assert Settings.read().cutting_fingerprint("{}", 100) != plain
    for name, value in {"chunk_tokens": 90, "heading_context": True, "language": "de", "ocr": "eng"}.items():
        assert Settings.read(**{name: value}).cutting_fingerprint("{}", 254) != plain
