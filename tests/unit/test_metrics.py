"""The metrics by Prometheus' conventions, and the endpoint that tells them."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

import producer
from headwater import metrics
from headwater.document import Fingerprint
from headwater.errors import IndexUnavailable, QueryError, SettingsError
from headwater.index import IndexCounts
from headwater.messages import Outcome
from headwater.metrics import PROCESS, PRODUCER, QUERY, WORKER, IndexPoints, answered, capped, exposition, join, listen
from headwater.settings import Settings
from headwater.state import Layout, Lock
from producer.diff import Changes, Seen
from producer.ledger import Ledger
from producer.numbers import CountsFile, ProducerNumbers

ROOT = Path(producer.__file__).parents[1]
UNITS = ("_seconds", "_bytes", "_ratio", "_info")


def families(registry: CollectorRegistry) -> list[Metric]:
    return [family for family in registry.collect() if not family.name.startswith("process_")]


@pytest.mark.parametrize("registry", [PRODUCER, WORKER, QUERY, PROCESS])
def test_names_and_units_are_prometheus_s(registry: CollectorRegistry) -> None:
    for family in families(registry):
        assert re.fullmatch(r"headwater_[a-z_]+", family.name) and family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith((*UNITS, "_texts")), family.name


def test_no_metric_is_in_two_registries_of_one_process() -> None:
    names = [family.name for registry in (PRODUCER, WORKER, QUERY, PROCESS) for family in families(registry)]
    assert len(names) == len(set(names))


def test_kinds_that_do_not_look_like_one_or_are_too_many_are_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_kinds", set())
    assert capped("pdf") == "pdf"
    assert capped("A whole sentence of a document") == "other"
    assert [capped(f"kind{n}") for n in range(200)].count("other") == 101


def test_questions_are_counted_by_who_is_to_blame() -> None:
    def value(name: str, **labels: str) -> float:
        return QUERY.get_sample_value(f"headwater_query_{name}", labels) or 0.0

    before = value("seconds_count", mode="sparse")
    with answered("sparse"):
        pass
    assert value("seconds_count", mode="sparse") == before + 1
    for error, result in ((QueryError("no"), "refused"), (IndexUnavailable("away"), "failed")):
        failed = value("failures_total", mode="sparse", result=result)
        with pytest.raises(type(error)), answered("sparse"):
            raise error
        assert value("failures_total", mode="sparse", result=result) == failed + 1


def test_the_index_is_counted_once_in_a_while_and_not_told_while_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def count() -> IndexCounts:
        asked.append(1)
        if len(asked) > 1:
            raise IndexUnavailable("away")
        return IndexCounts(documents=2, chunks=5)

    registry = join(IndexPoints(count))
    for _ in range(2):
        assert registry.get_sample_value("headwater_index_points", {"kind": "chunk"}) == 5
    assert len(asked) == 1
    monkeypatch.setattr(metrics.time, "monotonic", lambda: time.perf_counter() + 1e9)
    assert registry.get_sample_value("headwater_index_points", {"kind": "chunk"}) is None


# -- the endpoint -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_part_listens_where_the_settings_say_and_then_no_more() -> None:
    settings = Settings.load(metrics_port=free_port())
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    end = listen(settings, join(WORKER, PROCESS))
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    assert "headwater_build_info" in text and "headwater_flush_seconds_bucket" in text and "_created" not in text
    with pytest.raises(SettingsError, match=r"metrics cannot be told .* HEADWATER_METRICS_PORT"):
        listen(settings, join(WORKER))
    end()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)


def test_without_a_port_nobody_listens() -> None:
    listen(Settings.load(), join(WORKER))()


# -- the producer's numbers, told by another process -------------------------------------------------------


class Place:
    """A state directory without a broker."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.numbers = ProducerNumbers(Settings.load(state_dir=root), self.layout)
        self.registry = join(self.numbers)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"headwater_{name}", labels)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_where_there_is_no_ledger_nothing_is_told(place: Place) -> None:
    assert exposition(place.registry) == b""


def test_the_ledger_s_numbers_are_told_while_no_producer_runs(place: Place) -> None:
    ledger = Ledger(place.layout.ledger)
    found = {b"a.md": Seen(Fingerprint(1, 2, 3, 4)), b"b.md": Seen(Fingerprint(1, 2, 3, 5))}
    ledger.want(Changes(created=(b"a.md",)), found, "bulk")
    ledger.applied(Outcome(b"a.md", ledger.wanted_seq(b"a.md"), "indexed", chunks=3), 3)
    ledger.want(Changes(created=(b"b.md",)), found, "live")
    ledger.close()
    assert place.value("documents", state="indexed") == 1 and place.value("documents", state="waiting") == 1
    assert place.value("chunks") == 3
    assert place.value("due_documents", lane="live") == 1 and place.value("due_documents", lane="bulk") == 0
    assert 0 < (place.value("queue_oldest_seconds", lane="live") or 0) < 60
    assert place.value("queue_oldest_seconds", lane="bulk") == 0
    assert place.value("in_step") == 0 and place.value("producer_up") == 0
    assert time.time() - (place.value("last_outcome_timestamp_seconds") or 0) < 60
    # without a broker its queues have no depth, and that is told
    assert place.value("broker_up") == 0 and place.value("queue_depth", lane="live") is None
    assert place.value("scanned_files") is None


def test_what_a_producer_has_counted_is_told_while_it_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(place.layout.ledger).close()
    metrics.scanned_files.set(17)
    counts = CountsFile(place.layout)
    counts.keep_up()
    written = (place.layout.root / "producer.prom").stat()
    assert place.value("scanned_files") is None  # of one that is gone
    lock = Lock(place.layout, "producer").acquire()
    assert place.value("scanned_files") == 17 and place.value("producer_up") == 1
    assert b"process_" not in exposition(place.registry)
    lock.release()
    # nothing has changed, so nothing is written
    monkeypatch.setattr(counts, "_write_at", 0.0)
    counts.keep_up()
    assert (place.layout.root / "producer.prom").stat().st_ino == written.st_ino


def test_a_damaged_ledger_breaks_no_scrape(place: Place) -> None:
    place.layout.ledger.write_bytes(b"no database" * 1000)
    assert place.value("producer_up") == 0 and place.value("documents", state="indexed") is None


def _named(text: str) -> set[str]:
    return set(re.findall(r"^\| `(headwater_[a-z_]+)`", text, re.MULTILINE))


def test_the_table_of_the_docs_has_every_metric(place: Place) -> None:
    ledger = Ledger(place.layout.ledger)
    ledger.close()
    told: Any = join(PRODUCER, WORKER, QUERY, PROCESS, place.numbers).collect()
    names = {f.name + ("_total" if f.type == "counter" else "") for f in told if not f.name.startswith("process_")}
    table = _named((ROOT / "docs" / "observability.md").read_text("utf-8"))
    # these two need an index and a broker
    assert table == names | {"headwater_index_points", "headwater_queue_depth"}
