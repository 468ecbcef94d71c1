"""Hints to workers and events back, over a real Valkey and a real Celery worker."""

from __future__ import annotations

import base64
import json
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from driver import wait_until

import producer
from headwater import broker
from headwater.document import Fingerprint
from headwater.errors import BrokerUnavailable
from headwater.messages import (
    APPLY_TASK,
    EVENT_FIELD,
    Census,
    Embedded,
    Event,
    Hello,
    Hint,
    Item,
    Outcome,
    events_key,
    queue_name,
)
from headwater.settings import Settings
from producer.diff import Changes, Seen
from producer.ledger import Ledger
from producer.outcomes import BrokerBack, Reader, Reported
from producer.publisher import Publisher
from producer.queues import Queues
from worker.reporter import Reporter

#: a worker as ``worker.app`` makes it, but for the pipeline: this one says that all is indexed
_WORKER = """
import sys
from headwater.broker import make_app, make_client
from headwater.messages import Census, Outcome, events_key
from headwater.settings import Settings
from worker.reporter import Reporter
from worker.tasks import register

settings = Settings.load(broker_url=sys.argv[1], collection=sys.argv[2], concurrency=2)

class Pipeline:
    def apply(self, hint):
        if any(item.path == b"crash" for item in hint.items):
            raise ZeroDivisionError("a bug of ours")
        return [Outcome(item.path, item.seq, "indexed", reason=f"{hint.lane} {item.operation}") for item in hint.items]

app = make_app(settings)
reporter = Reporter(make_client(settings), events_key(settings.collection))

def census(request):
    name, sweep = request.census, list(request.sweep)
    reporter.report([Census(name, f"swept {sweep}", 0, 1, ((9, 3),))])

register(app, lambda source: (Pipeline(), reporter), census)
app.worker_main(["worker", "--loglevel", "warning", "--without-gossip", "--without-mingle"])
"""


@dataclass
class Heard:
    """What a reader delivered."""

    reader: Reader
    delivered: list[Reported | BrokerBack] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        reported = [one for one in self.delivered if isinstance(one, Reported)]
        return [event for one in reported for event in one.events]

    @property
    def returns(self) -> int:
        return sum(isinstance(one, BrokerBack) for one in self.delivered)

    @property
    def last_id(self) -> str:
        return next(one.last_id for one in reversed(self.delivered) if isinstance(one, Reported))


Listen = Callable[..., Heard]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listen]:
    """Starts readers, and ends them soon."""
    monkeypatch.setattr("producer.outcomes._BLOCK_MS", 200)
    made: list[Heard] = []

    def start(settings: Settings, last_id: str = "0-0") -> Heard:
        delivered: list[Reported | BrokerBack] = []
        client = broker.make_client(settings, retries=0)
        heard = Heard(Reader(client, events_key(settings.collection), last_id, delivered.append), delivered)
        made.append(heard)
        heard.reader.start()
        return heard

    yield start
    for heard in made:
        heard.reader.stop()
    for heard in made:
        heard.reader.join(timeout=10)
        assert not heard.reader.is_alive()
        heard.reader._client.close()


def settings_of(valkey: Any) -> Settings:
    """The broker's settings with a collection of one's own."""
    return Settings.load(broker_url=valkey.settings.broker_url, collection=f"c{uuid.uuid4().hex[:8]}")


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    made = broker.make_client(request.getfixturevalue("valkey").settings)
    yield made
    made.close()


# -- hints to a worker ------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A Celery worker process; the settings say where it listens."""

    settings: Settings
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-c", _WORKER, str(self.settings.broker_url), self.settings.collection]
        environment = {"PYTHONPATH": str(Path(producer.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self.log.parent
            )

    def check(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()[-2000:]}"
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def worker(valkey: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(settings_of(valkey), tmp_path_factory.mktemp("worker") / "log")
    yield made
    made.stop()


@pytest.fixture
def own_worker(valkey: Any, tmp_path: Path) -> Iterator[Worker]:
    """A worker that a test may bring down."""
    made = Worker(settings_of(valkey), tmp_path / "log")
    yield made
    made.stop()


def ring(settings: Settings, *items: Item, lane: Any = "live") -> None:
    app = broker.make_app(settings)
    app.send_task(APPLY_TASK, args=[Hint(items, lane).to_wire()], queue=queue_name(settings.collection, lane))
    app.close()


def outcomes(heard: Heard) -> list[tuple[bytes, int, str | None]]:
    return [(e.path, e.seq, e.reason) for e in heard.events if isinstance(e, Outcome)]


def test_a_hint_reaches_a_worker_and_its_outcomes_come_back(worker: Worker, listen: Listen) -> None:
    heard = listen(worker.settings)
    name = b"dir/\xff caf\xc3\xa9.md"
    ring(worker.settings, Item(name, 2**50 + 1), Item(b"old", 2**50 + 2, "delete"))
    ring(worker.settings, Item(b"bulk", 7, "final"), lane="bulk")
    wait_until(lambda: len(outcomes(heard)) == 3, "three outcomes", timeout_s=30)
    assert sorted(outcomes(heard)) == sorted(
        [(name, 2**50 + 1, "live index"), (b"old", 2**50 + 2, "live delete"), (b"bulk", 7, "bulk final")]
    )


def test_an_error_that_no_step_foresaw_is_a_failed_outcome(worker: Worker, listen: Listen) -> None:
    heard = listen(worker.settings)
    ring(worker.settings, Item(b"crash", 8), Item(b"with it", 9))
    wait_until(lambda: any(e[1] == 9 for e in outcomes(heard)), "the outcome", timeout_s=30)
    failed = [e for e in heard.events if isinstance(e, Outcome) and e.seq in (8, 9)]
    assert [(e.state, e.retryable) for e in failed] == [("failed", True)] * 2
    assert failed[0].reason == "unexpected ZeroDivisionError: a bug of ours"


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _message(body: bytes, content_type: str, task: str = APPLY_TASK) -> str:
    """A message as kombu puts it into a list."""
    identity = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": "binary" if "pickle" in content_type or "serialize" in content_type else "utf-8",
            "headers": {"task": task, "id": identity, "lang": "py", "argsrepr": "", "kwargsrepr": ""},
            "properties": {
                "correlation_id": identity,
                "delivery_mode": 2,
                "delivery_tag": identity,
                "delivery_info": {"exchange": "", "routing_key": "x"},
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    )


def _json_task(*args: Any, task: str = APPLY_TASK) -> str:
    return _message(json.dumps([args, {}, None]).encode(), "application/json", task)


def test_forged_hints_are_dropped_and_the_worker_goes_on(
    worker: Worker, listen: Listen, client: redis.Redis, tmp_path: Path
) -> None:
    pickled = pickle.dumps(((Touch(tmp_path / "executed"),), {}, None))
    bad_item = {"v": 1, "lane": "live", "items": [["a", -1, "index"]]}
    forged = [
        _message(pickled, "application/x-python-serialize"),
        _message(pickled, "application/pickle"),
        _message(pickled, "application/json"),
        _message(b"{not json", "application/json"),
        _json_task(),
        _json_task("one", "two", "three"),
        _json_task(None),
        _json_task({"v": 99, "lane": "live", "items": []}),
        _json_task(bad_item),
        _json_task({**bad_item, "items": "x"}),
        _json_task("x", task="os.system"),
    ]
    for message in forged:
        client.lpush(queue_name(worker.settings.collection, "live"), message)
    heard = listen(worker.settings)
    ring(worker.settings, Item(b"good", 77))
    wait_until(lambda: (b"good", 77, "live index") in outcomes(heard), "the good hint's outcome", timeout_s=30)
    assert not (tmp_path / "executed").exists()


#: what is no message at all, and one whose body is JSON of another shape
GARBAGE = ["\x00\xff not json", "[]", "null", "{}", '{"body": 5}', _message(b"[]", "application/json")]


def test_garbage_in_the_queue_does_not_end_the_worker(own_worker: Worker, listen: Listen, client: redis.Redis) -> None:
    settings = own_worker.settings
    heard = listen(settings)
    for number, garbage in enumerate(GARBAGE, start=1):
        client.lpush(queue_name(settings.collection, "live"), garbage)
        ring(settings, Item(b"after garbage", number))
        heard_of = lambda: own_worker.check() and len(outcomes(heard)) == number  # noqa: B023, E731
        wait_until(heard_of, f"the outcome after {garbage!r}", timeout_s=20)


# -- events back ------------------------------------------------------------------------------------------


def _events(count: int, first: int = 0) -> list[Event]:
    stat = Fingerprint(1, 2, 3, 4)
    return [Outcome(f"{n}".encode(), n + 1, "indexed", fingerprint=stat) for n in range(first, first + count)]


def report(settings: Settings, events: list[Event]) -> None:
    with broker.make_client(settings) as client:
        Reporter(client, events_key(settings.collection)).report(events)


def test_events_come_in_the_order_they_were_reported(valkey: Any, listen: Listen) -> None:
    settings = settings_of(valkey)
    sent = [Hello("w", "id"), *_events(1200), Embedded(3, 4)]
    report(settings, sent[:700])
    heard = listen(settings)
    report(settings, sent[700:])
    wait_until(lambda: len(heard.events) >= len(sent), "all events", timeout_s=20)
    assert heard.events == sent
    assert isinstance(heard.delivered[0], BrokerBack)  # whatever was on its way before may be lost
    assert heard.returns == 1


def test_a_reader_begins_after_the_last_id_that_was_noted(valkey: Any, listen: Listen) -> None:
    settings = settings_of(valkey)
    report(settings, _events(5))
    first = listen(settings)
    wait_until(lambda: len(first.events) == 5, "the first events", timeout_s=20)
    noted = first.last_id
    report(settings, _events(2, first=5))
    second = listen(settings, noted)
    wait_until(lambda: len(second.events) >= 2, "the events behind", timeout_s=20)
    assert second.events == _events(2, first=5)


def test_what_is_noted_is_trimmed_from_the_stream(valkey: Any, listen: Listen, client: redis.Redis) -> None:
    settings = settings_of(valkey)
    key = events_key(settings.collection)
    report(settings, _events(300))
    heard = listen(settings)
    wait_until(lambda: len(heard.events) == 300, "the events", timeout_s=20)
    heard.reader.acknowledge(heard.last_id)
    wait_until(lambda: client.xlen(key) < 150, "whole blocks of about a hundred entries go", timeout_s=20)
    report(settings, _events(2, first=300))
    wait_until(lambda: len(heard.events) == 302, "the later events", timeout_s=20)
    assert heard.events == _events(302)


def test_the_outcomes_of_a_hint_come_all_at_once(valkey: Any, listen: Listen) -> None:
    settings = settings_of(valkey)
    heard = listen(settings)
    for number in range(20):
        report(settings, _events(12, first=12 * number))
        wait_until(lambda so_far=12 * number + 12: len(heard.events) == so_far, "the outcomes", timeout_s=20)
    assert [len(one.events) for one in heard.delivered if isinstance(one, Reported)] == [12] * 20


def test_counts_of_texts_come_with_the_outcomes_behind_them_or_a_moment_later(valkey: Any, listen: Listen) -> None:
    settings = settings_of(valkey)
    heard = listen(settings)
    report(settings, [Embedded(3, 0)])
    report(settings, _events(2))
    wait_until(lambda: len(heard.events) == 3, "counts and outcomes", timeout_s=20)
    assert [one.events for one in heard.delivered if isinstance(one, Reported)] == [(Embedded(3, 0), *_events(2))]
    report(settings, [Embedded(4, 0)])
    wait_until(lambda: heard.events[3:] == [Embedded(4, 0)], "counts alone", timeout_s=5)


def test_forged_events_are_dropped(valkey: Any, listen: Listen, client: redis.Redis) -> None:
    settings = settings_of(valkey)
    key = events_key(settings.collection)
    for fields in (
        {"other": "x"},
        {EVENT_FIELD: "not json"},
        {EVENT_FIELD: "[]"},
        {EVENT_FIELD: '{"type": "?"}'},
    ):
        client.xadd(key, fields)  # type: ignore[arg-type]
    client.xadd(key, {EVENT_FIELD: b"\xff\xfe"})
    client.xadd(key, {EVENT_FIELD: "[" * 100_000})
    report(settings, _events(1))
    heard = listen(settings)
    wait_until(lambda: heard.events == _events(1), "the one real event", timeout_s=5)


def test_a_reader_outlives_its_broker_and_says_that_it_is_back(own_valkey: Any, listen: Listen) -> None:
    # Given a reader that has read
    settings = settings_of(own_valkey)
    report(settings, _events(3))
    heard = listen(settings)
    wait_until(lambda: len(heard.events) == 3, "the first events", timeout_s=20)
    # When the broker goes and comes back empty, and its clock has been set back
    own_valkey.restart()
    with broker.make_client(settings) as client:
        fields = {EVENT_FIELD: json.dumps({"type": "embedded", "embedded": 8, "reused": 9})}
        client.xadd(events_key(settings.collection), fields, id="5-1")  # type: ignore[arg-type]
    # Then the reader says so, and reads the new stream from its start
    wait_until(lambda: heard.returns == 2, "the broker is back", timeout_s=20)
    wait_until(lambda: Embedded(8, 9) in heard.events, "the event of the new stream", timeout_s=20)
    assert heard.events == [*_events(3), Embedded(8, 9)]
    back = [n for n, one in enumerate(heard.delivered) if isinstance(one, BrokerBack)]
    event = next(n for n, one in enumerate(heard.delivered) if isinstance(one, Reported) and one.last_id == "5-1")
    assert back[1] < event


def test_a_reader_reads_a_stream_that_was_not_there_when_the_broker_came_back(own_valkey: Any, listen: Listen) -> None:
    settings = settings_of(own_valkey)
    report(settings, _events(1))
    heard = listen(settings)
    wait_until(lambda: len(heard.events) == 1, "the first event", timeout_s=20)
    own_valkey.restart()
    wait_until(lambda: heard.returns == 2, "the broker is back", timeout_s=20)
    with broker.make_client(settings) as client:
        fields = {EVENT_FIELD: json.dumps({"type": "embedded", "embedded": 1, "reused": 1})}
        client.xadd(events_key(settings.collection), fields, id="1-1")  # type: ignore[arg-type]
    wait_until(lambda: Embedded(1, 1) in heard.events, "the event of the new stream", timeout_s=20)


# -- a broker that does not answer ------------------------------------------------------------------------


@pytest.fixture
def due(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with one document that is due."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with ledger.transaction():
        seen = {b"a.md": Seen(Fingerprint(1, 2, 3, 4))}
        ledger.want(Changes(created=(b"a.md",)), seen, "live")
    yield ledger
    ledger.close()


def _publisher(settings: Settings) -> Publisher:
    queues = Queues(broker.make_client(settings), settings.collection)
    return Publisher(broker.make_app(settings), queues, settings.collection, bulk_window=4, lease_s=60, attempts=3)


def test_a_due_document_is_rung_for_once_until_its_outcome(valkey: Any, due: Ledger, client: redis.Redis) -> None:
    settings = settings_of(valkey)
    queue = queue_name(settings.collection, "live")
    publisher = _publisher(settings)
    publisher.ring(due)
    publisher.ring(due)
    assert client.llen(queue) == 1
    body = json.loads(base64.b64decode(json.loads(client.lindex(queue, 0))["body"]))  # type: ignore[arg-type]
    hint = Hint.from_wire(body[0][0])
    assert (hint.lane, [item.path for item in hint.items]) == ("live", [b"a.md"])
    publisher.landed(b"a.md")
    publisher.ring(due)
    assert client.llen(queue) == 2
    publisher.app.close()


def test_a_publisher_does_not_wait_for_ever_for_a_broker_that_is_frozen(
    own_valkey: Any, due: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_CONNECT_TIMEOUT_S", 0.5)
    settings = settings_of(own_valkey).model_copy(update={"broker_timeout_s": 0.5})
    publisher = _publisher(settings)
    publisher.ring(due)  # so that a connection is open
    publisher.forget_all()
    own_valkey.send(signal.SIGSTOP)
    started = time.monotonic()
    raised: list[BaseException] = []

    def publish() -> None:
        try:
            publisher.ring(due)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    thread.join(timeout=5)
    took = time.monotonic() - started
    own_valkey.restart()
    thread.join(timeout=10)
    assert took < 5
    assert [type(error) for error in raised] == [BrokerUnavailable]
    assert "does not answer" in str(raised[0])
    # And when the broker is back, the document is rung for
    publisher.ring(due)
    with broker.make_client(settings) as client:
        assert client.llen(queue_name(settings.collection, "live")) == 1
    publisher.app.close()


def test_what_lies_in_the_queues_is_counted_and_dropped(valkey: Any, due: Ledger) -> None:
    settings = settings_of(valkey)
    publisher = _publisher(settings)
    assert publisher.queues.waiting("live") == 0
    publisher.ring(due)
    assert (publisher.queues.waiting("live"), publisher.queues.waiting("bulk")) == (1, 0)
    publisher.queues.purge()
    assert publisher.queues.waiting("live") == 0
    publisher.app.close()


def test_a_census_is_asked_for_and_answered_through_the_queue(worker: Worker, listen: Listen) -> None:
    heard = listen(worker.settings)
    publisher = _publisher(worker.settings)
    publisher.ask_for_census("name", [7, 8])
    wait_until(lambda: any(isinstance(event, Census) for event in heard.events), "the census", timeout_s=30)
    [census] = [event for event in heard.events if isinstance(event, Census)]
    assert census == Census("name", "swept [7, 8]", 0, 1, ((9, 3),))
    publisher.app.close()


def test_queues_of_a_broker_that_is_gone_are_one_sentence(own_valkey: Any) -> None:
    queues = Queues(broker.make_client(settings_of(own_valkey)), "any")
    own_valkey.stop()
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        queues.waiting("live")
