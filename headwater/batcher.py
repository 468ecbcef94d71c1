"""Merges the texts of many callers into batches for the model.

As many threads as the embedder asks for run the model. Each takes queries before live edits before bulk work; the
oldest text that waits and others of its length make a batch, up to what the embedder takes at once and the token
budget allows. The same text is embedded once, however many callers wait for it. Texts of the lane "alone", which comes
last, share a batch with nobody: what a model makes of one is then its own doing.

A pass of the model that gives no answer in time cannot be ended from within the process. Then nobody waits any more:
the callers hear which texts were in that pass, and ``on_stall`` is called, for this process has to end.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headwater import metrics
from headwater.embedder import Embedder, Kind
from headwater.errors import ModelError, ModelStalled

__all__ = ["Batcher", "Priority"]

log = logging.getLogger(__name__)
Vector = NDArray[np.float32]
Priority = Literal["query", "live", "bulk", "alone"]
_LANES: tuple[Priority, ...] = ("query", "live", "bulk", "alone")

#: vectors kept after use, for a text that comes again before the index shows it
_RECENT = 4096
#: seconds between looks at how long the passes under way have taken, at most
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Key:
    text: str
    kind: Kind


@dataclass(slots=True)
class _Wanted:
    """One text that waits, and who waits for it."""

    key: _Key
    #: in order of arrival
    number: int
    #: tokens in a pass of the model, padding included: texts of one length share a batch
    length: int
    future: Future[Vector] = field(default_factory=Future)


@dataclass(slots=True)
class _Pass:
    """What one thread is at: texts in the model since ``started``, and all that it has taken on."""

    batch: list[_Wanted]
    current: list[_Wanted]
    started: float


class _Queue:
    """The texts of one lane that wait, by length, each in order of arrival."""

    def __init__(self) -> None:
        self._by_length: dict[int, dict[_Key, _Wanted]] = {}
        self._by_key: dict[_Key, _Wanted] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: _Key) -> _Wanted | None:
        return self._by_key.get(key)

    def add(self, wanted: _Wanted) -> None:
        self._by_key[wanted.key] = wanted
        self._by_length.setdefault(wanted.length, {})[wanted.key] = wanted

    def remove(self, wanted: _Wanted) -> None:
        del self._by_key[wanted.key]
        same_length = self._by_length[wanted.length]
        del same_length[wanted.key]
        if not same_length:
            del self._by_length[wanted.length]

    def take(self, most: int, most_tokens: int) -> list[_Wanted]:
        """The oldest text and the next of its length; at least one. A text waits only for those before it."""
        same_length = min(self._by_length.values(), key=lambda texts: next(iter(texts.values())).number)
        first = next(iter(same_length.values()))
        fitting = min(most, max(1, most_tokens // max(1, first.length)))
        taken = list(islice(same_length.values(), fitting))
        for wanted in taken:
            self.remove(wanted)
        return taken

    def clear(self) -> list[_Wanted]:
        waiting = list(self._by_key.values())
        self._by_key.clear()
        self._by_length.clear()
        return waiting


class Batcher:
    """``embed`` from any thread. ``on_stall`` is told once, when a pass of the model has taken longer than
    ``timeout_s``."""

    def __init__(
        self,
        embedder: Embedder,
        batch_tokens: int,
        *,
        timeout_s: float = math.inf,
        on_stall: Callable[[], None] = lambda: None,
    ) -> None:
        self._embedder = embedder
        self._batch_tokens = batch_tokens
        self._changed = threading.Condition()
        self._lanes: dict[Priority, _Queue] = {lane: _Queue() for lane in _LANES}
        self._numbers = count()
        self._running: dict[_Key, _Wanted] = {}
        self._recent: OrderedDict[_Key, Vector] = OrderedDict()
        self._timeout_s = timeout_s
        self._on_stall = on_stall
        self._passes: dict[str, _Pass] = {}
        #: the model has hung, and is not asked any more
        self._stalled = False
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{number}", daemon=True)
            for number in range(embedder.parallel)
        ]
        if timeout_s < math.inf:
            self._threads.append(threading.Thread(target=self._watch, name="batcher-watch", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(
        self, texts: Sequence[str], priority: Priority, lengths: Sequence[int] | None = None
    ) -> tuple[Vector, int]:
        """Unit vectors of shape [len(texts), dimension], and how many texts had to be embedded for this call.

        Blocks until they are there. Raises what the model raised, for the callers of that batch only, and ModelStalled
        if it gives no answer, for these texts or any others. ``lengths`` are those of ``Embedder.lengths``, if the
        caller has them.
        """
        kind: Kind = "query" if priority == "query" else "document"
        lengths = lengths or self._embedder.lengths(texts, kind)
        with self._changed:
            futures, fresh = self._enqueue([_Key(text, kind) for text in texts], lengths, priority)
            self._changed.notify_all()
        rows = _results(futures)
        return (np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)), fresh

    def close(self) -> None:
        """End the threads; callers still waiting get an error, batches under way end."""
        with self._changed:
            self._stopping = True
            abandoned = [wanted for lane in self._lanes.values() for wanted in lane.clear()]
            self._changed.notify_all()
        for wanted in abandoned:
            wanted.future.set_exception(RuntimeError("the batcher is closed"))
        for thread in self._threads:
            if thread.name not in self._passes or not self._stalled:  # one that is stuck ends with the process
                thread.join(timeout=30)

    def _enqueue(
        self, keys: Sequence[_Key], lengths: Sequence[int], priority: Priority
    ) -> tuple[list[Future[Vector]], int]:
        if self._stopping:
            raise RuntimeError("the batcher is closed")
        if self._stalled:
            return [self._after_stall(key) for key in keys], 0
        futures, fresh = [], 0
        for key, length in zip(keys, lengths, strict=True):
            future = self._known(key, priority)
            if future is None:
                wanted = _Wanted(key, next(self._numbers), length)
                self._lanes[priority].add(wanted)
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
                if lane != "alone" and (priority == "alone" or _LANES.index(priority) < _LANES.index(lane)):
                    self._lanes[lane].remove(wanted)
                    self._lanes[priority].add(wanted)
                return wanted.future
        return None

    def _after_stall(self, key: _Key) -> Future[Vector]:
        """A vector that is known still, or nothing."""
        future: Future[Vector] = Future()
        if (vector := self._recent.get(key)) is not None:
            future.set_result(vector)
        else:
            future.set_exception(_not_asked())
        return future

    # -- the threads that run the model ----------------------------------------------------------------------

    def _run(self) -> None:
        self._embedder.enter_thread()
        while (batch := self._next_batch()) is not None:
            try:
                vectors = self._encode(batch)
            except BaseException as error:  # handed to those who wait
                self._fail(batch, error)
                continue
            self._finish(batch, vectors)

    def _encode(self, batch: list[_Wanted]) -> Vector:
        with self._changed:
            under_way = self._passes[threading.current_thread().name]
            under_way.current, under_way.started = batch, time.monotonic()
        kind, started = batch[0].key.kind, time.monotonic()
        try:
            vectors = self._embedder.encode([wanted.key.text for wanted in batch], kind)
        except BaseException:
            metrics.embed_failures.labels("error").inc()
            raise
        metrics.embed_seconds.labels(kind).observe(time.monotonic() - started)
        if len(vectors) != len(batch):
            raise ModelError(f"the model gave {len(vectors)} vectors for {len(batch)} texts")
        if not np.all(np.isfinite(vectors)):
            raise ModelError("the model gave a vector that is not finite: check its weights and precision")
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
            self._passes.pop(threading.current_thread().name, None)
            while not (self._stopping or self._stalled) and not any(self._lanes.values()):
                self._changed.wait()
            if self._stopping or self._stalled:
                return None
            lane = next(lane for lane in _LANES if self._lanes[lane])
            batch = self._lanes[lane].take(1 if lane == "alone" else self._embedder.batch_size, self._batch_tokens)
            self._running.update((wanted.key, wanted) for wanted in batch)
            self._passes[threading.current_thread().name] = _Pass(batch, batch, time.monotonic())
            return batch

    def _finish(self, batch: list[_Wanted], result: Vector | BaseException) -> None:
        with self._changed:
            for wanted in batch:
                self._running.pop(wanted.key, None)
            if not isinstance(result, BaseException):
                self._remember(batch, result)
            for number, wanted in enumerate(batch):
                if wanted.future.done():  # the watch gave it up, and the model answers after all
                    continue
                if isinstance(result, BaseException):
                    wanted.future.set_exception(result)
                else:
                    wanted.future.set_result(result[number])
        if not isinstance(result, BaseException):
            self._measure(batch)

    def _measure(self, batch: list[_Wanted]) -> None:
        kind = batch[0].key.kind
        metrics.texts_embedded.labels(kind).inc(len(batch))
        metrics.tokens_embedded.labels(kind).inc(sum(wanted.length for wanted in batch))
        if kind == "document":
            most = min(self._embedder.batch_size, max(1, self._batch_tokens // max(1, batch[0].length)))
            metrics.batch_texts.observe(len(batch))
            metrics.batch_fill.observe(min(1.0, len(batch) / most))

    def _remember(self, batch: list[_Wanted], vectors: Vector) -> None:
        for wanted, vector in zip(batch, vectors, strict=True):
            self._recent[wanted.key] = vector
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    # -- the thread that watches them ------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, min(_LOOK_S, self._timeout_s / 4))
                if self._stopping:
                    return
                first = not self._stalled
                late = [one for one in self._passes.values() if time.monotonic() - one.started > self._timeout_s]
                for one in late:
                    self._give_up(one)
            if late and first:
                metrics.embed_failures.labels("stalled").inc()
                self._on_stall()

    def _give_up(self, late: _Pass) -> None:
        """Nobody waits for this pass any more, nor for those that it keeps from the model."""
        self._stalled = True
        said = f"the model gave no answer within {self._timeout_s:g} s (HEADWATER_EMBED_TIMEOUT_S)"
        suspects = ModelStalled(said, frozenset(wanted.key.text for wanted in late.current))
        for wanted in late.current:
            if not wanted.future.done():
                wanted.future.set_exception(suspects)
        waiting = [wanted for lane in self._lanes.values() for wanted in lane.clear()]
        for wanted in [*late.batch, *waiting]:
            if not wanted.future.done():
                wanted.future.set_exception(_not_asked())


def _not_asked() -> ModelStalled:
    return ModelStalled("the model gave no answer for other texts: the worker starts anew")


def _results(futures: Sequence[Future[Vector]]) -> list[Vector]:
    """All results. Of several errors, a hang that names texts goes first: after it nothing is asked again, so whoever
    did not hear of it then would never learn whose text it was. One that only kept a text waiting goes last."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=_rank)
    return [future.result() for future in futures]


def _rank(error: BaseException) -> int:
    if not isinstance(error, ModelStalled):
        return 1
    return 0 if error.texts else 2
