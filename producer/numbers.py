"""The producer's metrics for whoever is asked: what the ledger and the queues say, read at each request, and what the
running producer counts, which it leaves in a file for the query API of the same state directory."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from headwater.broker import make_client
from headwater.errors import BrokerUnavailable, HeadwaterError
from headwater.messages import LANES, namespace
from headwater.metrics import PRODUCER, exposition
from headwater.settings import Settings
from headwater.state import Layout, Lock, free_bytes
from producer.ledger import Ledger
from producer.queues import Queues

__all__ = ["CountsFile", "LedgerNumbers", "ProducerNumbers"]

#: seconds between two versions of the file: a scrape is every 15 s or so
_WRITE_S = 2.0
_STATES = ("indexed", "partial", "refused", "failed", "waiting")


class CountsFile:
    """What this process has counted, beside its ledger. Nothing is written while nothing changes."""

    def __init__(self, layout: Layout) -> None:
        self._path = _counts_path(layout)
        self._written = b""
        self._write_at = 0.0

    def keep_up(self) -> None:
        """Called at each turn of the producer's loop."""
        if time.monotonic() < self._write_at:
            return
        self._write_at = time.monotonic() + _WRITE_S
        counts = exposition(PRODUCER)
        if counts != self._written:
            with contextlib.suppress(OSError):  # a full disk: the ledger says so, and the next version is a newer one
                made = self._path.with_name(f"{self._path.name}.tmp")  # one producer holds the lock
                made.write_bytes(counts)
                os.replace(made, self._path)
                self._written = counts


def _counts_path(layout: Layout) -> Path:
    return layout.ledger.with_name("producer.prom")


class LedgerNumbers(Collector):
    """What is due, since when, and what became of the rest. Opens the ledger at each request, only to read."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout

    def collect(self) -> Iterable[Metric]:
        yield _gauge("headwater_state_free_bytes", "Free space for the state.", _free(self._layout))
        yield from self._depths()
        try:
            ledger = Ledger(self._layout.ledger, read_only=True)
        except HeadwaterError:  # it is being made, or damaged: the status says so
            return
        try:
            yield from _of_ledger(ledger)
        except HeadwaterError:  # likewise
            return
        finally:
            ledger.close()

    def _depths(self) -> Iterator[Metric]:
        """No depth is better than a wrong one: without a broker there is none."""
        try:
            waiting = self._waiting()
        except BrokerUnavailable:
            yield _gauge("headwater_broker_up", "1 if the broker answers.", 0)
            return
        yield _gauge("headwater_broker_up", "1 if the broker answers.", 1)
        yield _gauges("headwater_queue_depth", "Hints that no worker has taken yet.", "lane", waiting)

    def _waiting(self) -> dict[str, float]:
        """Raises BrokerUnavailable."""
        with make_client(self._settings) as client:
            queues = Queues(client, namespace(self._settings.prefix, self._settings.source))
            return {str(lane): queues.waiting(lane) for lane in LANES}


def _of_ledger(ledger: Ledger) -> Iterator[Metric]:
    counts, now = ledger.counts(), time.time()
    states: dict[str, float] = {state: getattr(counts, state) for state in _STATES}
    due: dict[str, float] = {lane: ledger.waiting(lane) for lane in LANES}
    oldest: dict[str, float] = {lane: _age(ledger.oldest_seq(lane), now) for lane in LANES}
    in_step = ledger.meta("scanned") == "1" and not sum(due.values())
    yield _gauges("headwater_documents", "Documents by state; one that is due is waiting.", "state", states)
    yield _gauge("headwater_chunks", "Chunks that can be found, by the ledger.", counts.chunks)
    yield _gauges("headwater_due_documents", "Documents and deletions that are due.", "lane", due)
    yield _gauges(
        "headwater_queue_oldest_seconds", "Since when the oldest of them is due; 0 if nothing is.", "lane", oldest
    )
    yield _gauge("headwater_in_step", "1 if everything that the last look found is settled.", in_step)
    held = json.loads(ledger.meta("held") or "{}").get("deleted", 0)
    yield _gauge("headwater_held_deletions", "Deletions that wait for a person.", held)
    last = ledger.last_outcome()
    yield _gauge("headwater_last_outcome_timestamp_seconds", "When a document was last settled; 0: never.", last)


def _age(seq: int | None, now: float) -> float:
    """Seconds since a document was noticed, or tried last: a seq is such a time in microseconds."""
    return 0.0 if seq is None else max(0.0, now - seq / 1e6)


def _free(layout: Layout) -> float:
    try:
        return free_bytes(layout.root)
    except OSError:
        return 0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


class ProducerNumbers(Collector):
    """Both, for a process that is not the producer. Nothing where there is no ledger, as on a worker's own machine."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._layout = layout
        self._ledger = LedgerNumbers(settings, layout)

    def collect(self) -> Iterable[Metric]:
        if not self._layout.ledger.exists():
            return
        running = Lock.is_held(self._layout, "producer")
        yield _gauge("headwater_producer_up", "1 if a producer follows the folder.", running)
        yield from self._ledger.collect()
        if running:
            yield from self._counted()

    def _counted(self) -> Iterator[Metric]:
        try:
            text = _counts_path(self._layout).read_text("utf-8")
        except FileNotFoundError:
            return
        yield from text_string_to_metric_families(text)
