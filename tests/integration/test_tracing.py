"""One change as one trace: from the producer's ledger over a real broker and a real Celery worker to the flush."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from driver import wait_until
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from word_embedder import WordEmbedder
from workshop import opened_pipeline

from headwater import tracing
from headwater.broker import make_app, make_client
from headwater.document import Fingerprint, document_id
from headwater.messages import Hint, Item, Outcome, events_key, namespace, queue_name
from headwater.metrics import join
from headwater.settings import Settings
from headwater.state import Layout
from producer.diff import Changes, Seen
from producer.ledger import Ledger
from producer.numbers import LedgerNumbers
from producer.publisher import Publisher
from producer.queues import Queues
from worker.reporter import Reporter
from worker.tasks import register

SECRET = "marzipan"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    tracing.start(Settings.load(), "test", made)
    yield made
    tracing.end()


@dataclass
class Line:
    """A producer's end and a worker's end of one queue."""

    settings: Settings
    pipeline: Any
    folder: Path
    work: Path
    #: Celery shares tasks between apps, so that this is made once
    app: Celery

    def publish(self, *names: str) -> float:
        """As the producer does, from a ledger; when the documents were noticed, in seconds since the epoch."""
        ledger = Ledger(self.work / f"{uuid.uuid4()}.sqlite3")
        seen = {name.encode(): Seen(Fingerprint(1, 2, 3, number)) for number, name in enumerate(names)}
        ledger.want(Changes(created=tuple(seen)), seen, "bulk")
        noticed = ledger.wanted_seq(names[0].encode()) / 1e6
        with make_client(self.settings) as client:
            queues = Queues(client, self.settings.collection)
            Publisher(self.app, queues, self.settings.collection, 16, 300.0, 3).ring(ledger)
        ledger.close()
        return noticed

    def work_off(self, outcomes: int) -> None:
        """A Celery worker in this process, until there are so many outcomes more."""
        key, root = events_key(self.settings.collection), logging.getLogger()
        before = root.level, list(root.handlers)
        how: dict[str, Any] = {"pool": "solo", "perform_ping_check": False, "shutdown_timeout": 30, "loglevel": "error"}
        with make_client(self.settings) as client:
            there = client.xlen(key)
            try:
                with start_worker(self.app, **how):
                    wait_until(lambda: client.xlen(key) >= there + outcomes, "outcomes", 30)
            finally:
                root.level, root.handlers = before  # Celery's helper sets them


@pytest.fixture(scope="module")
def line(valkey: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    work = tmp_path_factory.mktemp("line")
    folder = work / "folder"
    folder.mkdir()
    settings = Settings.load(
        broker_url=valkey.settings.broker_url, collection=f"c{uuid.uuid4().hex[:8]}", state_dir=work / "state"
    )
    app, client = make_app(settings), make_client(settings)
    reporter = Reporter(client, events_key(settings.collection))
    with opened_pipeline(folder, work, WordEmbedder(32), 100) as (pipeline, _):
        register(app, lambda source: (pipeline, reporter), lambda request: None)
        yield Line(settings, pipeline, folder, work, app)
    client.close()
    app.close()


def named(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def test_a_change_is_one_trace_from_noticed_to_flushed(line: Line, exporter: InMemorySpanExporter) -> None:
    # Given two documents
    (line.folder / "a.md").write_text(f"# A\n\nAlmonds and sugar make {SECRET}.\n")
    (line.folder / "b.md").write_text("# B\n\nA heron waits.\n")
    # When the producer rings for them, and a worker works the hint off
    noticed = line.publish("a.md", "b.md")
    line.work_off(outcomes=2)
    # Then all spans are of one trace, each below the right one
    spans = named(exporter)
    assert {name: len(found) for name, found in spans.items()} == {
        "publish": 1, "apply": 1, "extract": 2, "embed": 1, "upsert": 1, "flush": 1,
    }  # fmt: skip
    assert len({span.context.trace_id for found in spans.values() for span in found}) == 1
    [publish], [apply] = spans["publish"], spans["apply"]
    assert (publish.kind, apply.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert publish.parent is None and _parent(apply) == publish.context.span_id
    for name in ("extract", "embed", "upsert", "flush"):
        assert {_parent(span) for span in spans[name]} == {apply.context.span_id}
    # And they say when, and which documents
    assert (publish.start_time or 0) / 1e9 == pytest.approx(noticed, abs=0.001)
    ids = [document_id(b"a.md"), document_id(b"b.md")]
    told = dict(publish.attributes or {})
    assert told == {"headwater.lane": "bulk", "headwater.documents": 2, "headwater.document_ids": tuple(ids)}
    assert {_attribute(span, "document_id") for span in spans["extract"]} == set(ids)
    assert _attribute(spans["embed"][0], "texts") == 2 and _attribute(spans["upsert"][0], "chunks") == 2
    # And neither text nor path is in any of them
    everything = "".join(span.to_json() for found in spans.values() for span in found)
    assert SECRET not in everything and "a.md" not in everything


def test_a_worker_without_traces_takes_a_hint_that_has_one(line: Line, exporter: InMemorySpanExporter) -> None:
    (line.folder / "c.md").write_text("A heron waits.\n")
    line.publish("c.md")
    tracing.end()
    line.work_off(outcomes=1)
    assert set(named(exporter)) == {"publish"}


def test_an_error_marks_its_step_without_its_message(
    line: Line, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(texts: Sequence[str], priority: str) -> tuple[Any, int]:
        if texts:
            raise ValueError(f"cannot embed {texts[0]}")
        return np.zeros((0, 32), np.float32), 0

    (line.folder / "d.md").write_text(f"Almonds without end make {SECRET}.\n")
    monkeypatch.setattr(line.pipeline, "_embed", embed)
    events = line.pipeline.apply(Hint((Item(b"d.md", time.time_ns() // 1000),), "live"))
    [outcome] = [event for event in events if isinstance(event, Outcome)]
    assert outcome.state == "failed" and SECRET in str(outcome.reason)  # which the ledger may know
    [span] = named(exporter)["embed"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert not span.events and SECRET not in span.to_json()


def test_without_an_endpoint_nothing_is_loaded_and_nothing_is_made() -> None:
    tracing.start(Settings.load(), "test")
    assert tracing.span("a") is tracing.span("b")
    with tracing.published(Hint((), "live")) as headers:
        assert headers is None


def test_an_endpoint_without_the_extra_is_told_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    tracing.start(Settings.load(otlp_endpoint="http://127.0.0.1:4318"), "test")
    assert "pip install 'headwater[otel]'" in caplog.text
    assert tracing.span("a") is tracing.span("b")


def _parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def _attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {})[f"headwater.{name}"]


def test_a_scrape_looks_into_the_queues_of_this_folder(valkey: Any, tmp_path: Path) -> None:
    # Given two hints for one of the folders of a collection
    settings = Settings.load(
        broker_url=valkey.settings.broker_url, collection=f"c{uuid.uuid4().hex[:8]}", source="notes", state_dir=tmp_path
    )
    name = queue_name(namespace(settings.collection, "notes"), "bulk")
    with make_client(settings) as client:
        client.rpush(name, "one", "two")
        # Then they are its depth
        told = join(LedgerNumbers(settings, Layout(tmp_path)))
        assert told.get_sample_value("headwater_queue_depth", {"lane": "bulk"}) == 2
        assert told.get_sample_value("headwater_queue_depth", {"lane": "live"}) == 0
        assert told.get_sample_value("headwater_broker_up") == 1
        client.delete(name)
