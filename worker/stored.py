"""Texts for a new index from the one that it replaces: what would be read and cut alike is not read again.

Only a document that the other index holds whole, with the same content and in one version, is taken from there. A
document with files within it, and one that was read in part, is read anew: the index does not hold all that was known.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from headwater.document import text_hash
from headwater.errors import HeadwaterError, ServiceUnavailable
from headwater.following import made_of
from headwater.generations import Note
from headwater.index import Chunk, Point, open_index
from headwater.points import LocalPoints, Points, RemotePoints, pages
from headwater.settings import Settings
from headwater.state import Layout, Lock, Service
from worker.sandboxes import Extraction

__all__ = ["OldCollection", "OldIndex", "StoredTexts", "extraction_of"]

log = logging.getLogger(__name__)

#: seconds without another try at an index that could not be asked
_PAUSE_S = 1.0
#: seconds between two looks whether a service wants the index that we hold open
_LOOK_S = 0.25
#: an index that nobody asks for so long is let go, for others may want to look into it
_IDLE_S = 1.0
_PLACES = ("start", "end", "start_line", "end_line", "page")


class DocumentPoints(Protocol):
    """All points of one document; None if nobody can tell just now."""

    def of(self, document_id: str) -> list[Point] | None: ...

    def close(self) -> None: ...


class StoredTexts:
    """``Stored`` of the pipeline, over the index that a reindex replaces. Safe to use from several threads."""

    def __init__(self, points: DocumentPoints, pipeline: str) -> None:
        """``pipeline``: the fingerprint of what the other index was made with."""
        self._points = points
        self._pipeline = pipeline
        self.found = 0

    @classmethod
    def of(cls, settings: Settings, layout: Layout, cutting: str) -> StoredTexts | None:
        """For the generation that a reindex makes, if the one beside it was cut alike; else None."""
        note = Note.read(layout)
        if note is None or note.generation != layout.generation:
            return None
        source = Layout(layout.root, note.source)
        made = made_of(settings, source)
        if made.cutting != cutting or made.pipeline is None:
            log.info("texts are read anew: the index that there is was cut in another way")
            return None
        if settings.qdrant_url is None:
            return cls(OldIndex(source), made.pipeline)
        return cls(OldCollection(settings.model_copy(update={"generation": note.source})), made.pipeline)

    def find(self, document_id: str, content_hash: str) -> Extraction | None:
        points = self._points.of(document_id)
        found = None if points is None else extraction_of(points, content_hash, self._pipeline)
        self.found += found is not None  # a rough figure: two threads may lose a few
        return found

    def close(self) -> None:
        log.info("the texts of %d documents were taken from the index that there is", self.found)
        self._points.close()


def extraction_of(points: Sequence[Point], content_hash: str, pipeline: str) -> Extraction | None:
    """What was read in a document, from its points; None if they are not all of one version, and do not tell all."""
    record = next((dict(p.payload) for p in points if p.payload.get("chunks") is not None), None)
    if record is None or (record["content_hash"], record["pipeline"]) != (content_hash, pipeline):
        return None
    if record["partial"] is not None or record.get("members") or record.get("unread"):
        return None
    payloads = sorted((dict(p.payload) for p in points if "chunk" in p.payload), key=lambda found: found["chunk"])
    whole = [found["chunk"] for found in payloads] == list(range(record["chunks"]))
    if not whole or any(found["seq"] != record["seq"] or "member" in found for found in payloads):
        return None
    chunks = tuple(_chunk(found) for found in payloads)
    if any(text_hash(chunk.text, chunk.context) != chunk.text_hash for chunk in chunks):
        return None
    language = payloads[0]["language"] if payloads else None
    return Extraction(chunks, record["kind"], record["title"], record["metadata"], None, language)


def _chunk(payload: dict[str, Any]) -> Chunk:
    places = {name: payload[name] for name in _PLACES}
    headings, context = tuple(payload["headings"]), payload.get("context", "")
    return Chunk(payload["chunk"], payload["text"], payload["text_hash"], **places, headings=headings, context=context)


class OldCollection:
    """The points of another generation on a server."""

    def __init__(self, settings: Settings) -> None:
        self._index = open_index(settings)
        self._index.open_existing()

    def of(self, document_id: str) -> list[Point] | None:
        try:
            return [point for page in pages(self._index, document_id) for point in page]
        except HeadwaterError as error:
            log.info("the index that there is cannot be asked now: %s", error)
            return None

    def close(self) -> None:
        self._index.close()


class OldIndex:
    """The points of an embedded index of another generation: from the service that holds it, else opened here for as
    long as no service wants it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._service: Service | None = None
        self._points: Points | None = None
        self._held = contextlib.ExitStack()
        self._paused_until = 0.0
        self._used_at = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._give_way, name="old index", daemon=True).start()

    def of(self, document_id: str) -> list[Point] | None:
        with self._lock:
            if time.monotonic() < self._paused_until:
                return None
            try:
                points = self._points or self._open()
                self._used_at = time.monotonic()
                return [point for page in pages(points, document_id) for point in page]
            except HeadwaterError as error:
                log.info("the index that there is cannot be asked now: %s", error)
                self._let_go()
                self._paused_until = time.monotonic() + _PAUSE_S
                return None

    def close(self) -> None:
        self._ended.set()
        with self._lock:
            self._let_go()

    def _open(self) -> Points:
        service = Service.read(self._layout)
        if service is not None and service.generation == self._layout.generation:
            from headwater.client import RemoteEngine

            engine = RemoteEngine(service.url, self._layout.read_token())
            self._held.callback(engine.close)
            self._service, self._points = service, RemotePoints(engine.post, None)
            return self._points
        if Lock.is_held(self._layout, "up"):
            raise ServiceUnavailable("the service is just starting")
        from headwater.index_edge import EdgeIndex

        lock = Lock(self._layout, "worker").acquire(wait_s=0.0)
        self._held.callback(lock.release)
        index = EdgeIndex(self._layout.index, self._layout.manifest)
        self._held.callback(index.close)
        self._service, self._points = None, LocalPoints(index, index.open_existing())
        return self._points

    def _let_go(self) -> None:
        self._points, self._service = None, None
        self._held.close()

    def _give_way(self) -> None:
        """A service that starts gets the index, and is asked from then on."""
        while not self._ended.wait(_LOOK_S):
            with self._lock:
                ours = self._points is not None and self._service is None
                idle = time.monotonic() - self._used_at > _IDLE_S
                if ours and (idle or Lock.is_held(self._layout, "up")):
                    self._let_go()
