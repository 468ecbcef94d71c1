"""Fixtures of the integration tests: the real model, a real Valkey, and every index backend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from driver import wait_until
from qdrant_client import QdrantClient
from servers import QdrantServer

from headwater.broker import embedded_binary, reachable
from headwater.embedder import Embedder, load_embedder
from headwater.errors import BrokerUnavailable
from headwater.index import VectorIndex
from headwater.index_edge import EdgeIndex
from headwater.index_process import ProcessIndex
from headwater.index_server import ServerIndex, ServerOptions
from headwater.settings import Settings
from headwater.state import free_bytes

# -- settings and model -----------------------------------------------------------------------------------


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a state directory of their own; flags go before all else."""

    def make(**flags: Any) -> Settings:
        given = {"folder": tmp_path / "folder", "state_dir": tmp_path / "state", **flags}
        return Settings.load(**given)

    return make


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The default model, loaded once."""
    return load_embedder(Settings.load())


# -- broker -----------------------------------------------------------------------------------------------


@dataclass
class Valkey:
    """A real Valkey server on a Unix socket, as the supervisor starts it: it keeps nothing over a restart."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        url = f"redis+socket://{self.directory / 'valkey.sock'}"
        self.settings = Settings.load(broker_url=url, state_dir=self.directory / "state")

    def start(self) -> None:
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(self.directory / "valkey.sock"),
            "--unixsocketperm",
            "700",
        ]
        options += ["--dir", str(self.directory), "--save", "", "--appendonly", "no", "--loglevel", "warning"]
        self.process = subprocess.Popen([embedded_binary(), *options], stdout=subprocess.DEVNULL)
        wait_until(lambda: reachable(self.settings), "Valkey answers", timeout_s=10)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()


def _valkey() -> Iterator[Valkey]:
    try:
        embedded_binary()
    except BrokerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    directory = Path(tempfile.mkdtemp(prefix="hw-", dir="/tmp"))  # sun_path is short
    server = Valkey(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One server for all tests that leave it as they found it: use a ``collection`` of your own."""
    yield from _valkey()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that a test may stop, restart or freeze."""
    yield from _valkey()


# -- index ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backend:
    """One place that can hold an index; each ``adapter`` is a new object on the same place."""

    name: str
    adapter: Callable[[], VectorIndex]


#: a file system in memory: most of the time of these tests would be waiting for the disk
_SHM = Path("/dev/shm")
_SHM_NEEDED_BYTES = 2 * 1024**3


@pytest.fixture
def index_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for one embedded index, in memory where there is room: a full one would be SIGBUS."""
    yield from _in_memory(tmp_path)


def _in_memory(otherwise: Path) -> Iterator[Path]:
    if not _SHM.is_dir() or free_bytes(_SHM) < _SHM_NEEDED_BYTES:
        yield otherwise
        return
    directory = Path(tempfile.mkdtemp(prefix="headwater-test-", dir=_SHM))
    yield directory
    shutil.rmtree(directory)


def _one_at_a_time(name: str, make: Callable[[], EdgeIndex | ProcessIndex]) -> Iterator[Backend]:
    """One process, one shard: a new adapter closes the one before."""
    made: list[EdgeIndex | ProcessIndex] = []

    def adapter() -> VectorIndex:
        for one in made:
            one.close()
        made.append(make())
        return made[-1]

    yield Backend(name, adapter)
    for one in made:
        one.close()


def _edge(directory: Path) -> Iterator[Backend]:
    yield from _one_at_a_time("edge", lambda: EdgeIndex(directory / "index", directory / "index.json"))


def _process(directory: Path) -> Iterator[Backend]:
    def damaged(sentence: str) -> None:
        raise AssertionError(sentence)

    where = directory / "index", directory / "index.json"
    yield from _one_at_a_time("process", lambda: ProcessIndex(*where, on_damage=damaged))


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A Qdrant server of the tests' own, with a key and in strict mode: use a collection of your own."""
    for directory in _in_memory(tmp_path_factory.mktemp("qdrant")):
        server = QdrantServer(directory, api_key="secret")
        server.start()
        yield server
        server.stop()


def _http(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The whole way over HTTP, every filter on an indexed field."""
    server: QdrantServer = request.getfixturevalue("qdrant_server")
    yield from _collection("http", server.url, server.api_key)


def _server(_: Path) -> Iterator[Backend]:
    settings = Settings.load()
    assert settings.qdrant_url is not None
    yield from _collection("server", settings.qdrant_url, settings.qdrant_api_key)


def _collection(backend: str, url: str, key: str | None) -> Iterator[Backend]:
    name = f"contract-{uuid.uuid4().hex}"
    yield Backend(backend, lambda: ServerIndex.connect(url, ServerOptions(key), name))
    client = QdrantClient(url=url, api_key=key, check_compatibility=False)
    client.delete_collection(f"{name}.g1")
    client.close()


#: the real server joins where QDRANT_URL names one
_BACKENDS = {
    "edge": _edge,
    "process": _process,
    **({"server": _server} if os.environ.get("QDRANT_URL") else {}),
}


@pytest.fixture(params=[*_BACKENDS, "http"])
def backend(request: pytest.FixtureRequest, index_directory: Path) -> Iterator[Backend]:
    """An empty place for an index, once per backend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection", UserWarning)  # on loopback
        if request.param == "http":
            yield from _http(request)
        else:
            yield from _BACKENDS[request.param](index_directory)


@pytest.fixture(params=["edge", "process"])
def embedded(request: pytest.FixtureRequest, index_directory: Path) -> Iterator[Backend]:
    """An empty place for an embedded index: the engine in this process, or in one of its own."""
    yield from _BACKENDS[request.param](index_directory)


@pytest.fixture
def edge_index(index_directory: Path) -> Iterator[EdgeIndex]:
    """The embedded engine alone, not opened yet."""
    index = EdgeIndex(index_directory / "index", index_directory / "index.json")
    yield index
    index.close()
