"""What is rung for is found without reading what is on its way, and nothing that is due is passed by."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headwater.document import Fingerprint
from headwater.messages import Item, Lane, Outcome, State
from producer import front as front_module
from producer.diff import Changes, Seen
from producer.flights import Flights
from producer.inbox import Inbox
from producer.ledger import Ledger
from producer.outcomes import Reported
from producer.publisher import Publisher

LANES: tuple[Lane, ...] = ("live", "bulk")
#: steps of SQLite's machine between two calls of a progress handler
_STEPS = 10


class Celery:
    """Takes whatever is sent."""

    def send_task(self, name: str, **options: Any) -> None: ...


class Queues:
    """Empty, with one worker."""

    def waiting(self, lane: Lane) -> int:
        return 0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite3")
    yield made
    made.close()


def publisher_of(bulk_window: int) -> Publisher:
    return Publisher(Celery(), Queues(), "docs", bulk_window, lease_s=300.0, attempts=3)  # type: ignore[arg-type]  # fakes


def want(ledger: Ledger, lane: Lane, *paths: bytes, moved: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    seen = {path: Seen(Fingerprint(10, 1, 1, 1)) for path in (*paths, *(new for _, new in moved))}
    with ledger.transaction():
        ledger.want(Changes(created=paths, moved=moved), seen, lane)


@contextmanager
def counted(ledger: Ledger) -> Iterator[Callable[[], int]]:
    """Steps of SQLite's machine within, each of which looks at one row at most."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += _STEPS
        return 0

    ledger._db.set_progress_handler(count, _STEPS)
    yield lambda: steps
    ledger._db.set_progress_handler(None, _STEPS)


def steps_of_an_event(ledger: Ledger, publisher: Publisher) -> int:
    """One document has its outcome, another is new: what the next hint costs."""
    path = next(iter(publisher._flights.paths))
    want(ledger, "bulk", b"new")
    assert ledger.applied(Outcome(path, ledger.wanted_seq(path), "indexed", None, None, "hash", 1), 3)
    publisher.landed(path)
    with counted(ledger) as steps:
        publisher.ring(ledger)
        assert b"new" in publisher._flights
        return steps()


def test_an_event_costs_the_same_with_ten_thousand_documents_on_their_way_as_with_a_hundred(
    ledger: Ledger, tmp_path: Path
) -> None:
    few, many = Ledger(tmp_path / "few.sqlite3"), ledger
    costs = []
    for one, number in ((few, 100), (many, 10_000)):
        publisher = publisher_of(bulk_window=1000)
        want(one, "bulk", *(b"d%05d" % n for n in range(number)))
        publisher.ring(one)
        assert len(publisher._flights.paths) == number
        costs.append(steps_of_an_event(one, publisher))
    few.close()
    assert costs[1] <= costs[0] + 2 * _STEPS, "and not a row for each document that is on its way"
    assert costs[1] < 1000


def test_a_full_folder_that_waits_is_read_a_hint_at_a_time(ledger: Ledger) -> None:
    want(ledger, "bulk", *(b"d%05d" % n for n in range(10_000)))
    publisher = publisher_of(bulk_window=1)
    with counted(ledger) as steps:
        publisher.ring(ledger)
    assert len(publisher._flights.paths) == 64
    assert steps() < 128 * 40


@pytest.mark.parametrize(
    ("ask", "plan"),
    [
        (
            lambda ledger: ledger.due(5, 3, until=9e9, lane="bulk", after=(7, b"x")),
            "SEARCH documents USING INDEX due (lane=? AND (wanted_seq,path)>(?,?))",
        ),
        (
            lambda ledger: ledger.ripe("bulk", 1.0, 2.0),
            "SEARCH documents USING INDEX later (due_at>? AND due_at<?)",
        ),
        (lambda ledger: ledger.place(b"x"), "SEARCH documents USING PRIMARY KEY (path=?)"),
        (lambda ledger: ledger.due_deletion(b"x"), "SEARCH documents USING PRIMARY KEY (path=?)"),
        (lambda ledger: ledger.is_held_back(b"x"), "SEARCH documents USING INDEX moved (moved_from=?)"),
        (lambda ledger: ledger.oldest_seq("live"), "SEARCH documents USING INDEX due (lane=?)"),
        (
            lambda ledger: ledger.waiting_between(1, 2),
            "SEARCH documents USING INDEX due (lane=? AND wanted_seq>?)",
        ),
        (lambda ledger: ledger._highest_due(), "SEARCH documents USING INDEX due (lane=?)"),
        (lambda ledger: ledger.never_applied(), "SCAN documents USING INDEX due"),
        (lambda ledger: ledger.last_outcome(), "SEARCH documents USING INDEX recent"),
    ],
)
def test_a_question_of_the_ledger_is_answered_by_an_index(
    ledger: Ledger, ask: Callable[[Ledger], Any], plan: str
) -> None:
    asked: list[str] = []
    ledger._db.set_trace_callback(asked.append)
    ask(ledger)
    ledger._db.set_trace_callback(None)
    plans = [
        row[3].replace("COVERING ", "")
        for sql in asked
        for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
    ]
    assert plan in plans
    assert "SCAN documents" not in plans


# -- nothing is passed by --------------------------------------------------------------------------------------


class Folder:
    """Documents that come, change, move, fail and go by chance, and hints that land or are lost."""

    def __init__(self, ledger: Ledger, clock: Clock, seed: int) -> None:
        self.ledger, self.clock = ledger, clock
        self.publisher = publisher_of(bulk_window=10_000)
        self.chance = random.Random(seed)
        self.number = 0

    def step(self) -> None:
        self.chance.choice((self.come, self.come, self.edit, self.move, self.go, self.land, self.land, self.lose))()
        self.clock.now += self.chance.choice((0.0, 0.1, 3.0))

    def some(self) -> bytes | None:
        known = sorted(path for path in self.ledger.known())
        return self.chance.choice(known) if known else None

    def new(self) -> bytes:
        self.number += 1
        return b"%02d-%d" % (self.chance.randrange(100), self.number)

    def come(self) -> None:
        want(self.ledger, self.chance.choice(LANES), *(self.new() for _ in range(self.chance.randint(1, 70))))

    def edit(self) -> None:
        if (path := self.some()) is not None:
            want(self.ledger, self.chance.choice(LANES), path)

    def move(self) -> None:
        if (path := self.some()) is not None:
            want(self.ledger, self.chance.choice(LANES), moved=((path, self.new()),))

    def go(self) -> None:
        if (path := self.some()) is not None:
            with self.ledger.transaction():
                self.ledger.want(Changes(deleted=(path,)), {}, self.chance.choice(LANES))

    def land(self) -> None:
        """Outcomes of some hints, of the version that was rung for, by now perhaps an older one."""
        for flight in self.chance.sample(flights := self.flights(), min(2, len(flights))):
            for path, seq in list(flight.seqs.items()):
                entry = self.ledger.entry(path)
                deleted = entry is not None and entry.operation == "delete"
                states: tuple[State, ...] = ("deleted", "superseded") if deleted else ("indexed", "failed", "changed")
                state, service = self.chance.choice(states), self.chance.random() < 0.3
                outcome = Outcome(path, seq, state, "why", None, "hash", 1, retryable=True, service=service)
                self.publisher.landed(path)
                self.ledger.applied(outcome, 3)

    def lose(self) -> None:
        if self.chance.random() < 0.1:
            self.publisher.forget_all()
        elif self.chance.random() < 0.2:
            self.clock.now -= 100.0

    def flights(self) -> list[Any]:
        return [flight for lane in LANES for flight in self.publisher._flights.of_lane(lane)]

    def passed_by(self) -> list[bytes]:
        """What is due now, is not on its way, and does not wait for its other half."""
        missing = []
        for due in self.ledger.due(10**6, 3, until=self.clock.now):
            old = None if due.moved_from is None else self.ledger.due_deletion(due.moved_from)
            waits = due.item.operation == "delete" and self.ledger.is_held_back(due.item.path)
            waits = waits or (old is not None and old.path in self.publisher._flights)
            if not waits and due.item.path not in self.publisher._flights:
                missing.append(due.item.path)
        return missing


class Clock:
    """Stands in for the module ``time`` in publisher and ledger."""

    now = 1.6e9

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return 0.0  # no lease ends


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_all_that_is_due_is_rung_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    clock = Clock()
    for module in ("producer.publisher", "producer.ledger"):
        monkeypatch.setattr(f"{module}.time", clock)
    monkeypatch.setattr(front_module, "_WHOLE_S", float("inf"))  # it must not need that
    monkeypatch.setattr("producer.publisher._LIVE_WINDOW", 10_000)
    folder = Folder(ledger, clock, seed)
    for _ in range(80):
        folder.step()
        folder.publisher.ring(ledger)
        assert folder.passed_by() == []


def test_what_was_changed_without_a_word_is_found_by_reading_all_once_in_a_while(ledger: Ledger) -> None:
    made = front_module.Front()
    want(ledger, "bulk", b"a", b"b")
    made.look(ledger, 2e9, 0.0)
    for due in list(made.read(ledger, "bulk", 3)):
        made.pass_by("bulk", due)
    made.look(ledger, 2e9, 1.0)
    assert list(made.read(ledger, "bulk", 3)) == []
    made.look(ledger, 2e9, 31.0)
    assert [due.item.path for due in made.read(ledger, "bulk", 3)] == [b"a", b"b"]


# -- hints on their way, and the inbox --------------------------------------------------------------------------


def test_a_hint_is_on_its_way_until_its_last_document_has_landed() -> None:
    flights = Flights()
    flights.add("bulk", [Item(b"a", 1), Item(b"b", 2)], 10.0)
    flights.add("bulk", [Item(b"c", 3)], 20.0)
    assert flights.number("bulk") == 2 and flights.has(b"a", 1) and not flights.has(b"a", 2)
    flights.land(b"a")
    assert flights.number("bulk") == 2 and b"a" not in flights
    flights.land(b"b")
    flights.land(b"b")
    assert flights.number("bulk") == 1 and list(flights.paths) == [b"c"]


def test_the_hints_whose_time_is_over_are_the_first_ones_also_after_one_was_put_off() -> None:
    flights = Flights()
    for number in range(3):
        flights.add("live", [Item(b"%d" % number, 1)], 10.0 + number)
    [first] = flights.overdue(10.0)
    flights.put_off(first, 30.0)
    assert [list(flight.seqs) for flight in flights.overdue(12.0)] == [[b"1"], [b"2"]]
    assert flights.drop(first) == [b"0"]
    assert sorted(flights.paths) == [b"1", b"2"]


def test_reports_that_wait_are_taken_together_and_nothing_overtakes() -> None:
    inbox: Inbox[str] = Inbox()
    events = [Outcome(b"%d" % number, 1, "indexed") for number in range(3)]
    for message in ("first", *(Reported((event,), str(n)) for n, event in enumerate(events[:2])), "then"):
        inbox.put(message)
    inbox.put(Reported((events[2],), "2"))
    assert inbox.take(0.0) == "first"
    assert inbox.take(0.0) == Reported(tuple(events[:2]), "1")
    assert not inbox.is_empty and inbox.take(0.0) == "then"
    assert inbox.take(0.0) == Reported((events[2],), "2")
    assert inbox.is_empty and inbox.take(0.01) is None
