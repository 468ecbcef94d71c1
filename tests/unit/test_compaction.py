"""When a compaction pays, what the journal hands over, and who goes first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from driver import wait_until

from headwater.compaction import Journal, Wear
from headwater.turns import Gate, Turns


@pytest.mark.parametrize(
    ("wear", "points", "busy", "is_due"),
    [
        pytest.param(Wear("i", 10_000, 0), 10_000, False, False, id="nothing happened"),
        pytest.param(Wear("i", 10_000, 2_499), 10_000, False, False, id="few were written anew"),
        pytest.param(Wear("i", 10_000, 2_500), 10_000, False, True, id="a quarter was written anew"),
        pytest.param(Wear("i", 10_000, 2_500), 10_000, True, False, id="a quarter, but much is written now"),
        pytest.param(Wear("i", 10_000, 2_500), 12_500, False, False, id="a quarter is new"),
        pytest.param(Wear("i", 100, 900), 100, False, False, id="too few for the trouble"),
        pytest.param(Wear("i", 10_000, 10), 2_000, False, True, id="most were deleted"),
        pytest.param(Wear("i", 0, 19_999), 19_999, False, False, id="all are new, and few"),
        pytest.param(Wear("i", 0, 20_000), 20_000, False, True, id="all are new"),
        pytest.param(Wear("i", 0, 20_000), 20_000, True, False, id="all are new, and more come"),
        pytest.param(Wear("i", 0, 100_000), 100_000, True, True, id="so many are new that searches get slow"),
        pytest.param(Wear("i", 200_000, 30_000), 230_000, False, False, id="a few more"),
    ],
)
def test_a_compaction_is_due_when_it_pays(wear: Wear, points: int, busy: bool, is_due: bool) -> None:
    assert wear.is_due(points, busy=busy, least_dead=1000) is is_due


def test_wear_is_kept_for_its_index_only(tmp_path: Path) -> None:
    note = tmp_path / "wear.json"
    assert Wear.read(note, "one") is None
    Wear("one", 5, 7).plus(3).write(note)
    assert Wear.read(note, "one") == Wear("one", 5, 10)
    assert Wear.read(note, "other") is None
    note.write_text('{"index_id": "one", "points": "many"}')
    assert Wear.read(note, "one") is None
    note.write_text("not json")
    assert Wear.read(note, "one") is None


def test_the_journal_hands_each_change_over_once() -> None:
    journal = Journal()
    journal.note_documents(["a", "b"])
    journal.note_documents(["a"])
    journal.note_call("sweep", ((5,),))
    changes = journal.take()
    assert changes.documents == {"a", "b"}
    assert changes.calls == (("sweep", ((5,),)),)
    assert len(changes) == 3
    assert len(journal.take()) == 0


def test_who_comes_with_first_goes_before_those_who_wait() -> None:
    turns = Turns()
    order: list[str] = []

    def use(name: str, first: bool) -> None:
        with turns.taken(first=first):
            order.append(name)

    with turns.taken(first=False):
        writers = [threading.Thread(target=use, args=(f"write {n}", False)) for n in range(3)]
        for writer in writers:
            writer.start()
        wait_until(lambda: len(turns._changed._waiters) == 3, "three writes wait", timeout_s=10)  # type: ignore[attr-defined]
        search = threading.Thread(target=use, args=("search", True))
        search.start()
        wait_until(lambda: turns._first_waiting == 1, "the search waits", timeout_s=10)
    for thread in (*writers, search):
        thread.join(10)
    assert order[0] == "search"
    assert len(order) == 4


def test_searches_without_end_do_not_keep_a_write_waiting() -> None:
    # Given threads that search one after the other, so that one always waits
    turns = Turns()
    ended = threading.Event()

    def search() -> None:
        while not ended.is_set():
            with turns.taken(first=True):
                time.sleep(0.001)

    searchers = [threading.Thread(target=search, daemon=True) for _ in range(4)]
    for searcher in searchers:
        searcher.start()
    wait_until(lambda: turns._first_waiting >= 2, "searches wait", timeout_s=10)
    # When another call comes, then it gets its turn
    went = threading.Event()

    def write() -> None:
        with turns.taken(first=False):
            went.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    came = went.wait(10)
    ended.set()
    for thread in (*searchers, writer):
        thread.join(10)
    assert came


def test_a_held_gate_lets_nobody_in_and_waits_for_those_inside() -> None:
    gate = Gate()
    inside, leave, entered = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def stay() -> None:
        with gate.passed():
            inside.set()
            assert leave.wait(10)
            order.append("left")

    def hold() -> None:
        with gate.held():
            order.append("held")

    def enter() -> None:
        with gate.passed():
            order.append("entered")
            entered.set()

    threads = [threading.Thread(target=stay), threading.Thread(target=hold), threading.Thread(target=enter)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    wait_until(lambda: gate._is_held, "the gate is held", timeout_s=10)
    threads[2].start()
    assert not entered.wait(0.05)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["left", "held", "entered"]
