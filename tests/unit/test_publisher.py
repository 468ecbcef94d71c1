"""When hints go out, and what goes together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from headwater.document import Fingerprint, document_id, in_collection
from headwater.errors import BrokerUnavailable
from headwater.messages import APPLY_TASK, Hint, Lane, Outcome
from producer.diff import Changes, Seen
from producer.ledger import Ledger
from producer.publisher import Publisher

LEASE_S = 300.0
LIVE_WINDOW = 64


@dataclass
class FakeCelery:
    """Records what is sent. ``broken`` is what sending raises; ``allowed`` how many go out before it does."""

    sent: list[tuple[str, Hint]] = field(default_factory=list)
    broken: Exception | None = None
    allowed: int = 0

    def send_task(self, name: str, args: list[Any], queue: str, retry: bool, headers: Any, argsrepr: str) -> None:
        assert name == APPLY_TASK
        assert retry is False  # a retry would block the loop
        if self.broken is not None and len(self.sent) >= self.allowed:
            raise self.broken
        self.sent.append((queue, Hint.from_wire(args[0])))

    def connection(self) -> FakeCelery:
        return self

    def as_uri(self) -> str:
        return "redis://broker:6379"

    def taken(self) -> list[Hint]:
        """The hints since the last call."""
        hints = [hint for _, hint in self.sent]
        self.sent.clear()
        return hints


@dataclass
class Clock:
    """Stands in for the module ``time``."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time() + self.now - 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("producer.publisher.time", clock)
    return clock


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture
def broker() -> FakeCelery:
    return FakeCelery()


@dataclass
class FakeQueues:
    """Queues in which as many messages wait as a test says."""

    waits: int = 0
    purged: int = 0
    present: float = 1.0
    #: documents that a worker has in hand
    held: set[str] = field(default_factory=set)

    def waiting(self, lane: Lane) -> int:
        return self.waits

    def workers(self) -> float:
        return self.present

    def claimed(self, hints: Iterable[Sequence[str]]) -> list[bool]:
        return [not self.held.isdisjoint(documents) for documents in hints]

    def purge(self) -> None:
        self.purged += 1


@pytest.fixture
def queues() -> FakeQueues:
    return FakeQueues()


@pytest.fixture
def publisher(broker: FakeCelery, queues: FakeQueues) -> Publisher:
    return Publisher(broker, queues, "docs", bulk_window=2, lease_s=LEASE_S, attempts=3)  # type: ignore[arg-type]  # a fake


def want(ledger: Ledger, changes: Changes, lane: Lane, size: int = 10) -> None:
    paths = (*changes.created, *changes.changed, *(new for _, new in changes.moved))
    with ledger.transaction():
        ledger.want(changes, {path: Seen(Fingerprint(size, 1, 1, 1)) for path in paths}, lane)


def create(ledger: Ledger, number: int, lane: Lane, size: int = 10, prefix: bytes = b"d") -> list[bytes]:
    paths = [b"%s%04d" % (prefix, n) for n in range(number)]
    want(ledger, Changes(created=tuple(paths)), lane, size)
    return paths


def settle(ledger: Ledger, publisher: Publisher, hint: Hint) -> None:
    for item in hint.items:
        state = "deleted" if item.operation == "delete" else "indexed"
        assert ledger.applied(Outcome(item.path, item.seq, state, None, None, "hash", 1), 3)
        publisher.landed(item.path)


def test_a_due_document_is_rung_for_once(ledger: Ledger, publisher: Publisher, broker: FakeCelery) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    publisher.ring(ledger)
    assert len(broker.sent) == 1
    queue, hint = broker.sent[0]
    assert queue == "docs.live"
    assert hint.lane == "live"
    assert [(item.path, item.seq, item.operation) for item in hint.items] == [
        (b"d0000", ledger.wanted_seq(b"d0000"), "index")
    ]


def test_a_document_that_changes_while_its_hint_is_on_its_way_waits_for_the_outcome(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    want(ledger, Changes(changed=(b"d0000",)), "live")
    publisher.ring(ledger)
    assert len(broker.taken()) == 1
    publisher.landed(b"d0000")
    publisher.ring(ledger)
    assert [item.seq for hint in broker.taken() for item in hint.items] == [ledger.wanted_seq(b"d0000")]


def test_a_few_live_documents_go_one_by_one(ledger: Ledger, publisher: Publisher, broker: FakeCelery) -> None:
    create(ledger, 30, "live")
    publisher.ring(ledger)
    assert [len(hint.items) for hint in broker.taken()] == [1] * 30


def test_a_storm_of_live_documents_goes_in_groups_ahead_of_bulk_work_and_only_so_many_at_once(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 20, "bulk", prefix=b"b")
    create(ledger, 5000, "live")
    publisher.ring(ledger)
    first = broker.taken()
    assert [hint.lane for hint in first] == sorted((hint.lane for hint in first), reverse=True)
    assert all(len({item.path[:1] for item in hint.items}) == 1 for hint in first), "lanes share no hint"
    live = [hint for hint in first if hint.lane == "live"]
    assert all(len(hint.items) > 4 for hint in live)
    for _ in range(100):
        publisher.ring(ledger)
    assert len(live) + sum(hint.lane == "live" for hint in broker.taken()) == LIVE_WINDOW


def test_bulk_documents_go_in_groups_and_only_so_many_groups_at_once(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    paths = create(ledger, 100, "bulk")
    publisher.ring(ledger)
    first = broker.taken()
    assert [hint.lane for hint in first] == ["bulk", "bulk"]
    sent = [item.path for hint in first for item in hint.items]
    assert sent == paths[: len(sent)]
    assert len(sent) > 2
    publisher.ring(ledger)
    assert broker.taken() == []
    # When one document of a group lands, its group is still on its way
    publisher.landed(first[0].items[0].path)
    publisher.ring(ledger)
    assert broker.taken() == []


def test_large_bulk_documents_share_no_hint(ledger: Ledger, publisher: Publisher, broker: FakeCelery) -> None:
    create(ledger, 4, "bulk", size=10**6)
    publisher.ring(ledger)
    assert [len(hint.items) for hint in broker.taken()] == [1, 1]


def test_every_document_is_rung_for_in_the_end_and_never_twice(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    paths = create(ledger, 100, "bulk") + create(ledger, 80, "live", prefix=b"l")
    rung: list[bytes] = []
    for _ in range(100):
        publisher.ring(ledger)
        hints = broker.taken()
        rung += [item.path for hint in hints for item in hint.items]
        for hint in hints:
            settle(ledger, publisher, hint)
    assert sorted(rung) == sorted(paths)
    assert ledger.waiting() == 0


def test_live_work_goes_out_while_the_bulk_window_is_full(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 100, "bulk")
    publisher.ring(ledger)
    broker.taken()
    create(ledger, 1, "live", prefix=b"l")
    publisher.ring(ledger)
    assert [(hint.lane, hint.items[0].path) for hint in broker.taken()] == [("live", b"l0000")]


def test_bulk_work_goes_out_while_the_live_window_is_full(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 5000, "live", prefix=b"l")
    for _ in range(100):
        publisher.ring(ledger)
    assert len(broker.taken()) == LIVE_WINDOW
    create(ledger, 1, "bulk")
    publisher.ring(ledger)
    assert [(hint.lane, hint.items[0].path) for hint in broker.taken()] == [("bulk", b"d0000")]


@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_the_halves_of_a_rename_travel_together_new_path_first(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, lane: Lane
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    settle(ledger, publisher, broker.taken()[0])
    want(ledger, Changes(moved=((b"d0000", b"new"),)), lane)
    publisher.ring(ledger)
    (hint,) = broker.taken()
    assert [(item.path, item.operation) for item in hint.items] == [(b"new", "index"), (b"d0000", "delete")]
    assert hint.items[0].seq < hint.items[1].seq


def test_a_rename_waits_until_the_hint_of_its_old_path_has_landed(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    broker.taken()
    want(ledger, Changes(moved=((b"d0000", b"new"),)), "live")
    publisher.ring(ledger)
    assert broker.taken() == []
    publisher.landed(b"d0000")
    publisher.ring(ledger)
    assert [[item.path for item in hint.items] for hint in broker.taken()] == [[b"new", b"d0000"]]


def test_the_old_half_of_a_rename_never_goes_alone_while_the_new_half_has_to_wait(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, clock: Clock
) -> None:
    # Given a rename whose new half has failed and is to be tried again later
    create(ledger, 1, "live")
    publisher.ring(ledger)
    settle(ledger, publisher, broker.taken()[0])
    want(ledger, Changes(moved=((b"d0000", b"new"),)), "live")
    publisher.ring(ledger)
    (hint,) = broker.taken()
    for item in hint.items:
        ledger.applied(Outcome(item.path, item.seq, "failed", "index away", retryable=True, service=True), 3)
        publisher.landed(item.path)
    # When it is too early, then nothing goes; when it is time, then both go
    clock.now -= 60
    publisher.ring(ledger)
    assert broker.taken() == []
    clock.now += 120
    publisher.ring(ledger)
    assert [[item.path for item in hint.items] for hint in broker.taken()] == [[b"new", b"d0000"]]


def test_many_renames_at_once_each_keep_their_halves_together(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    old = create(ledger, 40, "bulk")
    for path in old:
        assert ledger.applied(Outcome(path, ledger.wanted_seq(path), "indexed", None, None, "hash", 1), 3)
    want(ledger, Changes(moved=tuple((path, b"new" + path) for path in old)), "bulk")
    gone: list[bytes] = []
    for _ in range(40):
        publisher.ring(ledger)
        for hint in broker.taken():
            order = [item.path for item in hint.items]
            for item in hint.items:
                if item.operation == "delete":
                    gone.append(item.path)
                    assert order.index(b"new" + item.path) == order.index(item.path) - 1
            settle(ledger, publisher, hint)
    assert sorted(gone) == old


def test_a_hint_without_an_outcome_is_sent_again_when_its_lease_ends(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, clock: Clock
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    first = broker.taken()
    clock.now += LEASE_S - 1
    publisher.ring(ledger)
    assert broker.taken() == []
    clock.now += 1
    publisher.ring(ledger)
    assert broker.taken() == first


def test_whatever_was_on_its_way_is_sent_again_when_it_may_be_lost(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 3, "bulk")
    publisher.ring(ledger)
    first = broker.taken()
    publisher.forget_all()
    publisher.ring(ledger)
    assert broker.taken() == first


def test_a_document_is_not_rung_for_before_it_is_due(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, clock: Clock
) -> None:
    create(ledger, 2, "live")
    seq = ledger.wanted_seq(b"d0000")
    ledger.applied(Outcome(b"d0000", seq, "failed", "broken", retryable=True), 3)
    clock.now -= 60
    publisher.ring(ledger)
    assert [item.path for hint in broker.taken() for item in hint.items] == [b"d0001"]
    clock.now += 120
    publisher.ring(ledger)
    assert [item.path for hint in broker.taken() for item in hint.items] == [b"d0000"]


def test_documents_that_wait_for_another_try_do_not_hold_up_the_others(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, clock: Clock
) -> None:
    # Given more failed documents than any window holds, all older than one that is due now
    paths = create(ledger, 500, "live")
    with ledger.transaction():
        for path in paths:
            ledger.applied(Outcome(path, ledger.wanted_seq(path), "failed", "broken", retryable=True), 3)
    create(ledger, 1, "live", prefix=b"new")
    # When none of them is due for a minute (however slow this machine is)
    clock.now -= 60
    publisher.ring(ledger)
    assert [item.path for hint in broker.taken() for item in hint.items] == [b"new0000"]


@pytest.mark.parametrize("error", [OperationalError("no route"), ConnectionRefusedError("refused"), TimeoutError()])
def test_a_broker_that_does_not_answer_is_an_error_and_nothing_counts_as_sent(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, error: Exception
) -> None:
    create(ledger, 3, "live")
    broker.broken, broker.allowed = error, 1
    with pytest.raises(BrokerUnavailable, match="redis://broker:6379"):
        publisher.ring(ledger)
    # Then only what went out is on its way
    assert len(broker.taken()) == 1
    broker.broken = None
    publisher.ring(ledger)
    assert sorted(item.path for hint in broker.taken() for item in hint.items) == [b"d0001", b"d0002"]


def test_a_hint_that_no_worker_takes_is_not_rung_for_again_while_it_lies_in_its_queue(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, queues: FakeQueues, clock: Clock
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    assert len(broker.taken()) == 1
    queues.waits = 1
    for _ in range(5):
        clock.now += LEASE_S
        publisher.ring(ledger)
    assert broker.taken() == []
    queues.waits = 0
    clock.now += LEASE_S
    publisher.ring(ledger)
    assert len(broker.taken()) == 1


def test_the_queues_are_emptied_when_a_worker_has_died_and_all_is_rung_for_anew(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery, queues: FakeQueues
) -> None:
    create(ledger, 2, "live")
    publisher.ring(ledger)
    first = broker.taken()
    assert publisher.worker_died() is None
    publisher.ring(ledger)
    assert queues.purged == 1
    assert broker.taken() == first


def test_suspects_go_out_one_after_the_other_with_nothing_beside_them(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    # Given documents that were on their way at two deaths in a row, and one that came later
    old = create(ledger, 3, "bulk")
    for _ in range(2):
        publisher.ring(ledger)
        publisher.worker_died()
    create(ledger, 1, "live", prefix=b"new")
    broker.taken()
    # Then each suspect is alone on its way
    for path in old:
        publisher.ring(ledger)
        publisher.ring(ledger)
        [hint] = broker.taken()
        assert [item.path for item in hint.items] == [path]
        settle(ledger, publisher, hint)
    # And then all goes on as before
    publisher.ring(ledger)
    assert [item.path for hint in broker.taken() for item in hint.items] == [b"new0000"]


def test_the_suspect_that_was_alone_at_two_deaths_is_named(ledger: Ledger, publisher: Publisher) -> None:
    create(ledger, 3, "bulk")
    killers = []
    for _ in range(4):
        publisher.ring(ledger)
        killers.append(publisher.worker_died())
    assert killers == [None, None, None, (b"d0000", 4)]


# -- several workers ------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(broker: FakeCelery, queues: FakeQueues) -> Publisher:
    """A publisher of a named folder, for workers that come and go."""
    return Publisher(
        broker,  # type: ignore[arg-type]  # a fake
        queues,  # type: ignore[arg-type]  # a fake
        "docs/notes",
        bulk_window=2,
        lease_s=LEASE_S,
        attempts=3,
        source="notes",
        fleet=True,
    )


def test_hints_name_their_folder_and_go_to_its_queues(ledger: Ledger, fleet: Publisher, broker: FakeCelery) -> None:
    create(ledger, 1, "live")
    fleet.ring(ledger)
    assert [(queue, hint.source) for queue, hint in broker.sent] == [("docs/notes.live", "notes")]


def test_more_workers_widen_the_window_for_bulk_work(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery, queues: FakeQueues
) -> None:
    queues.present = 3.0
    create(ledger, 1000, "bulk")
    fleet.ring(ledger)
    assert len(broker.taken()) == 2 * 3


def test_a_hint_that_lies_nowhere_and_that_nobody_has_in_hand_is_rung_for_again_with_a_new_seq(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery, queues: FakeQueues, clock: Clock
) -> None:
    create(ledger, 2, "live")
    fleet.ring(ledger)
    first, second = (hint.items[0] for hint in broker.taken())
    # Given that a worker has one of them in hand, and the other is in no queue
    queues.held = {document_id(in_collection(second.path, "notes"))}
    for _ in range(4):
        clock.now += 3
        fleet.ring(ledger)
    # Then that one alone goes out again, above what a worker that was cut off may still write
    [again] = broker.taken()
    assert again.items[0].path == first.path and again.items[0].seq > max(first.seq, second.seq)
    # And once its outcome is there, nothing does
    settle(ledger, fleet, again)
    clock.now += LEASE_S / 2
    fleet.ring(ledger)
    assert not broker.taken()


def test_a_hint_that_still_lies_in_its_queue_is_not_lost(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery, queues: FakeQueues, clock: Clock
) -> None:
    create(ledger, 1, "live")
    fleet.ring(ledger)
    queues.waits = 1
    broker.taken()
    for _ in range(10):
        clock.now += 3
        fleet.ring(ledger)
    assert not broker.taken()


def test_a_document_that_kills_each_worker_that_takes_it_fails_in_the_end(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery, queues: FakeQueues, clock: Clock
) -> None:
    create(ledger, 3, "live")
    poison = document_id(in_collection(b"d0001", "notes"))
    alone = 0
    for _ in range(200):
        clock.now += 3
        fleet.ring(ledger)
        taken = [item for hint in broker.taken() for item in hint.items]
        ids = {document_id(in_collection(item.path, "notes")): item for item in taken}
        if poison in ids:  # the worker dies with all that it has in hand; its leases end a while later
            alone += len(taken) == 1
            queues.held = set(ids)
            fleet.ring(ledger)
            clock.now += 3
            fleet.ring(ledger)
            queues.held = set()
        else:
            for item in taken:
                settle(ledger, fleet, Hint((item,), "live"))
        if not ledger.waiting():
            break
    assert alone == 2
    states = {row.path: (row.state, row.reason) for row in ledger.rows()}
    assert states[b"d0001"] == ("failed", "the worker died at 4 tries while it worked on this document")
    assert states[b"d0000"][0] == states[b"d0002"][0] == "indexed"


def test_hints_that_were_given_up_are_told_once(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery, clock: Clock
) -> None:
    create(ledger, 1, "live")
    for _ in range(5):
        clock.now += 3
        fleet.ring(ledger)
    assert fleet.lost_hints() and not fleet.lost_hints()


def test_hints_of_a_predecessor_and_of_a_broker_that_is_back_are_fenced_off(
    ledger: Ledger, fleet: Publisher, broker: FakeCelery
) -> None:
    # Given documents for which an earlier process of the producer may have rung
    create(ledger, 3, "live")
    rung_before = {ledger.wanted_seq(path) for path in (b"d0000", b"d0001", b"d0002")}
    fleet.ring(ledger)
    seqs = {hint.items[0].seq for hint in broker.taken()}
    assert min(seqs) > max(rung_before)
    # When the broker was away
    fleet.forget_all()
    fleet.ring(ledger)
    again = {hint.items[0].seq for hint in broker.taken()}
    assert len(again) == 3 and min(again) > max(seqs)


def test_one_worker_alone_keeps_the_seq_of_what_is_rung_for_again(
    ledger: Ledger, publisher: Publisher, broker: FakeCelery
) -> None:
    create(ledger, 1, "live")
    publisher.ring(ledger)
    publisher.forget_all()
    publisher.ring(ledger)
    first, again = broker.taken()
    assert first.items == again.items
