"""Fixtures of the acceptance tests: real processes on a real folder, driven through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import Headwater
from notes import Notes
from servers import OwnServers
from word_embedder import word_environment


@pytest.fixture(scope="session")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    """For a run on servers, each with a collection of its own."""
    made = OwnServers.start(tmp_path_factory.mktemp("servers"))
    yield made
    made.redis.stop()
    made.qdrant.stop()


@pytest.fixture
def make_headwater() -> Iterator[Callable[[Path, Path], Headwater]]:
    """Makes drivers, and leaves none of their processes behind."""
    made: list[Headwater] = []

    def make(folder: Path, state: Path) -> Headwater:
        made.append(Headwater(folder, state))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def headwater(tmp_path: Path, make_headwater: Callable[[Path, Path], Headwater]) -> Headwater:
    """A new empty folder; the service does not run yet. Its embedder is one without a network, which starts at once."""
    folder = tmp_path / "folder"
    folder.mkdir()
    made = make_headwater(folder, tmp_path / "state")
    made.environment.update(word_environment())
    return made


@pytest.fixture(params=["embedded", pytest.param("servers", marks=pytest.mark.long)])
def of_notes(request: pytest.FixtureRequest, headwater: Headwater) -> Headwater:
    """A folder of notes, with the embedded parts or with servers, whose alias is followed soon."""
    if request.param == "servers":
        own: OwnServers = request.getfixturevalue("own_servers")
        headwater.servers = own.servers
        headwater.environment["HEADWATER_ALIAS_POLL_S"] = "0.3"
    Notes(headwater.folder).fill()
    headwater.environment["HEADWATER_SANDBOXES"] = "1"
    return headwater


@pytest.fixture(scope="session")
def data() -> Path:
    """The data pack (HEADWATER_DATA)."""
    given = os.environ.get("HEADWATER_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("HEADWATER_DATA does not name the data pack")
    return Path(given)


@pytest.fixture(scope="session")
def book(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Rust book's 112 chapters: its history replayed to the end."""
    folder = tmp_path_factory.mktemp("book") / "book"
    history = data / "history"
    subprocess.run(
        [sys.executable, str(history / "replay.py"), str(history / "rust-book.jsonl.xz"), str(folder)],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def indexed_book(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    """The book, indexed once by ``headwater up --once``."""
    made = Headwater(book, tmp_path_factory.mktemp("state") / "book")
    made.once()
    yield made
    made.kill()
