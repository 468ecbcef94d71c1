"""Generations of an index on a server: which may go, what goes with them, and what a host learns of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Pair

from headwater.errors import IndexUnavailable
from headwater.following import adopt, at_server, current, drop_left, followed_in, on_server
from headwater.generations import existing, pins
from headwater.settings import Settings
from headwater.state import Layout, Pointer


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair.started(tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.fixture
def settings(pair: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Three generations, of which the second is the current one since long ago, and the third is being filled."""
    made = Settings.read(
        broker_url=pair.broker.url,
        qdrant_url=pair.qdrant.url,
        collection=request.node.name[:40],
        state_dir=tmp_path,
        alias_poll_s=0.1,
    )
    for number in (1, 2, 3):
        with on_server(made.model_copy(update={"generation": number})) as index:
            assert index is not None
            index.ensure_schema("m", 4)
            Layout(tmp_path, number).create().ledger.touch()
            if number == 2:
                index.aliases.note(2, "pins", {"truncate_dim": 16})
                index.aliases.move(2, left=1)
                index.aliases.note(1, "left", {"at": time.time() - 100})
    Pointer(2, 1, time.time() - 100).write(Layout(tmp_path))
    return made


def _collections(settings: Settings) -> set[int]:
    with on_server(settings) as index:
        assert index is not None
        return {number for number in (1, 2, 3) if index.aliases.is_there(number)}


def test_only_a_generation_that_was_left_goes_and_its_keys_go_with_it(settings: Settings, pair: Pair) -> None:
    root, name = Layout(settings.state_dir or Path()).root, settings.collection
    first, others = (
        (f"{name}.live", f"{name}.events", f"_kombu.binding.{name}.bulk"),
        (f"{name}.g3.live", f"{name}x.live"),
    )
    with pair.broker.client() as broker:
        for key in (*first, *others):
            broker.set(key, "1")
        broker.hset("unacked", "a", f'[{{}}, "", "{name}.bulk"]')
        broker.hset("unacked", "b", f'[{{}}, "", "{name}.g3.bulk"]')
        # The keep time is not over
        assert drop_left(settings, root, 1000.0) == []
        # It is; another host may fill the third one
        assert drop_left(settings, root, 10.0) == [1]
        assert not broker.exists(*first) and broker.exists(*others) == 2
        assert broker.hkeys("unacked") == [b"b"]
    assert _collections(settings) == {2, 3} and existing(root) == [2, 3]
    assert current(settings) == 2


def test_what_was_just_left_stays_until_all_hosts_have_followed(settings: Settings) -> None:
    layout = Layout(settings.state_dir or Path())
    with on_server(settings) as index:
        assert index is not None
        index.aliases.move(1, left=2)
    Pointer(1, 2, time.time()).write(layout)
    assert 0 < followed_in(settings, layout) <= 1.2
    assert drop_left(settings, layout.root, 0.0) == []
    time.sleep(1.3)
    assert followed_in(settings, layout) == 0.0
    assert drop_left(settings, layout.root, 0.0) == [2]


def test_a_host_learns_what_is_current_and_with_which_settings(settings: Settings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"state_dir": tmp_path / "other"})
    layout = Layout(tmp_path / "other").create()
    with on_server(other) as index:
        assert index is not None
        assert adopt(index.aliases, layout) == 2
    assert Pointer.read(layout).previous == 1 and pins(Layout(layout.root, 2)) == {"truncate_dim": 16}
    assert (at_server(other).generation, at_server(other).truncate_dim) == (2, 16)
    # One that is just being made tells nothing yet
    with pytest.raises(IndexUnavailable, match="generation 3"):
        at_server(other.model_copy(update={"generation": 3}))
