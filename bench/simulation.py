"""What a fleet would do: ``python -m bench.simulation --chunks 1e9 --gpus 16 --workers 64`` (docs/scaling.md).

A discrete-event simulation of Headwater's own loop: a producer that works alone, hints in a bounded window, workers
with threads and extraction children, models on GPUs, the shards of the index, and live edits beside the backfill.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from bench.stations import All, BatchDevice, Clock, Job, Station, Visit, start

__all__ = ["Parameters", "Result", "erlang_c", "simulate"]

#: as in producer/publisher.py and headwater/embedder.py
_HINT_DOCUMENTS = 64
_HINT_BYTES = 32 * 1024
_LIVE_WINDOW = 64
_BATCH_TEXTS = 64
_BATCH_TOKENS = 8192
_EVENTS = 512


@dataclass(frozen=True)
class Parameters:
    """Seconds are processor time of one core. Defaults were measured (docs/scaling.md) where nothing else is said."""

    #: how much there is to index
    chunks: float = 1e7
    chunks_per_document: float = 5.0
    tokens_per_chunk: float = 120.0
    document_bytes: float = 2500.0
    #: a folder has one producer
    producers: int = 1
    workers: int = 4
    threads: int = 20
    #: HEADWATER_BULK_WINDOW
    window: int = 16
    #: extraction children of a worker
    children: int = 4
    #: devices for the model, shared by the workers; 0: a model of no cost
    gpus: int = 1
    #: assumed: sbert.net's 14,200 sentences/s of all-MiniLM-L6-v2 on a V100, at 25 tokens each
    tokens_per_s: float = 350_000.0
    #: assumed: least time of a pass, and of one of a model that only waits
    pass_s: float = 0.008
    shards: int = 2
    #: edits of one document each, in all folders, and texts of each that are new
    edits_per_s: float = 2.0
    edit_texts: float = 2.0
    #: producer: a transaction (a sync of the disk among it), an outcome, ringing a hint, and one row of the question
    #: what is due, which is asked at each event
    transaction_s: float = 0.002
    outcome_s: float = 0.00015
    publish_s: float = 0.003
    due_row_s: float = 0.000006
    #: broker: commands for a document and for a hint, and one command
    document_commands: float = 4.5
    hint_commands: float = 50.0
    command_s: float = 0.000015
    #: worker: its interpreter, for a document and for a chunk; its children, for a document
    worker_document_s: float = 0.0022
    worker_chunk_s: float = 0.0003
    extract_document_s: float = 0.0028
    #: index: each of a hint's three questions, which go to every shard, and writing a point (measured: the engine)
    question_s: float = 0.0005
    point_s: float = 0.0001
    #: from saving a file until the producer has seen it (measured: docs/performance.md)
    notice_s: float = 0.009
    #: all parts share one machine with so many cores; 0: each has its own
    cores: int = 0
    #: simulated time that counts, after a tenth of it that does not
    seconds: float = 60.0
    seed: int = 1

    @property
    def hint_documents(self) -> int:
        return max(1, min(_HINT_DOCUMENTS, int(_HINT_BYTES / self.document_bytes)))

    @property
    def batch_texts(self) -> int:
        return max(1, min(_BATCH_TEXTS, int(_BATCH_TOKENS / self.tokens_per_chunk)))


@dataclass(frozen=True)
class Result:
    """``utilisation`` is the share of the time that a part is busy, the first is the bottleneck."""

    documents_per_s: float
    chunks_per_s: float
    first_index_s: float
    broker_commands_per_s: float
    batch_fill: float
    utilisation: dict[str, float]
    #: from saving to searchable, in seconds; none if there were no edits
    edits: int
    p50_s: float
    p95_s: float
    p99_s: float


def simulate(parameters: Parameters) -> Result:
    """Backfill and edits side by side, in a window of a run that is in full swing."""
    fleet = _Fleet(parameters)
    warm = parameters.seconds / 10
    fleet.clock.run(warm)
    before = fleet.snapshot()
    fleet.waited.clear()
    fleet.clock.run(warm + parameters.seconds)
    return fleet.result(before)


@dataclass
class _Hint:
    folder: _Producer
    documents: int
    texts: float
    #: when the file was saved, of a live edit; None of the backfill
    saved: float | None = None

    @property
    def live(self) -> bool:
        return self.saved is not None


class _Worker:
    """One interpreter, children for extraction, and free threads."""

    def __init__(self, fleet: _Fleet, number: int) -> None:
        given = fleet.given
        self.interpreter = Station(fleet.clock, 1, fleet.cores)
        self.children = Station(fleet.clock, given.children, fleet.cores)
        self.model = fleet.models[number % len(fleet.models)] if fleet.models else None
        self.free = given.threads


class _Producer:
    """Alone with its ledger: takes what has come (outcomes, edits), one transaction for all, then rings."""

    def __init__(self, fleet: _Fleet) -> None:
        self._fleet = fleet
        self.station = Station(fleet.clock, 1, fleet.cores)
        self._inbox: deque[_Hint] = deque()
        self._edits: deque[float] = deque()
        self._window = max(1, round(fleet.given.window * fleet.given.workers / fleet.given.producers))
        self._bulk = self._live = 0
        self._busy = False

    def hear(self, hint: _Hint) -> None:
        self._inbox.append(hint)
        self.go_on()

    def edit(self, saved: float) -> None:
        self._edits.append(saved)
        self.go_on()

    def go_on(self) -> None:
        if not self._busy:
            self._busy = True
            start(self._round())

    def _round(self) -> Job:
        given = self._fleet.given
        while True:
            heard = self._take()
            documents = sum(hint.documents for hint in heard)
            rung = self._ring()
            rows = given.hint_documents * (
                self._bulk + 1
            )  # the window's documents are read, and known to be on their way
            cost = given.transaction_s + documents * given.outcome_s + len(rung) * given.publish_s
            yield Visit(self.station, cost + rows * given.due_row_s)
            for hint in rung:
                self._fleet.send(hint)
            if not (self._inbox or (self._edits and self._live < _LIVE_WINDOW)):
                self._busy = False
                return

    def _take(self) -> list[_Hint]:
        heard: list[_Hint] = []
        while self._inbox and sum(hint.documents for hint in heard) < _EVENTS:
            hint = self._inbox.popleft()
            heard.append(hint)
            if hint.live:
                self._live -= 1
            else:
                self._bulk -= 1
        return heard

    def _ring(self) -> list[_Hint]:
        """What is rung is counted as on its way at once."""
        given = self._fleet.given
        rung: list[_Hint] = []
        while self._edits and self._live < _LIVE_WINDOW:
            rung.append(_Hint(self, 1, given.edit_texts, self._edits.popleft()))
            self._live += 1
        while self._bulk < self._window:
            rung.append(_Hint(self, given.hint_documents, given.hint_documents * given.chunks_per_document))
            self._bulk += 1
        return rung


class _Fleet:
    """All parts, and what is counted."""

    def __init__(self, given: Parameters) -> None:
        self.given = given
        self.clock = Clock()
        self.chance = random.Random(given.seed)
        self.cores = Station(self.clock, given.cores) if given.cores else None
        self.broker = Station(self.clock, 1, self.cores)
        self.models = [BatchDevice(self.clock, given.batch_texts, self._pass_s) for _ in range(given.gpus)]
        self.writers = [Station(self.clock, 1, self.cores) for _ in range(given.shards)]
        self.workers = [_Worker(self, number) for number in range(given.workers)]
        self.queues: tuple[deque[_Hint], deque[_Hint]] = (deque(), deque())
        self.texts = 0.0
        self.waited: list[float] = []
        self.producers = [_Producer(self) for _ in range(given.producers)]
        for producer in self.producers:
            producer.go_on()
        if given.edits_per_s:
            self._next_edit()

    def _pass_s(self, texts: float) -> float:
        return max(self.given.pass_s, texts * self.given.tokens_per_chunk / self.given.tokens_per_s)

    def _next_edit(self) -> None:
        self.clock.after(self.chance.expovariate(self.given.edits_per_s), self._edit)

    def _edit(self) -> None:
        saved, producer = self.clock.now, self.chance.choice(self.producers)
        self.clock.after(self.given.notice_s, lambda: producer.edit(saved))
        self._next_edit()

    # -- a hint's way ------------------------------------------------------------------------------------------

    def send(self, hint: _Hint) -> None:
        start(self._deliver(hint))

    def _deliver(self, hint: _Hint) -> Job:
        yield Visit(self.broker, self.given.hint_commands / 2 * self.given.command_s, hint.live)
        self.queues[0 if hint.live else 1].append(hint)
        self._hand_out()

    def _hand_out(self) -> None:
        """A worker with a free thread takes the next hint, live ones first."""
        while any(self.queues):
            free = [worker for worker in self.workers if worker.free]
            if not free:
                return
            worker = self.chance.choice(free)
            worker.free -= 1
            start(self._work(worker, (self.queues[0] or self.queues[1]).popleft()))

    def _work(self, worker: _Worker, hint: _Hint) -> Job:
        given, live = self.given, hint.live
        points = hint.documents * (given.chunks_per_document + 1)
        yield self._ask_shards(given.question_s, live)
        for _ in range(hint.documents):
            yield Visit(worker.interpreter, given.worker_document_s / 2)
            yield Visit(worker.children, given.extract_document_s)
        yield self._ask_shards(given.question_s, live)
        if worker.model is not None:
            yield Visit(worker.model, hint.texts, live)
        for _ in range(hint.documents):
            own = given.worker_document_s / 2 + given.chunks_per_document * given.worker_chunk_s
            yield Visit(worker.interpreter, own)
        yield self._ask_shards(points / given.shards * given.point_s, live)
        yield self._ask_shards(given.question_s, live)
        if hint.saved is not None:
            self.waited.append(self.clock.now - hint.saved)
        self.texts += hint.documents * given.chunks_per_document if not live else 0.0
        commands = given.hint_commands / 2 + hint.documents * given.document_commands
        yield Visit(self.broker, commands * given.command_s, live)
        worker.free += 1
        self._hand_out()
        hint.folder.hear(hint)

    def _ask_shards(self, seconds: float, live: bool) -> All:
        """No filter names a shard: each is asked."""
        return All(tuple(Visit(writer, seconds, live) for writer in self.writers))

    # -- what came of it ---------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, float]:
        """Busy seconds of each part, a server of it on average, and what has been counted."""
        parts: dict[str, Sequence[Station | BatchDevice]] = {
            "producer": [producer.station for producer in self.producers],
            "broker": [self.broker],
            "worker's interpreter": [worker.interpreter for worker in self.workers],
            "extraction": [worker.children for worker in self.workers],
            "GPU": self.models,
            "index shard": self.writers,
            "cores": [self.cores] if self.cores else [],
        }
        busy = {name: sum(map(_busy_s, stations)) / len(stations) for name, stations in parts.items() if stations}
        counted = {"passes": sum(m.passes for m in self.models), "batched": sum(m.texts for m in self.models)}
        return {**busy, **counted, "texts": self.texts}

    def result(self, before: dict[str, float]) -> Result:
        given, seconds = self.given, self.given.seconds
        gone = {name: value - before[name] for name, value in self.snapshot().items()}
        passes, batched, texts = (gone.pop(name) for name in ("passes", "batched", "texts"))
        busy = sorted(((busy_s / seconds, name) for name, busy_s in gone.items()), reverse=True)
        per_s = texts / seconds
        waited = sorted(self.waited)
        return Result(
            documents_per_s=per_s / given.chunks_per_document,
            chunks_per_s=per_s,
            first_index_s=given.chunks / per_s if per_s else math.inf,
            broker_commands_per_s=gone["broker"] / given.command_s / seconds,
            batch_fill=batched / passes / given.batch_texts if passes else 0.0,
            utilisation={name: round(share, 3) for share, name in busy},
            edits=len(waited),
            p50_s=_percentile(waited, 0.5),
            p95_s=_percentile(waited, 0.95),
            p99_s=_percentile(waited, 0.99),
        )


def _busy_s(station: Station | BatchDevice) -> float:
    return station.busy_s / (station.servers if isinstance(station, Station) else 1)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def erlang_c(load: float, servers: int) -> float:
    """Probability that a customer of an M/M/c queue has to wait; ``load`` in servers that are busy on average."""
    term, below = 1.0, 1.0
    for number in range(1, servers):
        term *= load / number
        below += term
    top = term * load / servers / (1 - load / servers)
    return top / (below + top)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for one in fields(Parameters):
        name = f"--{one.name.replace('_', '-')}"
        parser.add_argument(name, type=float if isinstance(one.default, float) else int, default=one.default, help=" ")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    found = simulate(Parameters(**given))
    print(json.dumps(asdict(found)) if as_json else _sentences(found))


def _sentences(found: Result) -> str:
    first, *others = found.utilisation.items()
    return "\n".join(
        [
            f"{found.chunks_per_s:,.0f} chunks/s ({found.documents_per_s:,.0f} documents/s), first index after"
            f" {_duration(found.first_index_s)}",
            f"bottleneck: {first[0]} ({first[1]:.0%} busy); "
            + ", ".join(f"{name} {share:.0%}" for name, share in others),
            f"broker {found.broker_commands_per_s:,.0f} commands/s; batches {found.batch_fill:.0%} full",
            f"saved to searchable, {found.edits} edits: p50 {found.p50_s * 1000:.0f} ms,"
            f" p95 {found.p95_s * 1000:.0f} ms, p99 {found.p99_s * 1000:.0f} ms",
        ]
    )


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
