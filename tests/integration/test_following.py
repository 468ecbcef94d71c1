"""Which generation is the current one, asked of a server by a process that has no client of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import QdrantServer, make_certificate

from headwater.errors import IndexUnavailable
from headwater.index_server import ServerIndex, ServerOptions
from headwater.server_reads import ServerReads
from headwater.settings import Settings
from headwater.state import Layout, Pointer

#: the producer's part of ``watch``, with everything of the official client kept away from it
_FOLLOW = """
import sys, threading
sys.modules["qdrant_client"] = None
from headwater.following import Follow
from headwater.settings import Settings
moved = threading.Event()
Follow.of(Settings.load(), moved.set).start()
print("started", flush=True)
assert moved.wait(30), "the move was noticed"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    made = QdrantServer(tmp_path / "server", api_key="secret", tls=make_certificate(tmp_path / "tls", "127.0.0.1"))
    made.start()
    yield made
    made.stop()


def index_of(server: QdrantServer, generation: int) -> ServerIndex:
    assert server.tls is not None
    given = ServerOptions(api_key=server.api_key, ca_file=server.tls[0])
    return ServerIndex.connect(server.url, given, "docs", generation=generation)


def environment_of(server: QdrantServer, state: Path) -> dict[str, str]:
    assert server.tls is not None
    return {
        **os.environ,
        "QDRANT_URL": server.url,
        "QDRANT_API_KEY": server.api_key or "",
        "HEADWATER_QDRANT_CA_FILE": str(server.tls[0]),
        "HEADWATER_COLLECTION": "docs",
        "HEADWATER_STATE_DIR": str(state),
        "HEADWATER_ALIAS_POLL_S": "0.1",
    }


def test_a_producer_without_the_official_client_follows_a_move(server: QdrantServer, tmp_path: Path) -> None:
    first, second = index_of(server, 1), index_of(server, 2)
    for index in (first, second):
        index.ensure_schema("model", 4)
    layout = Layout(tmp_path / "state").create()
    process = subprocess.Popen(
        [sys.executable, "-c", _FOLLOW], env=environment_of(server, layout.root), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert Pointer.read(layout).generation == 1
        # When the alias moves, to a generation that has a setting of its own
        assert second.aliases.note(2, "pins", {"model": "another"})
        second.aliases.point_to(2)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        first.close()
        second.close()
    assert (Pointer.read(layout).generation, Pointer.read(layout).previous) == (2, 1)
    assert '"model": "another"' in Layout(layout.root, 2).pinned.read_text()


def test_all_looks_share_a_connection_and_a_server_that_is_away_is_one_sentence(
    server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(server, tmp_path / "state").items():
        monkeypatch.setenv(name, value)
    reads = ServerReads.of(Settings.load())
    assert reads.ask(reads.get_aliases).aliases == []
    assert not reads.ask(reads.collection_exists, "docs.g7")
    [connection] = reads.client._transport._pool.connections  # type: ignore[attr-defined]  # no other way to see it
    assert connection.is_idle()
    server.stop()
    with pytest.raises(IndexUnavailable, match=f"Qdrant at {server.url} does not answer"):
        reads.ask(reads.get_aliases)
    reads.close()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://host", "http://host:6333"),
        ("https://host", "https://host:6333"),
        ("https://host:443", "https://host"),
        ("http://host:80/behind/a/proxy", "http://host/behind/a/proxy/"),
    ],
)
def test_a_url_without_a_port_means_that_of_qdrant(monkeypatch: pytest.MonkeyPatch, url: str, base: str) -> None:
    monkeypatch.setenv("QDRANT_URL", url)
    reads = ServerReads.of(Settings.load())
    assert str(reads.client.base_url) == base
    reads.close()
