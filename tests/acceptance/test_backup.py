"""Backup and restore as docs/operations.md tells: copies of the parts, brought back after the folder has gone on.

What happens to an embedded index or a ledger that alone comes back older is in ``test_step.py``, an index that was
deleted in ``test_parts.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from driver import Headwater, pids_with, wait_until
from server_mode import Servers, collection_of
from servers import QdrantServer, RedisServer

from headwater.broker import embedded_binary
from headwater.state import Layout
from producer.ledger import Ledger

pytestmark = pytest.mark.long

Facts = set[tuple[str, str, str | None]]


def _fill(folder: Path) -> None:
    for n in range(6):
        (folder / f"{n}.md").write_text(f"# Note {n}\n\nThe sentinel of this note is w{n}w.\n")


def _go_on(folder: Path) -> None:
    """A change of each kind, after the copy was made."""
    (folder / "0.md").write_text("# Changed\n\nAnother sentinel.\n")
    (folder / "1.md").unlink()
    (folder / "2.md").rename(folder / "moved.md")
    (folder / "new.md").write_text("A new note.\n")


_AFTERWARDS = {"0.md", "3.md", "4.md", "5.md", "moved.md", "new.md"}


def _facts(run: Headwater) -> Facts:
    """What the index holds, but for the versions."""
    loads = [(point["id"], point["payload"]) for point in run.points()]
    return {(id_, load["path"], load.get("text")) for id_, load in loads}


def _assert_right(run: Headwater, expected: Facts) -> None:
    """Nothing missing, stale, doubled or left over: as raw points, and as ``verify`` finds."""
    facts = _facts(run)
    assert facts == expected and {path for _, path, _ in facts} == _AFTERWARDS
    done = run.run("verify", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- one machine ------------------------------------------------------------------------------------------


@pytest.fixture
def run(headwater: Headwater) -> Headwater:
    """With the embedded broker and index, whatever else the suite runs on."""
    headwater.servers = None
    return headwater


def test_a_state_directory_copied_at_rest_is_brought_up_to_date(run: Headwater) -> None:
    # Given a copy of the state directory, made while nothing ran, and a folder that went on
    _fill(run.folder)
    run.once()
    copy = run.state.with_name("backup")
    shutil.copytree(run.state, copy)
    _go_on(run.folder)
    run.once()
    expected, embedded = _facts(run), run.status()["embedded_texts_total"]
    # When the machine is lost, the copy restored, and the service started
    shutil.rmtree(run.state)
    shutil.copytree(copy, run.state)
    run.once()
    # Then the index is that of the folder, and only what the copy lacked was embedded
    _assert_right(run, expected)
    assert run.status()["embedded_texts_total"] == embedded


def test_a_state_directory_copied_while_the_service_is_held_still_is_as_good(run: Headwater) -> None:
    # Given a service in the middle of its work
    _fill(run.folder)
    run.up()
    for n in range(40):
        (run.folder / f"passing-{n}.md").write_text(f"It passes, number {n}.\n")
    wait_until(lambda: run.peek()["documents"]["waiting"], "there is work")
    # When all of its processes are held still for the time of a copy
    held = list(pids_with(str(run.state)))
    assert len(held) >= 5, "up, producer, worker, engine, broker"
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    copy = run.state.with_name("backup")
    shutil.copytree(run.state, copy, ignore=_no_sockets)
    for pid in held:
        os.kill(pid, signal.SIGCONT)
    # Then it goes on
    for n in range(40):
        (run.folder / f"passing-{n}.md").unlink()
    _go_on(run.folder)
    run.wait_in_step()
    wait_until(lambda: run.peek()["documents"]["indexed"] == len(_AFTERWARDS), "all is in")
    assert run.stop() == 0
    expected = _facts(run)
    # And what the copy gives is the index of the folder as well
    shutil.rmtree(run.state)
    shutil.copytree(copy, run.state)
    run.once()
    _assert_right(run, expected)


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(directory, name).is_socket()]


# -- servers ----------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The service on servers of its own."""

    run: Headwater
    redis: RedisServer
    qdrant: QdrantServer

    def settle(self) -> None:
        """The service is started, catches up, has its census, and ends."""
        layout = Layout(self.run.state)
        if layout.ledger.exists():  # what the last run found is not to be taken for this one's
            with contextlib.closing(Ledger(layout.ledger)) as ledger:
                ledger.set_meta("checked", "0")
        self.run.up(in_step=False)
        wait_until(lambda: self.run.alive() and self.run.peek()["in_step"] and self.run.peek()["checked"], "in step")
        assert self.run.stop() == 0

    def storage(self) -> Path:
        return self.qdrant.directory / "storage"


@pytest.fixture
def site(headwater: Headwater, tmp_path: Path) -> Iterator[Site]:
    redis = RedisServer(tmp_path / "broker", binary=embedded_binary())
    qdrant = QdrantServer(tmp_path / "qdrant")
    try:
        redis.start()
        qdrant.start()
        headwater.servers = Servers(redis.url, qdrant.url)
        yield Site(headwater, redis, qdrant)
    finally:
        headwater.kill()
        headwater.servers = None
        qdrant.stop()
        redis.stop()


def test_an_older_or_lost_collection_ledger_or_broker_is_made_right(site: Site) -> None:
    # Given copies of the server's storage and of the ledger, and a folder that went on
    _fill(site.run.folder)
    site.settle()
    site.qdrant.stop(signal.SIGTERM)
    older, ledger = site.storage().with_name("older"), site.run.state.with_name("older-state")
    shutil.copytree(site.storage(), older)
    shutil.copytree(site.run.state, ledger)
    site.qdrant.start()
    _go_on(site.run.folder)
    site.settle()
    expected = _facts(site.run)
    # When the storage comes back older, and the broker empty
    site.qdrant.stop()
    shutil.rmtree(site.storage())
    shutil.copytree(older, site.storage())
    site.qdrant.start()
    site.redis.restart()
    site.settle()
    # Then the index is that of the folder
    _assert_right(site.run, expected)
    # And when the producer's state comes back older, and the collection does not
    shutil.rmtree(site.run.state)
    shutil.copytree(ledger, site.run.state)
    site.settle()
    _assert_right(site.run, expected)
    # And when collection and state are both lost
    assert site.run.servers is not None
    with site.run.servers.qdrant() as client:
        client.delete_collection(collection_of(site.run.state))
    shutil.rmtree(site.run.state)
    site.settle()
    _assert_right(site.run, expected)
