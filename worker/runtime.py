"""What one worker process holds: the index, the model, the extraction children and, if asked, the query API."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from headwater import tracing
from headwater.api import ApiServer, make_api
from headwater.batcher import Batcher
from headwater.broker import make_client
from headwater.embedder import Embedder, load_embedder
from headwater.errors import FolderError, IndexUnavailable, ModelError, RetryableError
from headwater.index import Manifest, VectorIndex, open_index
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine, Progress, Surroundings, query_embedding
from headwater.messages import Hello, events_key
from headwater.metrics import PROCESS, QUERY, WORKER, IndexPoints, join, listen
from headwater.settings import Settings
from headwater.state import Layout, Lock, Service, check_free_space, find_layout
from worker.census import census_pages
from worker.kept import KeptVectors
from worker.pipeline import Pipeline
from worker.reporter import Reporter
from worker.sandboxes import SandboxPool

__all__ = ["Runtime"]

log = logging.getLogger(__name__)

#: a worker that is ending may hold the lock and the shard for a moment
_LOCK_WAIT_S = 20.0


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
    ) -> None:
        """``progress`` and ``numbers`` tell how far the producer is, and its metrics, if they can be known here.
        ``on_stall`` is called when the model hangs: this process is to report what it has, and to end."""
        self._settings = settings
        self._progress = progress
        self._numbers = numbers
        self._on_stall = on_stall
        self._status = status or (lambda: {"running": True})
        self._layout: Layout | None = None if settings.qdrant_url else find_layout(settings).create()
        self._engine: Future[LocalEngine] = Future()
        self._closers: list[Callable[[], object]] = []
        self.pipeline: Pipeline | None = None
        self._index: tuple[VectorIndex, str] | None = None
        self.reporter = Reporter(make_client(settings), events_key(settings.collection))

    def start(self, *, serve: bool = False) -> None:
        """Open everything. Raises HeadwaterError with one sentence if a part cannot be had."""
        settings = self._settings
        root = os.fsencode(self._folder())
        self._lock()
        index = open_index(settings, self._layout, on_damage=_end_at_once)
        self._closers.append(index.close)
        tracing.start(settings, "work")
        self._closers.append(tracing.end)
        told = self._metrics(index, serve)
        greeted = self._open_early(index)
        if serve:
            self._serve(index, told)
        embedder = load_embedder(settings)
        batcher = Batcher(
            embedder,
            settings.batch_tokens,
            self.reporter.embedded,
            timeout_s=settings.embed_timeout_s,
            on_stall=self._on_stall,
        )
        self._closers.append(batcher.close)
        _try_out(batcher, settings)
        manifest = index.ensure_schema(embedder.name, embedder.dimension)
        self._index = index, manifest.index_id
        self.pipeline = self._make_pipeline(root, index, batcher, embedder)
        embed = query_embedding(embedder, lambda text: batcher.embed([text], "query")[0][0])
        around = Surroundings.of(settings, self._progress, lambda: embedder.tokenizer_json)
        self._engine.set_result(LocalEngine(index, embed, Bm25Encoder().query, around))
        if not greeted:
            self._greet(index, manifest)

    def census(self, name: str, sweep: Sequence[int]) -> None:
        """Delete what nobody wants, durably, and tell what the index holds."""
        assert self._index is not None, "the worker has not started"
        index, index_id = self._index
        if sweep:
            index.sweep(sweep)
            index.flush()
        self._take_census(index, index_id, name)

    def parts(self) -> tuple[Pipeline, Reporter]:
        """What the task needs."""
        assert self.pipeline is not None, "the worker has not started"
        return self.pipeline, self.reporter

    def close(self) -> None:
        """Let go of everything, last opened first."""
        while self._closers:
            self._closers.pop()()

    def _folder(self) -> os.PathLike[str]:
        if self._settings.folder is None:
            raise FolderError("the worker needs the document folder: set HEADWATER_FOLDER")
        return self._settings.folder

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
        name = f"{socket.gethostname()}:{os.getpid()}"
        self.reporter.report([Hello(name, manifest.index_id)])
        self._take_census(index, manifest.index_id, name)

    def _take_census(self, index: VectorIndex, index_id: str, name: str) -> None:
        counts, held = index.census(), index.count()
        if sum(counts.values()) < held.documents + held.chunks:
            index.sweep_unversioned()
            index.flush()
        self.reporter.report(list(census_pages(name, index_id, counts)))

    def _metrics(self, index: VectorIndex, serve: bool) -> CollectorRegistry:
        """What this process tells; the producer's numbers too, if it is the one place that is asked."""
        parts: list[Collector] = [WORKER, PROCESS, IndexPoints(index.count)]
        if serve:
            parts += [QUERY] if self._numbers is None else [QUERY, self._numbers]
        told = join(*parts)
        self._closers.append(listen(self._settings, told))
        return told

    def _serve(self, index: VectorIndex, told: CollectorRegistry) -> None:
        server = ApiServer(self._settings)
        layout = find_layout(self._settings).create()
        server.start(
            make_api(
                self._engine,
                status=self._status,
                flush=index.checkpoint,
                token=layout.read_token(),
                allowed_hosts=self._settings.allowed_hosts,
                index=index,
                numbers=told,
            )
        )
        Service(server.url, os.getpid()).write(layout)
        self._closers.append(server.stop)
        self._closers.append(lambda: layout.service.unlink(missing_ok=True))

    def _make_pipeline(self, root: bytes, index: VectorIndex, batcher: Batcher, embedder: Embedder) -> Pipeline:
        settings = self._settings
        sandboxes = SandboxPool.of(settings, embedder, self._sandbox_homes())
        self._closers.append(sandboxes.close)
        sandboxes.start()
        return Pipeline(
            root=root,
            index=index,
            embed=batcher.embed,
            encode_sparse=Bm25Encoder().document,
            extractor=sandboxes,
            pipeline_fingerprint=settings.pipeline_fingerprint(),
            max_file_bytes=settings.max_file_bytes,
            check_space=self._check_space,
            kept=self._kept(embedder.name),
        )

    def _kept(self, model: str) -> KeptVectors | None:
        """Beside an embedded index; with a server's, whose workers are many, nothing is kept."""
        if self._layout is None or not self._settings.keep_s:
            return None
        kept = KeptVectors(self._layout.kept, model, self._settings.keep_s)
        self._closers.append(kept.close)
        return kept

    def _sandbox_homes(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="headwater-")) if self._layout is None else self._layout.sandboxes

    def _check_space(self) -> None:
        if self._layout is not None:
            check_free_space(self._layout.root, self._settings.min_free_bytes)


def _try_out(batcher: Batcher, settings: Settings) -> None:
    """One text before the index is made and the first document comes: none of them pays for a model that never works.

    Raises ModelError.
    """
    try:
        batcher.embed(["a first text"], "query")
    except (ModelError, RetryableError) as error:
        raise ModelError(f"the model {settings.model!r} does not work: {error}") from error
