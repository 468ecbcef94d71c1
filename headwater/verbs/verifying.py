"""The runs behind ``headwater verify``: open the index where it is, compare, repair, and compare once more."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import Console

from headwater.embedder import Embedder, load_embedder
from headwater.errors import DiskFull, IndexMismatch, IndexUnavailable, ServiceUnavailable
from headwater.index import BATCH_POINTS, SeenPoint, open_index
from headwater.points import LocalPoints, NoPoints, Points, RemotePoints
from headwater.query import running_service
from headwater.settings import Settings
from headwater.state import Layout, Lock, Service, check_free_space
from headwater.verbs.audit import Audit
from headwater.verbs.report import Bar, Repaired, Report
from headwater.verbs.rereading import Rereader
from headwater.verbs.scratch import Scratch
from headwater.verification import PointCheck

__all__ = ["Verifying", "scratch_directory"]

#: prefix of scratch directories in the state directory; the pid of their process follows
_SCRATCH = "verify-"
#: repair through a running service gives up when nothing was settled for so long
_PATIENCE_S = 120.0
#: a worker that is ending may hold the shard for a moment
_LOCK_WAIT_S = 10.0


@dataclass
class Verifying:
    """The command on one state directory, with its progress bar."""

    settings: Settings
    layout: Layout
    as_json: bool
    bar: Bar

    def run(self, *, repair: bool) -> int:
        """Verify; if asked to, put right what is wrong and verify once more. Returns the exit status."""
        with scratch_directory(self.layout) as directory:
            with self._opened(broken_is_empty=repair) as opened:
                found = self._audit(opened, directory)
                if not repair or found.ok:
                    return self._print(found)
                repaired = self._repair(opened, found)
            if not opened.live:
                self._run_once()
            with scratch_directory(self.layout) as anew, self._opened() as opened:
                return self._print(replace(self._audit(opened, anew), repaired=repaired))

    def _print(self, report: Report) -> int:
        self.bar.stop()
        report.print_json() if self.as_json else report.print(Console(highlight=False, markup=False, emoji=False))
        return report.status

    @cached_property
    def _embedder(self) -> Embedder:
        self.bar.stage("loading the model")
        return load_embedder(self.settings)

    # -- parts -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, *, broken_is_empty: bool = False) -> Iterator[_Opened]:
        """The index: through the service that holds it, or opened here and held against others."""
        service = self._service()
        live = any(Lock.is_held(self.layout, name) for name in ("up", "producer"))
        with contextlib.ExitStack() as held:
            if self.settings.qdrant_url is None and service is not None:
                points: Points = _remote(service, self.layout)
            else:
                if self.settings.qdrant_url is None:
                    lock = Lock(self.layout, "worker").acquire(wait_s=_LOCK_WAIT_S)
                    held.callback(lock.release)
                points = _open_here(self.settings, self.layout, broken_is_empty=broken_is_empty)
            held.callback(points.close)
            yield _Opened(points, live)
            if service is not None and self._service() is None:
                raise ServiceUnavailable(
                    "the service has moved to another generation of the index meanwhile: run 'headwater verify' again"
                )

    def _service(self) -> Service | None:
        """Whoever answers from this generation, to all or to the reindex that fills it."""
        service = running_service(self.layout)
        if service is None or service.generation == self.layout.generation:
            return service
        return Service.read_from(self.layout.private_service)

    def _audit(self, opened: _Opened, directory: Path) -> Report:
        from headwater.lexical import Bm25Encoder
        from producer.ledger import Ledger
        from producer.rules import Rules
        from producer.scanner import Scanner
        from worker.sandboxes import SandboxPool

        settings, root = self.settings, os.fsencode(self.settings.required_folder())
        embedder = self._embedder
        if (manifest := opened.points.manifest()) is not None:
            manifest.check(embedder.name, embedder.dimension, str(self.layout.index))
        sandboxes = SandboxPool.of(settings, embedder, directory / "sandbox")
        scratch = Scratch(directory)
        ledger = Ledger(self.layout.ledger, read_only=True)
        try:
            _check_pipeline(ledger.meta("pipeline"), settings)
            rules = Rules(root, settings.include, settings.exclude, frozenset({os.fsencode(self.layout.root)}))
            audit = Audit(
                ledger=ledger,
                scanner=Scanner(root, rules),
                points=opened.points,
                rereader=Rereader(
                    root,
                    settings.source,
                    settings.max_file_bytes,
                    settings.pipeline_fingerprint(),
                    sandboxes,
                    lambda texts: embedder.encode(texts, "document"),
                ),
                check=PointCheck(embedder.dimension, Bm25Encoder().document),
                scratch=scratch,
                threads=settings.sandboxes or os.cpu_count() or 1,
                live=opened.live,
                progress=self.bar,
                source=settings.source,
            )
            return Report(audit.run(), scratch)
        finally:
            ledger.close()
            sandboxes.close()

    # -- repair ----------------------------------------------------------------------------------------------

    def _repair(self, opened: _Opened, found: Report) -> Repaired:
        """Points first, for their vectors would be used again; a running service is waited for."""
        discarded = _discard(opened.points, found.scratch)
        first, end = self._want_again(found.scratch)
        if opened.live:
            self._await_settled(first, end)
        return Repaired(end - first, discarded, found)

    def _want_again(self, scratch: Scratch) -> tuple[int, int]:
        from producer.ledger import Ledger

        ledger = Ledger(self.layout.ledger)
        try:
            with ledger.transaction():
                return ledger.want_as_seen(scratch.again())
        finally:
            ledger.close()

    def _await_settled(self, first: int, end: int) -> None:
        """Until the running service has brought these versions in, or nothing has moved for too long."""
        from producer.ledger import Ledger

        self.bar.stage("waiting for the service", end - first)
        ledger = Ledger(self.layout.ledger, read_only=True)
        try:
            left, moved_at = end - first, time.monotonic()
            while left and time.monotonic() - moved_at < _PATIENCE_S:
                now = ledger.waiting_between(first, end)
                if now != left:
                    self.bar.advance(left - now)
                    left, moved_at = now, time.monotonic()
                time.sleep(0.1)
        finally:
            ledger.close()

    def _run_once(self) -> None:
        """As ``headwater up --once``."""
        from headwater.supervisor import Supervisor
        from producer.status import forget_step

        layout = self.layout.create()
        check_free_space(layout.root, self.settings.min_free_bytes)
        lock = Lock(layout, "up").acquire()
        try:
            forget_step(layout)
            self.bar.stage("bringing the index in step")
            supervisor = Supervisor(self.settings, layout, True, lambda: None, self.bar.stop)
            supervisor.run()
        finally:
            lock.release()
        if supervisor.interrupted:
            sys.exit(130)


@dataclass(frozen=True)
class _Opened:
    points: Points
    #: a producer runs, and what looks wrong may be on its way
    live: bool


def _remote(service: Service, layout: Layout) -> Points:
    from headwater.client import RemoteEngine
    from headwater.index_edge import EdgeIndex

    engine = RemoteEngine(service.url, layout.read_token())
    return RemotePoints(engine.post, EdgeIndex(layout.index, layout.manifest).manifest())


def _open_here(settings: Settings, layout: Layout, *, broken_is_empty: bool) -> Points:
    """An index that was never made is empty; one that cannot be opened is too when it is to be repaired."""
    index = open_index(settings, layout)
    try:
        return LocalPoints(index, index.open_existing(), settings.source if settings.qdrant_url else None)
    except IndexUnavailable:
        index.close()
        never_made = settings.qdrant_url is None and not (layout.manifest.exists() and layout.index.is_dir())
        if never_made or (broken_is_empty and settings.qdrant_url is None):
            return NoPoints()
        raise


def _check_pipeline(held: str | None, settings: Settings) -> None:
    """Raises IndexMismatch if the documents were cut with other settings than those in force."""
    if held is not None and held != settings.pipeline_fingerprint():
        raise IndexMismatch(
            "the index was made with another model, chunk_tokens, heading_context, truncate_dim, document_prompt, "
            "ocr or max_file_bytes than the settings in force: give those that it was made with, or run 'headwater up' "
            "to bring it in step"
        )


def _discard(points: Points, scratch: Scratch) -> int:
    """Delete what rewriting would not put right; the number of points."""
    number = 0
    batch: list[SeenPoint] = []
    for point in scratch.discards():
        batch.append(point)
        number += 1
        if len(batch) == BATCH_POINTS:
            points.discard(batch)
            batch = []
    if batch:
        points.discard(batch)
    return number


@contextlib.contextmanager
def scratch_directory(layout: Layout) -> Iterator[Path]:
    """A directory of our own in the state directory; those of processes that were killed go with it."""
    for left in layout.root.glob(f"{_SCRATCH}*"):
        pid = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    try:
        directory = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=layout.root))
    except OSError as error:
        raise _no_scratch(layout, error) from None
    try:
        yield directory
    except sqlite3.Error as error:  # those of the ledger have a type of ours
        raise _no_scratch(layout, error) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _no_scratch(layout: Layout, error: Exception) -> DiskFull:
    return DiskFull(f"the comparison cannot keep its notes in {layout.root} ({error}): free some space there")
