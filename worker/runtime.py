"""What one worker process holds: the index, the model, the extraction children and, if asked, the query API."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from headwater import tracing
from headwater.api import make_api
from headwater.batcher import Batcher, Priority
from headwater.broker import make_client
from headwater.embedder import Embedder, load_embedder
from headwater.errors import (
    BrokerUnavailable,
    FolderError,
    IndexMismatch,
    IndexUnavailable,
    MessageError,
    ModelError,
    RetryableError,
    SettingsError,
)
from headwater.following import on_server
from headwater.generations import Made, making
from headwater.index import Manifest, VectorIndex, open_index
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine, Progress, Surroundings, query_embedding
from headwater.messages import CensusRequest, Hello, Hint, Holding, events_key, namespace
from headwater.metrics import PROCESS, QUERY, WORKER, IndexPoints, join, listen
from headwater.rights import refused
from headwater.settings import Settings
from headwater.state import Layout, Lock, check_free_space, find_layout, known_layout
from worker.census import census_pages
from worker.claims import Claims
from worker.consuming import Consuming
from worker.fitness import Fitness
from worker.kept import KeptVectors
from worker.pipeline import Embed, Pipeline, Vector
from worker.reporter import Reporter
from worker.sandboxes import SandboxPool
from worker.serving import ApiPlace, ListenLater, Serving
from worker.stored import StoredTexts

if TYPE_CHECKING:
    from headwater.index_server import ServerIndex

__all__ = ["Runtime"]

log = logging.getLogger(__name__)

#: a worker that is ending may hold the lock and the shard for a moment
_LOCK_WAIT_S = 20.0
#: what the temporary directories of extraction children begin with, before the pid of their worker
_HOMES = "headwater-work-"


def _end_at_once(sentence: str) -> None:
    """Nothing can be done here with a damaged shard, not even to close it: the next process makes a new one."""
    print(f"headwater: {sentence}", file=sys.stderr, flush=True)
    os._exit(IndexUnavailable.exit_code)


class Runtime:
    """``start`` in the main thread before any task runs; ``close`` after the last one has ended."""

    def __init__(
        self,
        settings: Settings,
        *,
        status: Callable[[], dict[str, Any]] | None = None,
        progress: Progress | None = None,
        numbers: Collector | None = None,
        on_stall: Callable[[], None] = lambda: None,
        place: ApiPlace | None = None,
    ) -> None:
        """``progress`` and ``numbers`` tell how far the producer is, and its metrics, if they can be known here.
        ``on_stall`` is called when the model hangs: this process is to report what it has, and to end. ``place``: where
        the API is if not on a port of our own."""
        self._settings = settings
        self._progress = progress
        self._numbers = numbers
        self._on_stall = on_stall
        self._status = status or (lambda: {"running": True})
        self._layout: Layout | None = None if settings.qdrant_url else find_layout(settings).create()
        self._engine: Future[LocalEngine] = Future()
        self._place = place or ApiPlace()
        self._serving: Serving | None = None
        self._closers: list[Callable[[], object]] = []
        self._folders = settings.folders()
        self._spaces = {source: namespace(settings.prefix, source) for source in self._folders}
        self._reporters = {
            source: Reporter(make_client(settings), events_key(space)) for source, space in self._spaces.items()
        }
        self._pipelines: dict[str, Pipeline] = {}
        self._index: tuple[VectorIndex, str] | None = None
        self.consuming = Consuming(tuple(self._spaces.values()))
        self._fitness: Fitness | None = None

    def start(self, *, serve: bool = False) -> None:
        """Open everything. Raises HeadwaterError with one sentence if a part cannot be had."""
        settings = self._settings
        self._check_folders()
        self._check_rights()
        self._lock()
        index = open_index(settings, self._layout, on_damage=_end_at_once)
        self._closers.append(index.close)
        tracing.start(settings, "work")
        self._closers.append(tracing.end)
        told = self._metrics(index, serve)
        greeted = self._open_early(index)
        if serve:
            self._serve(index, told)
        self._compare_with_producer(index)
        embedder = load_embedder(settings)
        batcher = Batcher(
            embedder,
            settings.batch_tokens,
            timeout_s=settings.embed_timeout_s,
            on_stall=self._on_stall,
        )
        self._closers.append(batcher.close)
        _try_out(batcher, settings)
        manifest = index.ensure_schema(embedder.name, embedder.dimension)
        self._check_sources(index)
        self._index = index, manifest.index_id
        self._note_making(embedder)
        self._embedder = embedder
        self._pipelines = self._make_pipelines(index, batcher, embedder)
        embed = query_embedding(embedder, lambda text: batcher.embed([text], "query")[0][0])
        around = Surroundings.of(settings, self._progress, lambda: embedder.tokenizer_json)
        self._engine.set_result(LocalEngine(index, embed, Bm25Encoder().query, around))
        if not greeted:
            self._greet(index, manifest)

    def census(self, request: CensusRequest) -> None:
        """Delete what nobody wants of a folder, durably, and tell what the index holds of it. A collection that is gone
        is made anew."""
        assert self._index is not None, "the worker has not started"
        self._check_source(request.source)
        self._check_collection()
        index, index_id = self._index
        if request.brief and self._layout is None:
            points, newest = as_server(index).holding(request.source)
            self._reporters[request.source].report([Holding(index_id, points, newest)])
            return
        if request.sweep:
            index.sweep(request.sweep, self._scope(request.source))
            index.flush()
        self._take_census(index, index_id, request.census, request.source)

    def refuses(self, hint: Hint) -> str | None:
        """Why this worker must leave a hint to others; None if it need not."""
        return None if self._fitness is None else self._fitness.refuses(hint)

    def _compare_with_producer(self, index: VectorIndex) -> None:
        """Before anything is made or taken. (One machine has one set of settings.)"""
        if self._layout is not None:
            return
        settings, server = self._settings, as_server(index)
        pipeline = settings.pipeline_fingerprint(), settings.pipeline_parts()
        self._fitness = Fitness(
            make_client(settings), _name(), self._folders, self._spaces, pipeline, self._reporters,
            self.consuming.switch, server.ping, self._lacks,
        )  # fmt: skip
        self._closers.append(self._fitness.close)
        self._fitness.start()
        unlike = [source for source in self._folders if self._fitness.has_another_model(source)]
        if unlike and server.manifest() is None:
            raise IndexUnavailable(f"the collection is not made: {self._fitness.reason(unlike[0])}")

    def _check_collection(self) -> None:
        """Somebody may have dropped the collection, or made it anew: then the producer hears of another index."""
        assert self._index is not None, "the worker has not started"
        index, index_id = self._index
        if self._layout is not None:
            return
        manifest = as_server(index).manifest()
        if manifest is None:
            manifest = as_server(index).make_anew(self._embedder.name, self._embedder.dimension)
            self._note_making(self._embedder)
        if manifest is not None and manifest.index_id != index_id:
            log.warning("the collection is not the one that it was: all documents are asked for again")
            self._index = index, manifest.index_id
            self._greet(index, manifest)

    def parts(self, source: str) -> tuple[Pipeline, Reporter]:
        """What the task needs for a folder. Raises MessageError if this worker does not have it."""
        assert self._pipelines, "the worker has not started"
        self._check_source(source)
        return self._pipelines[source], self._reporters[source]

    def _check_source(self, source: str) -> None:
        if source not in self._folders:
            raise MessageError(f"this worker has no folder {source!r}: drop the message")

    def close(self) -> None:
        """Let go of everything, last opened first; but nobody is answered any more before that begins."""
        if self._serving is not None:
            self._serving.close()
        while self._closers:
            self._closers.pop()()

    def _check_rights(self) -> None:
        """A shared broker has users with rights: one that lacks some would fail in the middle of work."""
        for source in self._folders:
            if (reason := self._lacks(source)) is not None:
                raise BrokerUnavailable(reason)

    def _lacks(self, source: str) -> str | None:
        return None if self._settings.broker_url is None else refused(self._settings, "worker", (source,))

    def _check_folders(self) -> None:
        if not self._folders:
            raise FolderError("the worker needs the document folder: set HEADWATER_FOLDER")
        if self._layout is not None and len(self._folders) > 1:
            raise SettingsError("several folders (HEADWATER_SOURCES) need a server for the index: set QDRANT_URL")

    def _check_sources(self, index: VectorIndex) -> None:
        """A folder without a name has its collection for itself, since its paths may be those of any other."""
        others = set(index.values("source")) - self._folders.keys() if self._layout is None else set()
        named = {source for source in self._folders.keys() | others if source}
        if named and ("" in self._folders or "" in others):
            raise IndexMismatch(
                f"the collection {self._settings.collection} would hold a folder without a name beside "
                f"{', '.join(sorted(named))}: give each a name (HEADWATER_SOURCE), or another HEADWATER_COLLECTION"
            )

    def _scope(self, source: str) -> str | None:
        """An embedded index has one folder, and is asked as a whole, which is faster."""
        return source if self._layout is None else None

    def _lock(self) -> None:
        if self._layout is not None:
            lock = Lock(self._layout, "worker").acquire(wait_s=_LOCK_WAIT_S)
            self._closers.append(lock.release)

    def _open_early(self, index: VectorIndex) -> bool:
        """Say hello before the model is loaded, if the index is there: the producer waits for its counts."""
        try:
            self._greet(index, index.open_existing())
        except IndexUnavailable as error:
            log.info("the index is made when the model is loaded: %s", error)
            return False
        return True

    def _greet(self, index: VectorIndex, manifest: Manifest) -> None:
        name = _name()
        for source, reporter in self._reporters.items():
            reporter.report([Hello(name, manifest.index_id)])
            self._take_census(index, manifest.index_id, name, source)

    def _take_census(self, index: VectorIndex, index_id: str, name: str, source: str) -> None:
        counts = index.census(self._scope(source))
        if self._layout is not None:  # points without a seq are those of damaged files; a server looks after its own
            held = index.count()
            if sum(counts.values()) < held.documents + held.chunks:
                index.sweep_unversioned()
                index.flush()
        self._reporters[source].report(list(census_pages(name, index_id, counts)))

    def _metrics(self, index: VectorIndex, serve: bool) -> CollectorRegistry:
        """What this process tells; the producer's numbers too, if it is the one place that is asked."""
        parts: list[Collector] = [WORKER, PROCESS, IndexPoints(index.count)]
        if serve:
            parts += [QUERY] if self._numbers is None else [QUERY, self._numbers]
        told = join(*parts)
        self._closers.append(self._listen(told))
        return told

    def _listen(self, told: CollectorRegistry) -> Callable[[], object]:
        """At once; or, beside a worker of another generation, whose port it is, when that one has ended."""
        if self._place.has_turn(self._settings):
            return listen(self._settings, told)
        later = ListenLater(partial(listen, self._settings, told))
        later.start()
        return later.close

    def _serve(self, index: VectorIndex, told: CollectorRegistry) -> None:
        layout = find_layout(self._settings).create()
        app = make_api(
            self._engine,
            status=self._status,
            flush=index.checkpoint,
            token=layout.read_token(),
            allowed_hosts=self._settings.allowed_hosts,
            index=index,
            numbers=told,
        )
        self._serving = Serving(self._settings, layout, self._place, app, self._engine)
        self._serving.start()

    def _make_pipelines(self, index: VectorIndex, batcher: Batcher, embedder: Embedder) -> dict[str, Pipeline]:
        """One for each folder; all share the index, the model and the extraction children."""
        settings = self._settings
        sandboxes = SandboxPool.of(settings, embedder, self._sandbox_homes())
        self._closers.append(sandboxes.close)
        sandboxes.start()
        kept, claims, stored = self._kept(embedder.name), self._claims(), self._stored(embedder)
        return {
            source: Pipeline(
                root=os.fsencode(folder),
                source=source,
                index=index,
                embed=_counted(batcher, self._reporters[source]),
                encode_sparse=Bm25Encoder().document,
                extractor=sandboxes,
                pipeline_fingerprint=settings.pipeline_fingerprint(),
                max_file_bytes=settings.max_file_bytes,
                check_space=self._check_space,
                kept=kept,
                claim=None if claims is None else partial(claims.held, self._spaces[source]),
                stored=stored,
            )
            for source, folder in self._folders.items()
        }

    def _claims(self) -> Claims | None:
        """An embedded index has one worker, which needs none."""
        if self._layout is not None:
            return None
        takes = (lambda space: True) if self._fitness is None else self._fitness.takes_hints
        claims = Claims(make_client(self._settings), tuple(self._spaces.values()), _name(), takes)
        claims.start()
        self._closers.append(claims.close)
        return claims

    def _kept(self, model: str) -> KeptVectors | None:
        """Beside an embedded index; with a server's, whose workers are many, nothing is kept."""
        if self._layout is None or not self._settings.keep_s:
            return None
        kept = KeptVectors(self._layout.kept, model, self._settings.keep_s)
        self._closers.append(kept.close)
        return kept

    def _note_making(self, embedder: Embedder) -> None:
        """What this index is made with, for a later reindex and for the one that follows it."""
        settings = self._settings
        cutting = settings.cutting_fingerprint(embedder.tokenizer_json, embedder.window)
        made = Made(making(settings), settings.pipeline_fingerprint(), cutting)
        if self._layout is not None:
            made.write(self._layout)
            return
        with on_server(settings) as index:
            if index is not None:
                index.aliases.note(settings.generation or 1, "made", asdict(made))

    def _stored(self, embedder: Embedder) -> StoredTexts | None:
        """The texts of the index that a reindex replaces, where its chunks would be cut alike now."""
        if (layout := known_layout(self._settings)) is None:
            return None
        cutting = self._settings.cutting_fingerprint(embedder.tokenizer_json, embedder.window)
        stored = StoredTexts.of(self._settings, layout, cutting)
        if stored is not None:
            self._closers.append(stored.close)
        return stored

    def _sandbox_homes(self) -> Path:
        """In the state directory; workers of a server's index, several of which may share one, each have their own."""
        if self._layout is not None:
            return self._layout.sandboxes
        for left in Path(tempfile.gettempdir()).glob(f"{_HOMES}*"):  # of one that was killed
            pid = left.name.removeprefix(_HOMES).partition("-")[0]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and left.owner() == Path.home().owner():
                shutil.rmtree(left, ignore_errors=True)
        homes = Path(tempfile.mkdtemp(prefix=f"{_HOMES}{os.getpid()}-"))
        self._closers.append(partial(shutil.rmtree, homes, ignore_errors=True))
        return homes

    def _check_space(self) -> None:
        if self._layout is not None:
            check_free_space(self._layout.root, self._settings.min_free_bytes)


def as_server(index: VectorIndex) -> ServerIndex:
    """The index that a server holds."""
    return cast("ServerIndex", index)


def _name() -> str:
    """What this worker is called among others."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _counted(batcher: Batcher, reporter: Reporter) -> Embed:
    """``Batcher.embed``; the texts that the model saw are reported at once, whatever becomes of their document."""

    def embed(texts: Sequence[str], priority: Priority) -> tuple[Vector, int]:
        rows, fresh = batcher.embed(texts, priority)
        if fresh:
            reporter.embedded(fresh)
        return rows, fresh

    return embed


def _try_out(batcher: Batcher, settings: Settings) -> None:
    """One text before the index is made and the first document comes: none of them pays for a model that never works.

    Raises ModelError.
    """
    try:
        batcher.embed(["a first text"], "query")
    except (ModelError, RetryableError) as error:
        raise ModelError(f"the model {settings.model!r} does not work: {error}") from error
