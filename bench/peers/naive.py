"""What a person writes first, done right: watchdog, SentenceTransformer.encode, and qdrant-client's local mode.

A changed file is embedded whole: its old points are deleted, the new ones written. A start compares hashes of files.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import uuid
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.models import Distance, FieldCondition, Filter, MatchValue, PointStruct, VectorParams
from sentence_transformers import SentenceTransformer
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from bench.peers.protocol import CHUNK_CHARACTERS, HITS, main, model_path

_COLLECTION = "documents"
_SETTLE_S = 0.1


class Naive(FileSystemEventHandler):
    """The handler queues paths; one thread makes the index right for each."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._model = SentenceTransformer(model_path(), device="cpu")
        self._client = QdrantClient(path=str(state / "qdrant"), force_disable_check_same_thread=True)
        if not self._client.collection_exists(_COLLECTION):
            self._client.create_collection(_COLLECTION, VectorParams(size=384, distance=Distance.COSINE))
        self._changed: queue.Queue[Path] = queue.Queue()
        self._turn = threading.Lock()
        self._observer = Observer()

    def sync(self) -> None:
        indexed = {payload["path"]: payload["sha256"] for payload in self._payloads()}
        for path in sorted({*self._folder.rglob("*.md"), *(self._folder / name for name in indexed)}):
            if not path.exists() or _sha256(path) != indexed.get(str(path.relative_to(self._folder))):
                self._index(path)

    def watch(self) -> None:
        self._observer.schedule(self, str(self._folder), recursive=True)
        self._observer.start()
        self.sync()
        threading.Thread(target=self._follow, daemon=True).start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "deleted"):
            for name in filter(None, (event.src_path, event.dest_path)):
                if str(name).endswith(".md"):
                    self._changed.put(Path(str(name)))

    def _follow(self) -> None:
        while True:
            changed = {self._changed.get()}
            time.sleep(_SETTLE_S)
            while not self._changed.empty():
                changed.add(self._changed.get())
            for path in changed:
                self._index(path)

    def _index(self, path: Path) -> None:
        name = str(path.relative_to(self._folder))
        texts = _split(path.read_text("utf-8")) if path.exists() else []
        vectors = self._model.encode(texts, show_progress_bar=False) if texts else []
        digest = _sha256(path) if texts else ""
        points = [
            PointStruct(
                id=str(uuid.uuid4()), vector=vector.tolist(), payload={"path": name, "text": text, "sha256": digest}
            )
            for text, vector in zip(texts, vectors, strict=True)
        ]
        with self._turn:
            mine = Filter(must=[FieldCondition(key="path", match=MatchValue(value=name))])
            self._client.delete(_COLLECTION, mine)
            if points:
                self._client.upsert(_COLLECTION, points)

    def _payloads(self) -> list[dict[str, str]]:
        with self._turn:
            points, _ = self._client.scroll(_COLLECTION, limit=1_000_000)
        return [dict(point.payload or {}) for point in points]

    def search(self, text: str) -> list[str]:
        vector = self._model.encode(text, show_progress_bar=False)
        with self._turn:
            found = self._client.query_points(_COLLECTION, query=vector.tolist(), limit=HITS).points
        return [str((point.payload or {})["text"]) for point in found]

    def chunks(self) -> list[tuple[str, str]]:
        return [(payload["path"], payload["text"]) for payload in self._payloads()]

    def close(self) -> None:
        self._client.close()


def _split(text: str) -> list[str]:
    """Paragraphs, packed up to the limit; a longer one is cut."""
    chunks = [""]
    for paragraph in text.split("\n\n"):
        for first in range(0, len(paragraph), CHUNK_CHARACTERS):
            piece = paragraph[first : first + CHUNK_CHARACTERS]
            if len(chunks[-1]) + 2 + len(piece) <= CHUNK_CHARACTERS:
                chunks[-1] += f"\n\n{piece}"
            else:
                chunks.append(piece)
    return [chunk.strip() for chunk in chunks if chunk.strip()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Naive)
