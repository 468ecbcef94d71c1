"""The embedded index as a worker uses it: the engine in a child process, searches before writes, durable by syncing the
engine's log, and compacted by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headwater.compaction import (
    Changes,
    Journal,
    Upkeep,
    Wear,
    clear_leftovers,
    copy_shard,
    settle_swap,
    size_of,
    swap,
    sync_log,
    sync_tree,
)
from headwater.engine import EngineDied, EngineProcess, optimize
from headwater.errors import HeadwaterError, IndexUnavailable
from headwater.failpoints import reach
from headwater.group_commit import GroupCommit
from headwater.index import (
    DocumentState,
    DocumentWrite,
    IndexCounts,
    Manifest,
    Point,
    Quantization,
    ScoredChunk,
    SearchQuery,
    SeenPoint,
)
from headwater.state import check_free_space
from headwater.turns import Gate, Turns

__all__ = ["ProcessIndex"]

log = logging.getLogger(__name__)
Vector = NDArray[np.float32]

#: seconds between two looks at what the index needs
_TICK_S = 1.0
#: changes that are few enough to hold the writes for them
_FEW_CHANGES = 20
#: documents whose changes are repeated at once: each look at the shard waits for a search
_REPEATED_TOGETHER = 10
#: seconds without another try after one that failed
_PAUSE_S = 60.0


class ProcessIndex:
    """A ``VectorIndex`` on one directory. It may be used while no other process writes there."""

    def __init__(
        self,
        directory: Path,
        manifest: Path,
        *,
        on_damage: Callable[[str], object],
        min_free_bytes: int = 0,
        least_dead: int = 1000,
        quantization: Quantization = "none",
    ) -> None:
        """``on_damage`` is told, with a sentence, when the engine died or finds its files damaged: this object is of no
        use then. A compaction leaves ``min_free_bytes`` of the disk free, and happens by itself once ``least_dead``
        points are dead."""
        self._directory = directory
        self._manifest_path = manifest
        self._on_damage = on_damage
        self._min_free_bytes = min_free_bytes
        self._least_dead = least_dead
        self._quantization: Quantization = quantization
        self._engine: EngineProcess | None = None
        self._turns = Turns()
        self._writes_gate = Gate()
        self._commits = GroupCommit()
        self._journal: Journal | None = None
        self._newest: tuple[int, int | None] | None = None
        self._values: dict[tuple[str, bool], tuple[int, list[str]]] = {}
        self._calls_that_write = 0
        self._written = 0
        self._checkpointed = 0
        self._checkpointed_at = time.monotonic()
        self._compacting = threading.Lock()
        self._stop = threading.Event()
        self._keeper: tuple[str, threading.Thread] | None = None

    # -- open and close --------------------------------------------------------------------------------------

    def ensure_schema(self, model: str, dimension: int) -> Manifest:
        before = self._opened("manifest")
        manifest: Manifest = self._opened("ensure_schema", model, dimension)
        if before is not None and before.quantization != manifest.quantization:
            Wear(manifest.index_id, 0, int(self._ask("points_count"))).write(self._wear_path)  # all is to be made anew
        return self._keep(manifest)

    def open_existing(self) -> Manifest:
        manifest: Manifest = self._opened("open_existing")
        return self._keep(manifest)

    def _opened(self, method: str, *arguments: Any) -> Any:
        if self._engine is None:
            settle_swap(self._directory)
            clear_leftovers(self._directory)
            self._engine = EngineProcess(self._directory, self._manifest_path, self._quantization)
        return self._ask(method, *arguments)

    def _keep(self, manifest: Manifest) -> Manifest:
        """Look after this index from now on."""
        if self._keeper is None or self._keeper[0] != manifest.index_id:
            self._let_go()
            self._stop = threading.Event()
            arguments = (manifest.index_id, self._stop)
            self._keeper = manifest.index_id, threading.Thread(target=self._look_after, args=arguments, name="keeper")
            self._keeper[1].start()
        return manifest

    def _let_go(self) -> None:
        if self._keeper is not None:
            self._stop.set()
            self._keeper[1].join()
            self._keeper = None

    def for_questions(self) -> Self:
        return self

    def close(self) -> None:
        self._let_go()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.end()

    # -- write -----------------------------------------------------------------------------------------------

    def stage(self, document: DocumentWrite) -> None:
        self._change([document.document_id], len(document.chunks), "stage", document)

    def apply(self, document: DocumentWrite) -> None:
        self.apply_all([document])

    def apply_all(self, documents: Sequence[DocumentWrite]) -> None:
        points = sum(len(document.chunks) + 1 for document in documents)
        self._change([document.document_id for document in documents], points, "apply_all", documents)

    def delete(self, document_id: str, seq: int) -> None:
        self._change([document_id], 1, "delete", document_id, seq)

    def remove(self, document_id: str, seq: int) -> DocumentState | None:
        left: DocumentState | None = self._change([document_id], 1, "remove", document_id, seq)
        return left

    def sweep(self, seqs: Sequence[int], source: str | None = None) -> None:
        self._call("sweep", tuple(seqs), source)

    def sweep_unversioned(self) -> None:
        self._call("sweep_unversioned")

    def discard(self, points: Sequence[SeenPoint]) -> None:
        self._call("discard", tuple(points))

    def _change(self, document_ids: Sequence[str], points: int, method: str, *arguments: Any) -> Any:
        """A write to these documents."""
        with self._writes_gate.passed():
            try:
                return self._ask(method, *arguments)
            finally:
                self._wrote(points)
                if self._journal is not None:
                    self._journal.note_documents(document_ids)

    def _call(self, method: str, *arguments: Any) -> None:
        """A write that names no document."""
        with self._writes_gate.passed():
            try:
                self._ask(method, *arguments)
            finally:
                self._wrote(1)
                if self._journal is not None:
                    self._journal.note_call(method, arguments)

    def _wrote(self, points: int) -> None:
        self._calls_that_write += 1
        self._written += points  # a rough figure: two threads may lose a few

    def flush(self) -> None:
        """Durable by the engine's log alone: it is replayed when the shard is loaded next."""
        self._commits.run(self._sync)

    def _sync(self) -> None:
        if self._engine is None:
            raise IndexUnavailable(f"the index {self._directory} is closed")
        with self._writes_gate.passed():  # the directory stays where it is
            try:
                sync_log(self._directory)
            except OSError as error:
                raise IndexUnavailable(f"the embedded index could not flush: {error}") from error

    def checkpoint(self) -> None:
        written = self._written
        with self._writes_gate.passed():  # not into the copy that a compaction makes
            self._flush_files()
        self._checkpointed, self._checkpointed_at = written, time.monotonic()

    def _flush_files(self) -> None:
        """Let the engine flush all its files, of which most is on the disk before: searches wait for its own part."""
        try:
            sync_tree(self._directory)
        except OSError as error:
            raise IndexUnavailable(f"the embedded index could not flush: {error}") from error
        self._ask("flush")

    # -- read ------------------------------------------------------------------------------------------------

    def document_state(self, document_id: str) -> DocumentState | None:
        state: DocumentState | None = self._ask("document_state", document_id)
        return state

    def document_states(self, document_ids: Sequence[str]) -> dict[str, DocumentState]:
        states: dict[str, DocumentState] = self._ask("document_states", tuple(document_ids))
        return states

    def record(self, document_id: str) -> Mapping[str, Any] | None:
        payload: Mapping[str, Any] | None = self._ask("record", document_id)
        return payload

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        found: dict[str, Vector] = self._ask("vectors", tuple(text_hashes)) if text_hashes else {}
        return found

    def document_vectors(self, document_id: str) -> Vector:
        rows: Vector = self._ask("document_vectors", document_id)
        return rows

    def path_vectors(self, path: str) -> Vector:
        rows: Vector = self._ask("path_vectors", path)
        return rows

    def search(self, query: SearchQuery) -> list[ScoredChunk]:
        found: list[ScoredChunk] = self._ask("search", query, first=True)
        return found

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        writes = self._calls_that_write
        known = self._values.get((field, exact))
        if known is None or known[0] != writes:
            known = self._values[field, exact] = writes, self._ask("values_of", field, exact, first=True)
        return known[1]

    def newest_seq(self) -> int | None:
        writes = self._calls_that_write
        if self._newest is None or self._newest[0] != writes:
            self._newest = writes, self._ask("newest_seq", first=True)
        return self._newest[1]

    def document_chunks(self, document_id: str, first: int, last: int) -> list[Mapping[str, Any]]:
        chunks: list[Mapping[str, Any]] = self._ask("document_chunks", document_id, first, last)
        return chunks

    def census(self, source: str | None = None) -> dict[int, int]:
        counts: dict[int, int] = self._ask("census", source)
        return counts

    def count(self) -> IndexCounts:
        counts: IndexCounts = self._ask("count")
        return counts

    def page(
        self, offset: str | None = None, document_id: str | None = None, source: str | None = None
    ) -> tuple[list[Point], str | None]:
        found: tuple[list[Point], str | None] = self._ask("page", offset, document_id, source)
        return found

    def scan(self, *, with_vectors: bool = False) -> Iterator[Point]:
        offset: str | None = None
        while True:
            points, offset = self._ask("scan_page", offset, with_vectors)
            yield from points
            if offset is None:
                return

    def _ask(self, method: str, *arguments: Any, first: bool = False) -> Any:
        with self._turns.taken(first=first):
            if self._engine is None:
                raise IndexUnavailable(f"the index {self._directory} is closed")
            try:
                return self._engine.call(method, *arguments)
            except EngineDied as death:
                self._engine.kill()
                self._engine = None
                sentence = str(death)
        self._on_damage(sentence)
        raise IndexUnavailable(sentence)

    @property
    def engine_pid(self) -> int | None:
        """The process that has the shard; None if it is closed."""
        return None if self._engine is None else self._engine.pid

    # -- upkeep ----------------------------------------------------------------------------------------------

    def _look_after(self, index_id: str, stop: threading.Event) -> None:
        """Flush the engine's files and compact them when it is time, until ``stop``. What fails is tried again."""
        upkeep: Upkeep | None = None
        while not stop.wait(_TICK_S):
            try:
                upkeep = upkeep or Upkeep(self._wear(index_id))
                self._look_once(upkeep, stop)
            except (HeadwaterError, OSError) as error:
                log.warning("the index was not flushed or compacted, which is tried again in a minute: %s", error)
                stop.wait(_PAUSE_S)
        if upkeep is not None:
            upkeep.wear.plus(self._written - upkeep.counted).write(self._wear_path)

    def _look_once(self, upkeep: Upkeep, stop: threading.Event) -> None:
        now, written = time.monotonic(), self._written
        if upkeep.is_checkpoint_due(written, written - self._checkpointed, now - self._checkpointed_at):
            self.checkpoint()
            upkeep.wear.plus(written - upkeep.counted).write(self._wear_path)
        busy = upkeep.is_busy(written, now)
        if now < upkeep.paused_until or upkeep.looked_at == (written, busy):
            return
        upkeep.looked_at = written, busy
        if upkeep.wear.plus(written - upkeep.counted).is_due(
            self._ask("points_count"), busy=busy, least_dead=self._least_dead
        ):
            self.compact(stop)
            upkeep.note_compaction(self._wear_now(upkeep.wear.index_id), written, now, time.monotonic())

    def compact(self, stop: threading.Event | None = None) -> bool:
        """Compact the shard now; whether there was anything to do. Searches and writes go on, except that writes wait
        while the shard is copied and while the last of them are repeated. Raises HeadwaterError or OSError
        if it cannot be done, and the shard is as it was."""
        with self._compacting:
            return self._compact(stop or threading.Event())

    def _compact(self, stop: threading.Event) -> bool:
        journal = Journal()
        try:
            self.checkpoint()  # so that there is little left to flush while writes are held
            with self._writes_gate.held():
                self._flush_files()
                check_free_space(self._directory, 2 * size_of(self._directory) + self._min_free_bytes)
                self._journal = journal
                copy = copy_shard(self._directory)
            reach("index:copied")
            done = optimize(copy, self._manifest_path, stop)
            reach("index:optimized")
            if done:
                self._take_over(copy, journal)
            return bool(done)
        finally:
            self._journal = None
            clear_leftovers(self._directory)

    def _take_over(self, copy: Path, journal: Journal) -> None:
        """Bring the compacted copy up to date and put it in the place of the shard."""
        engine = EngineProcess(copy, self._manifest_path, self._quantization)
        try:
            engine.call("open_existing")
            before = None
            while len(changes := journal.take()) > _FEW_CHANGES and (before is None or 2 * len(changes) < before):
                before = len(changes)  # each round has less to do than the one before, unless writes are faster
                self._repeat(changes, engine)
            self._repeat(changes, engine)
            engine.call("flush")
            sync_tree(copy)
            with self._writes_gate.held():
                self._repeat(journal.take(), engine)
                engine.call("flush")
                reach("index:caught-up")
                with self._turns.taken(first=True):
                    swap(self._directory, copy)
                    self._engine, engine = engine, self._engine  # at once: the old one's directory goes now
                    self._engine.call("moved", self._directory)
        finally:
            if engine is not None:
                engine.kill()

    def _repeat(self, changes: Changes, engine: EngineProcess) -> None:
        """Do to the copy what was done to the shard."""
        for method, arguments in changes.calls:
            engine.call(method, *arguments)
        documents = sorted(changes.documents)
        for first in range(0, len(documents), _REPEATED_TOGETHER):
            group = tuple(documents[first : first + _REPEATED_TOGETHER])
            points: list[Point] = []
            offset: str | None = None
            while True:
                page, offset = self._ask("documents_page", offset, group)
                points += page
                if offset is None:
                    break
            engine.call("replace", group, points)

    def _wear(self, index_id: str) -> Wear:
        known = Wear.read(self._wear_path, index_id)
        return known or Wear(index_id, 0, int(self._ask("points_count")))

    def _wear_now(self, index_id: str) -> Wear:
        return Wear(index_id, int(self._ask("points_count")))

    @property
    def _wear_path(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}.wear.json")
