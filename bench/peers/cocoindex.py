"""CocoIndex 1.x: files to chunks to LanceDB, as in its examples; its live mode watches the folder.

A file's component is memoized, and ``embed`` remembers each text of a file. LanceDB is the documented target that needs
no server and that another connection may read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any

import cocoindex as coco
import lancedb as lance
from cocoindex.connectors import lancedb, localfs
from cocoindex.ops.sentence_transformers import SentenceTransformerEmbedder
from cocoindex.ops.text import RecursiveSplitter
from cocoindex.resources.chunk import Chunk
from cocoindex.resources.file import FileLike, PatternFilePathMatcher
from cocoindex.resources.id import IdGenerator
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from bench.peers.protocol import CHUNK_CHARACTERS, HITS, main, model_path

_TABLE = "documents"
_LANCE = coco.ContextKey[lancedb.LanceAsyncConnection]("lance")
_EMBEDDER = coco.ContextKey[SentenceTransformerEmbedder]("embedder")
_splitter = RecursiveSplitter()


@dataclass
class Row:
    """One chunk in the table."""

    id: int
    path: str
    text: str
    embedding: Annotated[NDArray[Any], _EMBEDDER]


@coco.fn
async def process_chunk(chunk: Chunk, path: PurePath, ids: IdGenerator, table: lancedb.TableTarget[Row]) -> None:
    """Declare the row of a chunk."""
    vector = await coco.use_context(_EMBEDDER).embed(chunk.text)
    table.declare_row(row=Row(id=await ids.next_id(chunk.text), path=str(path), text=chunk.text, embedding=vector))


@coco.fn(memo=True)
async def process_file(file: FileLike, table: lancedb.TableTarget[Row]) -> None:
    """Split a file and declare its chunks."""
    chunks = _splitter.split(await file.read_text(), chunk_size=CHUNK_CHARACTERS, chunk_overlap=0, language="markdown")
    await coco.map(process_chunk, chunks, file.file_path.path, IdGenerator(), table)


@coco.fn
async def process_folder(folder: Path) -> None:
    """Mount a component for each file."""
    schema = await lancedb.TableSchema.from_class(Row, primary_key=["id"])
    table = await lancedb.mount_table_target(_LANCE, table_name=_TABLE, table_schema=schema)
    files = localfs.walk_dir(
        folder, recursive=True, path_matcher=PatternFilePathMatcher(included_patterns=["**/*.md"]), live=True
    )
    await coco.mount_each(process_file, files.items(), table)


class CocoIndex:
    """The app in catch-up or live mode, and a connection of its own to read."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder, self._uri = folder, str(state / "lance")
        self._asked: SentenceTransformer | None = None
        self._embedder = SentenceTransformerEmbedder(model_path(), device="cpu")
        asyncio.run(self._embedder.dimension())  # loads the model

        @coco.lifespan
        async def resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
            builder.settings.db_path = state / "cocoindex.db"
            builder.provide(_LANCE, await lancedb.connect_async(self._uri))
            builder.provide(_EMBEDDER, self._embedder)
            yield

        self._app = coco.App(coco.AppConfig(name="Documents"), process_folder, folder=folder)

    def sync(self) -> None:
        self._app.update_blocking()

    def watch(self) -> None:
        self._questions()
        threading.Thread(target=self._app.update_blocking, kwargs={"live": True}, daemon=True).start()

    def _questions(self) -> SentenceTransformer:
        """A model of its own: the app's embedder belongs to the app's event loop."""
        if self._asked is None:
            self._asked = SentenceTransformer(model_path(), device="cpu")
        return self._asked

    def search(self, text: str) -> list[str]:
        vector = self._questions().encode(text, show_progress_bar=False)
        return [row["text"] for row in self._table().search(vector).metric("cosine").limit(HITS).to_list()]

    def chunks(self) -> list[tuple[str, str]]:
        rows = self._table().search().select(["path", "text"]).limit(1_000_000).to_list()
        return [(_relative(row["path"], self._folder), row["text"]) for row in rows]

    def _table(self) -> Any:
        return lance.connect(self._uri).open_table(_TABLE)

    def close(self) -> None:
        """Nothing is held."""


def _relative(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_absolute() else path


if __name__ == "__main__":
    main(CocoIndex)
