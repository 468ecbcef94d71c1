"""Prometheus metrics of all parts, and the endpoint that tells them: one registry for each part, joined by each process
for what it is. No label has more values than the code names, and none is ever a path or a text."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater import __version__
from headwater.errors import HeadwaterError, PermanentError, SettingsError
from headwater.messages import LANES
from headwater.settings import Settings

if TYPE_CHECKING:
    from headwater.index import IndexCounts

__all__ = [
    "CONTENT_TYPE",
    "PROCESS",
    "PRODUCER",
    "QUERY",
    "WORKER",
    "IndexPoints",
    "answered",
    "capped",
    "exposition",
    "join",
    "listen",
]

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: what the producer, the worker, the part that answers questions, and every process tells
PRODUCER = CollectorRegistry()
WORKER = CollectorRegistry()
QUERY = CollectorRegistry()
PROCESS = CollectorRegistry()

#: seconds, from one document's edit to a backlog of hours
_LONG_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
#: seconds of one step
_STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_EXTRACT_S = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
#: kinds of documents that have a label of their own: plug-ins may bring any number
_MOST_KINDS = 100
_KIND = re.compile(r"[a-z0-9_.+-]{1,24}")
#: seconds between two counts of the index
_COUNT_S = 30.0

ProcessCollector(registry=PROCESS)
Gauge("headwater_build_info", "The version of Headwater, always 1.", ["version"], registry=PROCESS).labels(
    __version__
).set(1)

# -- producer ------------------------------------------------------------------------------------------------

saved_to_searchable = Histogram(
    "headwater_saved_to_searchable_seconds",
    "From a file's last change (of a deletion: from when it was noticed) to its outcome in the ledger, for changes made"
    " while the producer runs.",
    buckets=_LONG_S,
    registry=PRODUCER,
)
hints_published = Counter("headwater_hints_published_total", "Hints sent to workers.", ["lane"], registry=PRODUCER)
documents_hinted = Counter(
    "headwater_hinted_documents_total", "Documents in the hints sent to workers.", ["lane"], registry=PRODUCER
)
outcomes = Counter(
    "headwater_outcomes_total",
    "Outcomes heard from workers; service_failure is a failure that no document is to blame for.",
    ["state"],
    registry=PRODUCER,
)
worker_starts = Counter("headwater_worker_starts_total", "Workers that said hello.", registry=PRODUCER)
scan_seconds = Histogram(
    "headwater_scan_seconds", "Time of one scan of the whole folder.", buckets=_LONG_S, registry=PRODUCER
)
scanned_files = Gauge("headwater_scanned_files", "Files found by the last scan.", registry=PRODUCER)
missed_events = Counter(
    "headwater_missed_events_total",
    "Changed documents that a scan found and no event had told of.",
    registry=PRODUCER,
)
watches_lost = Counter(
    "headwater_watches_lost_total",
    "How often events may have been lost, so that the folder was scanned.",
    ["cause"],
    registry=PRODUCER,
)
watched_directories = Gauge("headwater_watched_directories", "Directories with a watch.", registry=PRODUCER)
unwatched_directories = Gauge(
    "headwater_unwatched_directories", "Directories without a watch, which are polled.", registry=PRODUCER
)
polling = Gauge("headwater_polling", "1 if the folder, or a part of it, is polled.", registry=PRODUCER)
census_findings = Counter(
    "headwater_census_findings_total",
    "Disagreements of index and ledger that a census found: documents read again, versions swept.",
    ["finding"],
    registry=PRODUCER,
)
trouble = Gauge("headwater_trouble", "1 while this part keeps the service from its work.", ["part"], registry=PRODUCER)
lease_held = Gauge(
    "headwater_producer_lease_held", "1 while this producer holds the lease of its folder.", registry=PRODUCER
)

# -- worker --------------------------------------------------------------------------------------------------

hints_taken = Counter("headwater_hints_taken_total", "Hints that this worker has taken.", ["lane"], registry=WORKER)
hints_under_way = Gauge("headwater_hints_under_way", "Hints that this worker works on now.", registry=WORKER)
hint_seconds = Histogram(
    "headwater_hint_seconds", "From a hint taken to its outcomes sent.", ["lane"], buckets=_LONG_S, registry=WORKER
)
extract_seconds = Histogram(
    "headwater_extract_seconds",
    "Extraction and chunking of one document, the wait for a free child included.",
    ["kind"],
    buckets=_EXTRACT_S,
    registry=WORKER,
)
sandbox_deaths = Counter(
    "headwater_sandbox_deaths_total", "Extraction children that ended at a document.", ["reason"], registry=WORKER
)
texts_embedded = Counter("headwater_texts_embedded_total", "Texts that the model saw.", ["kind"], registry=WORKER)
texts_reused = Counter(
    "headwater_texts_reused_total", "Texts of documents whose vectors were there already.", registry=WORKER
)
tokens_embedded = Counter(
    "headwater_embedded_tokens_total", "Tokens that the model saw, padding included.", ["kind"], registry=WORKER
)
embed_seconds = Histogram(
    "headwater_embed_seconds", "One pass of the model.", ["kind"], buckets=_STEP_S, registry=WORKER
)
batch_texts = Histogram(
    "headwater_batch_texts",
    "Texts of documents in one pass of the model.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=WORKER,
)
batch_fill = Histogram(
    "headwater_batch_fill_ratio",
    "Texts of documents in one pass, of those that its length and the token budget leave room for.",
    buckets=(0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
    registry=WORKER,
)
embed_failures = Counter(
    "headwater_embed_failures_total", "Passes of the model that failed.", ["reason"], registry=WORKER
)
upsert_seconds = Histogram(
    "headwater_upsert_seconds", "One write of a group of documents.", buckets=_STEP_S, registry=WORKER
)
flush_seconds = Histogram(
    "headwater_flush_seconds", "One wait until what was written is durable.", buckets=_STEP_S, registry=WORKER
)

# -- questions -----------------------------------------------------------------------------------------------

query_seconds = Histogram(
    "headwater_query_seconds",
    "One answered question; wait_for included, if it was asked for.",
    ["mode"],
    buckets=_STEP_S,
    registry=QUERY,
)
query_failures = Counter(
    "headwater_query_failures_total",
    "Questions that got no answer: refused is the question's fault, failed the service's.",
    ["mode", "result"],
    registry=QUERY,
)

#: labels whose values are known: they are told from the start, as zero, so that a first event is an increase
for _metric, _values in (
    (hints_published, LANES),
    (documents_hinted, LANES),
    (hints_taken, LANES),
    (outcomes, ("indexed", "partial", "refused", "failed", "deleted", "vanished", "changed", "superseded")),
    (outcomes, ("service_failure",)),
    (watches_lost, ("overflow", "storm", "deaf", "replaced", "lost", "unwatched")),
    (census_findings, ("damaged", "unwanted")),
    (trouble, ("broker", "service", "worker", "index", "folder", "deletions", "watch")),
    (sandbox_deaths, ("timeout", "memory", "cpu", "crash", "disk", "garbled", "ended")),
    (texts_embedded, ("document", "query")),
    (tokens_embedded, ("document", "query")),
    (embed_failures, ("error", "stalled")),
):
    for _value in _values:
        _metric.labels(_value)


for _mode in ("hybrid", "dense", "sparse", "similar"):
    query_seconds.labels(_mode)
    for _result in ("refused", "failed"):
        query_failures.labels(_mode, _result)

_kinds: set[str] = set()


def capped(kind: str) -> str:
    """A kind of document as a label: beyond a number of them, or if it does not look like one, it is "other"."""
    if kind not in _kinds:
        if len(_kinds) >= _MOST_KINDS or not _KIND.fullmatch(kind):
            return "other"
        _kinds.add(kind)
    return kind


@contextlib.contextmanager
def answered(mode: str) -> Iterator[None]:
    """A question of this mode is answered within."""
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        query_failures.labels(mode, "refused" if isinstance(error, PermanentError) else "failed").inc()
        raise
    query_seconds.labels(mode).observe(time.monotonic() - started)


# -- telling them --------------------------------------------------------------------------------------------


class _Parts(Collector):
    def __init__(self, parts: Iterable[Collector]) -> None:
        self._parts = tuple(parts)

    def collect(self) -> Iterable[Metric]:
        for part in self._parts:
            yield from part.collect()


class IndexPoints(Collector):
    """How many points the index holds; counted at a request, and not more often than once in a while."""

    def __init__(self, count: Callable[[], IndexCounts]) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._counted: IndexCounts | None = None
        self._count_at = 0.0

    def collect(self) -> Iterable[Metric]:
        points = self._points()
        if points is not None:
            family = GaugeMetricFamily("headwater_index_points", "Points that the index holds.", labels=["kind"])
            family.add_metric(["chunk"], points.chunks)
            family.add_metric(["document"], points.documents)
            yield family

    def _points(self) -> IndexCounts | None:
        with self._lock:
            if time.monotonic() >= self._count_at:
                try:
                    self._counted = self._count()
                except HeadwaterError:  # it does not answer: no number is better than an old one
                    self._counted = None
                self._count_at = time.monotonic() + _COUNT_S
            return self._counted


def join(*parts: Collector) -> CollectorRegistry:
    """What one process tells: the registries of the parts that it is, and other collectors."""
    # the start of each series would double their number, and nothing here asks for it
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the one function there without types
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Parts(parts))
    return registry


def exposition(registry: Collector) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)


def listen(settings: Settings, registry: CollectorRegistry) -> Callable[[], None]:
    """Tell the metrics on ``metrics_host`` and ``metrics_port``, if there is one; returns what ends that.

    Raises SettingsError if the port is taken.
    """
    if not settings.metrics_port:
        return lambda: None
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        raise SettingsError(
            f"metrics cannot be told on {settings.metrics_host} port {settings.metrics_port} ({error.strerror}): "
            "set HEADWATER_METRICS_PORT to another one, or to 0 for none"
        ) from None
    return lambda: _end(server, thread)


def _end(server: object, thread: threading.Thread) -> None:
    server.shutdown()  # type: ignore[attr-defined]  # a WSGIServer, whose module has no types here
    server.server_close()  # type: ignore[attr-defined]  # likewise
    thread.join(timeout=5)
