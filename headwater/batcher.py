"""Merges the texts of many callers into batches for the model.

One thread owns the model. It takes queries before live edits before bulk work, sorts the oldest of what waits by
length, and closes a batch when its tokens, padding included, would pass the budget. The same text is embedded once,
however many callers wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headwater.embedder import Embedder, Kind
from headwater.errors import ModelError

__all__ = ["Batcher", "Priority"]

log = logging.getLogger(__name__)
Vector = NDArray[np.float32]
Priority = Literal["query", "live", "bulk"]
_LANES: tuple[Priority, ...] = ("query", "live", "bulk")

#: vectors kept after use, for a text that comes again before the index shows it
_RECENT = 4096
#: characters of one token, to sort and budget without tokenizing twice
_CHARACTERS_PER_TOKEN = 4
#: most texts in one batch: keeps the wait of a query behind it short
_MOST_TEXTS = 64
#: the oldest texts are sorted by length in groups of this many
_WINDOW = 512


@dataclass(frozen=True, slots=True)
class _Key:
    text: str
    kind: Kind


@dataclass(slots=True)
class _Wanted:
    """One text that waits, and who waits for it."""

    key: _Key
    tokens: int
    future: Future[Vector] = field(default_factory=Future)


class Batcher:
    """``embed`` from any thread. ``on_embedded`` is told after each batch of documents how many texts it held."""

    def __init__(
        self, embedder: Embedder, batch_tokens: int, on_embedded: Callable[[int], None] = lambda _: None
    ) -> None:
        self._embedder = embedder
        self._batch_tokens = batch_tokens
        self._on_embedded = on_embedded
        self._changed = threading.Condition()
        self._lanes: dict[Priority, dict[_Key, _Wanted]] = {lane: {} for lane in _LANES}
        self._running: dict[_Key, _Wanted] = {}
        self._recent: OrderedDict[_Key, Vector] = OrderedDict()
        self._generation: list[_Key] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(
        self, texts: Sequence[str], priority: Priority, tokens: Sequence[int] | None = None
    ) -> tuple[Vector, int]:
        """Unit vectors of shape [len(texts), dimension], and how many texts had to be embedded for this call.

        Blocks until they are there. Raises what the model raised, for the callers of that batch only.
        """
        kind: Kind = "query" if priority == "query" else "document"
        lengths = tokens or [len(text) // _CHARACTERS_PER_TOKEN + 2 for text in texts]
        with self._changed:
            futures, fresh = self._enqueue([_Key(text, kind) for text in texts], lengths, priority)
            self._changed.notify()
        rows = [future.result() for future in futures]
        return (np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)), fresh

    def close(self) -> None:
        """End the thread; callers still waiting get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=30)

    def _enqueue(
        self, keys: Sequence[_Key], lengths: Sequence[int], priority: Priority
    ) -> tuple[list[Future[Vector]], int]:
        if self._stopping:
            raise RuntimeError("the batcher is closed")
        futures, fresh = [], 0
        for key, length in zip(keys, lengths, strict=True):
            future = self._known(key, priority)
            if future is None:
                wanted = _Wanted(key, length)
                self._lanes[priority][key] = wanted
                future, fresh = wanted.future, fresh + 1
            futures.append(future)
        return futures, fresh

    def _known(self, key: _Key, priority: Priority) -> Future[Vector] | None:
        """The future of a text that was embedded lately or already waits; a more urgent caller moves it ahead."""
        if (vector := self._recent.get(key)) is not None:
            done: Future[Vector] = Future()
            done.set_result(vector)
            return done
        if (running := self._running.get(key)) is not None:
            return running.future
        for lane in _LANES:
            if (wanted := self._lanes[lane].get(key)) is not None:
                if _LANES.index(priority) < _LANES.index(lane):
                    self._lanes[priority][key] = self._lanes[lane].pop(key)
                return wanted.future
        return None

    # -- the thread that owns the model ----------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                vectors = self._encode(batch)
            except BaseException as error:  # handed to those who wait
                self._fail(batch, error)
                continue
            self._finish(batch, vectors)

    def _encode(self, batch: list[_Wanted]) -> Vector:
        vectors = self._embedder.encode([wanted.key.text for wanted in batch], batch[0].key.kind)
        if len(vectors) != len(batch):
            raise ModelError(f"the model gave {len(vectors)} vectors for {len(batch)} texts")
        return vectors

    def _fail(self, batch: list[_Wanted], error: BaseException) -> None:
        """One text may spoil a batch: then each is tried alone, and only the bad ones' callers hear of it."""
        if len(batch) == 1:
            self._finish(batch, error)
            return
        for wanted in batch:
            try:
                self._finish([wanted], self._encode([wanted]))
            except BaseException as alone:  # handed to those who wait
                self._finish([wanted], alone)

    def _next_batch(self) -> list[_Wanted] | None:
        with self._changed:
            while not self._stopping and not any(self._lanes.values()):
                self._changed.wait()
            if self._stopping:
                self._abandon()
                return None
            lane = next(lane for lane in _LANES if self._lanes[lane])
            batch = self._cut(self._lanes[lane])
            for wanted in batch:
                del self._lanes[lane][wanted.key]
                self._running[wanted.key] = wanted
            return batch

    def _cut(self, waiting: dict[_Key, _Wanted]) -> list[_Wanted]:
        """The longest of the oldest texts that fit the budget together: neighbours in length waste least padding,
        and a text waits for those before it only."""
        oldest = [wanted for key in self._generation if (wanted := waiting.get(key)) is not None]
        if not oldest:
            oldest = list(islice(waiting.values(), _WINDOW))
            oldest.sort(key=lambda wanted: wanted.tokens, reverse=True)
            self._generation = [wanted.key for wanted in oldest]
        fitting = max(1, self._batch_tokens // max(1, oldest[0].tokens))
        return oldest[: min(fitting, _MOST_TEXTS)]

    def _finish(self, batch: list[_Wanted], result: Vector | BaseException) -> None:
        with self._changed:
            for wanted in batch:
                self._running.pop(wanted.key, None)
            if not isinstance(result, BaseException):
                self._remember(batch, result)
        if isinstance(result, BaseException):
            for wanted in batch:
                wanted.future.set_exception(result)
            return
        for wanted, vector in zip(batch, result, strict=True):
            wanted.future.set_result(vector)
        if batch[0].key.kind == "document":
            try:
                self._on_embedded(len(batch))
            except Exception:  # the count is not worth the thread that owns the model
                log.exception("%d embedded texts could not be counted", len(batch))

    def _remember(self, batch: list[_Wanted], vectors: Vector) -> None:
        for wanted, vector in zip(batch, vectors, strict=True):
            self._recent[wanted.key] = vector
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _abandon(self) -> None:
        for lane in self._lanes.values():
            for wanted in lane.values():
                wanted.future.set_exception(RuntimeError("the batcher is closed"))
            lane.clear()
