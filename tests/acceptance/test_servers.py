"""The same commands on a Redis and a Qdrant server: killed in the middle of work, and asked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import Headwater, wait_until
from server_mode import collection_of
from servers import OwnServers
from word_embedder import word_environment

from headwater.messages import queue_name

_DOCUMENTS = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("many") / "folder"
    (made / "deep").mkdir(parents=True)
    for number in range(_DOCUMENTS):
        sections = [f"## Part {part}\n\nThe sentinel of this part is w{number}p{part}w." for part in range(4)]
        (made / "deep" / f"{number:03}.md").write_text(f"# Note {number}\n\n" + "\n\n".join(sections) + "\n")
    return made


@pytest.fixture
def make(own_servers: OwnServers, tmp_path: Path) -> Iterator[Callable[[str, Path], Headwater]]:
    runs: list[Headwater] = []

    def made(name: str, folder: Path) -> Headwater:
        run = Headwater(folder, tmp_path / name, environment=word_environment(), servers=own_servers.servers)
        runs.append(run)
        return run

    yield made
    for run in runs:
        run.kill()


def _points(run: Headwater) -> dict[str, Any]:
    return {point["id"]: point for point in run.points()}


def test_servers_and_workers_that_are_killed_leave_the_index_of_an_undisturbed_run(
    own_servers: OwnServers, make: Callable[[str, Path], Headwater], folder: Path
) -> None:
    # Given what an undisturbed run makes, and a first ingest that is under way
    undisturbed = make("undisturbed", folder)
    undisturbed.once()
    expected = _points(undisturbed)
    run = make("killed", folder)
    run.up(in_step=False)
    # When worker, index and broker are killed one after the other
    for kill, share in ((_kill_worker(run), 0.1), (own_servers.qdrant.restart, 0.3), (own_servers.redis.restart, 0.5)):
        least = share * undisturbed.status()["chunks"]
        wait_until(lambda least=least: run.peek()["chunks"] >= least, "the ingest is under way")
        kill()
    run.wait_in_step()
    # Then the index is the same, in the server and by its own account
    held = _points(run)
    assert held.keys() == expected.keys()
    for identity, point in held.items():
        assert {**point["payload"], "seq": 0} == {**expected[identity]["payload"], "seq": 0}
        if "text" in point["payload"]:
            assert np.allclose(point["vector"]["dense"], expected[identity]["vector"]["dense"], atol=1e-5)
    wait_until(lambda: run.peek()["health"] == "ok", "all is well")
    verified = json.loads(run.run("verify", "--json").stdout)
    assert verified["ok"] is True and verified["documents"] == _DOCUMENTS
    assert run.stop() == 0


def _kill_worker(run: Headwater) -> Callable[[], None]:
    def kill() -> None:
        for pid in run.children("headwater work"):
            os.kill(pid, signal.SIGKILL)

    return kill


def test_questions_are_answered_by_the_service_and_without_one(
    make: Callable[[str, Path], Headwater], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    (notes / "guide").mkdir(parents=True)
    (notes / "guide" / "herons.md").write_text("---\nauthor: Alice\n---\n# Herons\n\nHerons wait for fish.\n")
    (notes / "owls.md").write_text("# Owls\n\nOwls hunt mice at night.\n")
    run = make("asked", notes)
    run.up()
    assert [hit["path"] for hit in run.search("fish", "--mode", "sparse")] == ["guide/herons.md"]
    # When a document is renamed, one is edited and one is deleted
    (notes / "guide" / "herons.md").rename(notes / "herons.md")
    (notes / "new.md").write_text("Herons are new here.\n")
    (notes / "owls.md").unlink()
    # Then the service's answers follow
    [hit] = run.search("herons", "--mode", "sparse", "--where", "author:Alice", "--wait-for", "herons.md")
    assert hit["path"] == "herons.md" and hit["stale"] is False
    found = {hit["path"] for hit in run.search("herons owls", "--wait-for", "new.md", "--wait-for", "owls.md")}
    assert found == {"herons.md", "new.md"}
    # And those of the index alone are the same
    assert run.stop() == 0
    assert {hit["path"] for hit in run.search("herons owls")} == {"herons.md", "new.md"}
    why = run.run("why", "herons.md", "--folder", str(notes)).stdout
    assert "indexed" in why
    # And the broker keeps no hint of it
    assert run.servers is not None
    with run.servers.broker() as broker:
        assert [broker.llen(queue_name(collection_of(run.state), lane)) for lane in ("live", "bulk")] == [0, 0]
