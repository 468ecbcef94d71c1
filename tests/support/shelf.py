"""A few documents in a folder and their real embedded index in a state directory, made with the tiny model; the query
API over it; and the examples of the documentation."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from driver import wait_until
from tiny_model import make_tiny_model

from headwater.api import ApiServer, make_api
from headwater.document import document_id, rfc3339, text_hash
from headwater.embedder import load_embedder
from headwater.index import Chunk, DocumentWrite, open_index
from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine
from headwater.settings import Settings
from headwater.state import Layout, Service

__all__ = ["DOCUMENTS", "Shelf", "example", "made_shelf", "refuse_network", "served"]

#: path -> language and paragraphs, each of which is a chunk
DOCUMENTS = {
    "birds/heron.md": ("en", ["The grey heron waits in shallow water for fish.", "A heron nests in tall trees."]),
    "birds/reiher.md": ("de", ["Der Graureiher wartet im flachen Wasser auf Fische."]),
    "kitchen/bread.md": ("en", ["Knead the dough for ten minutes.", "Bake the bread until it is brown."]),
    "stars.txt": ("en", ["A red giant is a star late in its life that burns helium."]),
    "copy/stars.txt": ("en", ["A red giant is a star late in its life that burns helium, too."]),
}


@dataclass(frozen=True)
class Shelf:
    """Settings that name the folder, the state directory and the model."""

    settings: Settings

    @property
    def layout(self) -> Layout:
        assert self.settings.state_dir is not None
        return Layout(self.settings.state_dir)

    def engine(self) -> LocalEngine:
        """Holds the index until it is closed."""
        return LocalEngine.open(open_index(self.settings, self.layout), self.settings)

    def copied(self, directory: Path) -> Shelf:
        """The same documents and index, which nobody holds, with its state in a directory."""
        state = directory / "state"
        shutil.copytree(self.layout.root, state, ignore=shutil.ignore_patterns("service.json"))
        return Shelf(self.settings.model_copy(update={"state_dir": state}))


def made_shelf(directory: Path) -> Shelf:
    folder, state = directory / "folder", directory / "state"
    state.mkdir()
    settings = Settings.load(folder=folder, state_dir=state, model=str(make_tiny_model(directory)))
    shelf = Shelf(settings)
    embedder, bm25 = load_embedder(settings), Bm25Encoder()
    index = EdgeIndex(shelf.layout.index, shelf.layout.manifest)
    index.ensure_schema(embedder.name, embedder.dimension)
    for seq, (path, (language, texts)) in enumerate(DOCUMENTS.items(), start=1):
        whole = "\n\n".join(texts)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(whole)
        index.apply(
            DocumentWrite(
                document_id=document_id(path.encode()),
                path=path,
                seq=seq,
                content_hash=text_hash(whole),
                pipeline="p",
                kind="markdown" if path.endswith(".md") else "text",
                modified_at=rfc3339((folder / path).stat().st_mtime_ns),
                size=len(whole),
                chunks=_chunks(texts, Path(path).stem),
                dense=embedder.encode(texts, "document"),
                sparse=[bm25.document(text, language) for text in texts],
                title=Path(path).stem.title(),
                language=language,
            )
        )
    index.close()
    return shelf


def _chunks(texts: list[str], heading: str) -> list[Chunk]:
    made, start = [], 0
    for number, text in enumerate(texts):
        line = 2 * number + 1
        end = start + len(text)
        made.append(Chunk(number, text, text_hash(text), start, end, line, line, headings=("Shelf", heading)))
        start = end + 2
    return made


@contextlib.contextmanager
def served(engine: LocalEngine, layout: Layout) -> Iterator[str]:
    """The address of a query API that answers from ``engine`` and is known as the service of the state directory."""
    ready: Future[LocalEngine] = Future()
    ready.set_result(engine)
    server = ApiServer(Settings.load(port=0))
    server.start(make_api(ready, status=lambda: {"running": True}, flush=lambda: None, token="none"))
    Service(server.url, os.getpid()).write(layout)
    try:
        wait_until(lambda: Service.read(layout) is not None, "the service is known", timeout_s=10)
        yield server.url
    finally:
        layout.service.unlink()
        server.stop()


def refuse_network(patch: pytest.MonkeyPatch) -> None:
    """Connections to other machines fail the test: what it uses must be there without them."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        is_here = self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1"))
        assert is_here, f"a connection to {address!r}"
        connect(self, address)  # type: ignore[arg-type]  # as it was given

    patch.setattr(socket.socket, "connect", guarded)


def example(page: str, word: str) -> str:
    """The one Python block of a page of the documentation in which a word stands."""
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text("utf-8")
    [found] = [code for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if word in code]
    return str(found)
