"""The record of what is wanted and what is applied."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from headwater.document import Fingerprint
from headwater.errors import DiskFull, HeadwaterError
from headwater.messages import Embedded, Lane, Outcome, State
from producer.census import compare
from producer.diff import Changes, Seen, diff
from producer.ledger import Counts, Ledger

ATTEMPTS = 3
#: Qdrant compares numbers as 64-bit floats, which hold whole numbers up to here
EXACT = 2**53


@dataclass
class Clock:
    """Stands in for the module ``time``."""

    now_ns: int = 1_800_000_000 * 10**9

    def time_ns(self) -> int:
        return self.now_ns

    def time(self) -> float:
        return self.now_ns / 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("producer.ledger.time", clock)
    return clock


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


def mark(inode: int = 1, size: int = 10) -> Fingerprint:
    return Fingerprint(size, 2, 3, inode)


def entry(refusal: str | None = None, size: int = 10) -> Seen:
    return Seen(mark(size=size), refusal)


def want(ledger: Ledger, changes: Changes, lane: Lane = "bulk", refusal: str | None = None, size: int = 10) -> None:
    paths = (*changes.created, *changes.changed, *(new for _, new in changes.moved))
    with ledger.transaction():
        ledger.want(changes, {path: entry(refusal, size) for path in paths}, lane)


def create(ledger: Ledger, *paths: bytes, lane: Lane = "bulk", refusal: str | None = None, size: int = 10) -> None:
    want(ledger, Changes(created=paths), lane, refusal, size)


def settle(ledger: Ledger, path: bytes, state: State = "indexed", chunks: int = 2) -> None:
    with ledger.transaction():
        outcome = Outcome(path, ledger.wanted_seq(path), state, None, mark(), "hash", chunks)
        assert ledger.applied(outcome, ATTEMPTS)


def fail(ledger: Ledger, path: bytes, *, service: bool = False) -> bool:
    outcome = Outcome(path, ledger.wanted_seq(path), "failed", "broken", retryable=True, service=service)
    with ledger.transaction():
        return ledger.applied(outcome, ATTEMPTS)


def due_paths(ledger: Ledger) -> list[bytes]:
    return [due.item.path for due in ledger.due(1000, ATTEMPTS)]


# -- any sequence of changes, outcomes and clock jumps --------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """The ledger beside a model of it: per path the wanted seq and operation, and which of them are settled."""

    PATHS = st.sampled_from([b"a", b"b", b"c/d"])

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.directory.name) / "ledger.sqlite3")
        self.live: set[bytes] = set()
        self.seqs: dict[bytes, int] = {}
        self.waiting: set[bytes] = set()
        self.highest = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.directory.cleanup()

    @rule(path=PATHS, lane=st.sampled_from(["live", "bulk"]))
    def create_or_change(self, path: bytes, lane: Lane) -> None:
        changes = Changes(changed=(path,)) if path in self.live else Changes(created=(path,))
        want(self.ledger, changes, lane)
        self.live.add(path)
        self.note(path)

    @rule(path=PATHS)
    def delete(self, path: bytes) -> None:
        if path in self.live:
            want(self.ledger, Changes(deleted=(path,)))
            self.live.remove(path)
            self.note(path)

    @rule(old=PATHS, new=PATHS)
    def move(self, old: bytes, new: bytes) -> None:
        if old in self.live and new not in self.live:
            want(self.ledger, Changes(moved=((old, new),)))
            self.live = self.live - {old} | {new}
            self.note(new, old)

    @rule()
    def want_all_again(self) -> None:
        with self.ledger.transaction():
            self.ledger.want_all_again()
        for path in self.live:
            seq = self.ledger.wanted_seq(path)
            assert seq > self.seqs[path] or path in self.waiting
            self.seqs[path] = seq
        self.waiting |= self.live
        self.highest = max(self.highest, *self.seqs.values()) if self.seqs else self.highest

    @rule(
        path=PATHS,
        late=st.sampled_from([0, 0, 0, -1, -1000, 1]),
        retryable=st.booleans(),
        service=st.booleans(),
        state=st.sampled_from(["indexed", "partial", "refused", "failed", "vanished", "changed", "superseded"]),
    )
    def outcome(self, path: bytes, late: int, retryable: bool, service: bool, state: State) -> None:
        if path not in self.seqs:
            return
        if path not in self.live and state in ("indexed", "partial", "refused"):
            state = "deleted"
        outcome = Outcome(path, self.seqs[path] + late, state, "why", mark(), "hash", 1, retryable, service)
        with self.ledger.transaction():
            settled = self.ledger.applied(outcome, ATTEMPTS)
        assert not (settled and late)
        assert not (settled and state in ("vanished", "changed", "superseded"))
        assert settled or late or state in ("vanished", "changed", "superseded", "failed")
        if settled:
            self.waiting.discard(path)
        elif outcome.is_try and not late and path in self.waiting:
            self.note(path)  # the next try has a seq of its own

    @rule(seconds=st.integers(-10_000_000, 10_000_000))
    def the_clock_jumps(self, seconds: int) -> None:
        CLOCK.now_ns += seconds * 10**9

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(Path(self.directory.name) / "ledger.sqlite3")

    def note(self, *paths: bytes) -> None:
        """Each touched path has a new seq above all that were ever given, in this order."""
        for path in paths:
            seq = self.ledger.wanted_seq(path)
            assert self.highest < seq < EXACT
            self.highest = self.seqs[path] = seq
        self.waiting |= set(paths)

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert {path: self.ledger.wanted_seq(path) for path in self.seqs} == self.seqs
        assert set(due_paths(self.ledger)) == self.waiting
        assert self.ledger.waiting() == self.ledger.counts().waiting == len(self.waiting)
        assert set(self.ledger.known()) == self.live


CLOCK = Clock()


def test_any_history_keeps_seqs_rising_and_settles_only_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.ledger.time", CLOCK)
    run_state_machine_as_test(AnyHistory, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


# -- seqs ------------------------------------------------------------------------------------------------------


def test_a_seq_is_the_wall_clock_in_microseconds_and_exact_in_a_float(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a")
    seq = ledger.wanted_seq(b"a")
    assert clock.now_ns // 1000 <= seq < EXACT
    assert float(seq) != float(seq + 1)


def test_a_clock_that_goes_backwards_never_lowers_a_seq(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a")
    first = ledger.wanted_seq(b"a")
    clock.now_ns -= 3600 * 10**9
    want(ledger, Changes(changed=(b"a",)))
    create(ledger, b"b")
    assert first < ledger.wanted_seq(b"a") < ledger.wanted_seq(b"b")


def test_seqs_rise_over_all_documents_of_a_set_of_changes(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a", b"b", b"c")
    seqs = [ledger.wanted_seq(path) for path in (b"a", b"b", b"c")]
    assert seqs == sorted(set(seqs))
    create(ledger, b"d")
    assert ledger.wanted_seq(b"d") > max(seqs)


def test_a_document_that_was_deleted_and_comes_back_has_a_higher_seq(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a")
    settle(ledger, b"a")
    want(ledger, Changes(deleted=(b"a",)))
    deleted = ledger.wanted_seq(b"a")
    settle(ledger, b"a", "deleted", chunks=0)
    # Then the tombstone keeps the seq, and is no document
    assert ledger.wanted_seq(b"a") == deleted
    assert ledger.known() == {}
    assert ledger.counts() == Counts()
    clock.now_ns -= 10**12
    create(ledger, b"a")
    assert ledger.wanted_seq(b"a") > deleted


def test_a_tombstone_is_forgotten_after_a_week_and_the_next_seq_is_still_higher(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a", b"b")
    settle(ledger, b"b")
    want(ledger, Changes(deleted=(b"a",)))
    deleted = ledger.wanted_seq(b"a")
    settle(ledger, b"a", "deleted", chunks=0)
    ledger.drop_old_tombstones()
    assert ledger.wanted_seq(b"a") == deleted
    clock.now_ns += 8 * 24 * 3600 * 10**9
    ledger.drop_old_tombstones()
    assert ledger.wanted_seq(b"a") == 0
    assert set(ledger.known()) == {b"b"}
    clock.now_ns -= 30 * 24 * 3600 * 10**9
    create(ledger, b"a")
    assert ledger.wanted_seq(b"a") > deleted


def test_seqs_go_above_one_that_the_index_holds(ledger: Ledger, clock: Clock) -> None:
    in_the_index = clock.now_ns // 1000 + 10**9
    ledger.raise_seq(in_the_index)
    ledger.raise_seq(5)
    create(ledger, b"a")
    assert ledger.wanted_seq(b"a") > in_the_index


# -- outcomes --------------------------------------------------------------------------------------------------


def test_an_outcome_of_an_older_version_settles_nothing(ledger: Ledger) -> None:
    create(ledger, b"a")
    old = ledger.wanted_seq(b"a")
    want(ledger, Changes(changed=(b"a",)))
    assert not ledger.applied(Outcome(b"a", old, "indexed", None, mark(), "hash", 9), ATTEMPTS)
    assert ledger.waiting() == 1
    assert ledger.counts().chunks == 0


def test_an_outcome_of_a_path_that_nobody_wants_is_ignored(ledger: Ledger) -> None:
    assert not ledger.applied(Outcome(b"nobody", 1, "indexed"), ATTEMPTS)
    assert ledger.known() == {}


def test_a_settled_document_has_the_fingerprint_that_was_read(ledger: Ledger) -> None:
    create(ledger, b"a")
    read = Fingerprint(99, 98, 97, 96)
    ledger.applied(Outcome(b"a", ledger.wanted_seq(b"a"), "indexed", None, read, "hash", 1), ATTEMPTS)
    assert ledger.known() == {b"a": read}


@pytest.mark.parametrize("state", ["changed", "superseded", "vanished"])
def test_an_outcome_that_asks_for_another_look_settles_nothing(ledger: Ledger, state: State) -> None:
    create(ledger, b"a")
    assert not ledger.applied(Outcome(b"a", ledger.wanted_seq(b"a"), state), ATTEMPTS)
    assert ledger.waiting() == 1
    ledger.look_again(b"a")
    assert ledger.known() == {b"a": None}


def test_a_document_fails_for_good_when_its_tries_are_spent(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a")
    operations, delays = [], []
    for _ in range(ATTEMPTS - 1):
        operations.append(ledger.due(1, ATTEMPTS)[0].item.operation)
        assert not fail(ledger, b"a")
        delays.append(ledger.due(1, ATTEMPTS)[0].due_at - clock.time())
    # Then the last try is marked as such, each wait was longer, and the reason is kept
    assert operations == ["index"] * (ATTEMPTS - 1)
    assert ledger.due(1, ATTEMPTS)[0].item.operation == "final"
    assert 0 < delays[0] < delays[1]
    assert fail(ledger, b"a")
    assert (ledger.waiting(), ledger.counts().failed) == (0, 1)
    assert [row.reason for row in ledger.rows(state="failed")] == ["broken"]


@pytest.mark.parametrize(("unread", "next_scan"), [(True, [b"a"]), (False, [])])
def test_what_no_byte_was_read_of_is_tried_again_at_the_next_scan(
    ledger: Ledger, unread: bool, next_scan: list[bytes]
) -> None:
    create(ledger, b"a")
    for _ in range(ATTEMPTS):
        seq = ledger.wanted_seq(b"a")
        outcome = Outcome(b"a", seq, "failed", "broken", retryable=True, unread=unread)
        with ledger.transaction():
            ledger.applied(outcome, ATTEMPTS)
    assert ledger.counts().failed == 1
    seen = {b"a": entry()}
    assert list(diff(ledger.known(seen=seen), seen).changed) == next_scan


def test_changed_content_has_a_new_budget(ledger: Ledger) -> None:
    create(ledger, b"a")
    for _ in range(ATTEMPTS):
        fail(ledger, b"a")
    want(ledger, Changes(changed=(b"a",)))
    assert ledger.due(1, ATTEMPTS)[0].item.operation == "index"
    assert not fail(ledger, b"a")


def test_a_failure_of_the_service_is_no_try_of_the_document(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a")
    for _ in range(5 * ATTEMPTS):
        assert not fail(ledger, b"a", service=True)
    due = ledger.due(1, ATTEMPTS)[0]
    assert due.item.operation == "index"
    assert due.due_at > clock.time()


def test_a_failure_that_others_may_have_caused_never_settles_and_leads_to_a_try_alone(ledger: Ledger) -> None:
    create(ledger, b"a")
    for _ in range(3 * ATTEMPTS):
        shared = Outcome(b"a", ledger.wanted_seq(b"a"), "failed", "no answer", retryable=True, shared=True)
        with ledger.transaction():
            assert not ledger.applied(shared, ATTEMPTS)
    assert ledger.counts().failed == 0
    assert ledger.due(1, ATTEMPTS)[0].item.operation == "final"
    assert fail(ledger, b"a")
    assert ledger.counts().failed == 1


def test_a_failure_that_cannot_pass_settles_at_once(ledger: Ledger) -> None:
    create(ledger, b"a")
    assert ledger.applied(Outcome(b"a", ledger.wanted_seq(b"a"), "failed", "no"), ATTEMPTS)
    assert ledger.counts().failed == 1


# -- what is due -----------------------------------------------------------------------------------------------


def test_live_work_comes_before_bulk_work_and_then_the_oldest_first(ledger: Ledger) -> None:
    create(ledger, b"b1", b"b2")
    create(ledger, b"l1", lane="live")
    create(ledger, b"b3")
    create(ledger, b"l2", lane="live")
    assert due_paths(ledger) == [b"l1", b"l2", b"b1", b"b2", b"b3"]
    assert [due.item.path for due in ledger.due(2, ATTEMPTS)] == [b"l1", b"l2"]


def test_a_move_wants_the_new_path_and_then_the_old_one_gone(ledger: Ledger) -> None:
    create(ledger, b"old")
    settle(ledger, b"old")
    want(ledger, Changes(moved=((b"old", b"new"),)), "live")
    new, old = ledger.due(10, ATTEMPTS)
    assert (new.item.path, new.item.operation, new.moved_from) == (b"new", "index", b"old")
    assert (old.item.path, old.item.operation, old.moved_from) == (b"old", "delete", None)
    assert new.item.seq < old.item.seq
    settle(ledger, b"new")
    assert [due.moved_from for due in ledger.due(10, ATTEMPTS)] == [None]


def test_a_path_that_moved_on_no_longer_holds_back_its_own_old_path(ledger: Ledger) -> None:
    create(ledger, b"a")
    settle(ledger, b"a")
    want(ledger, Changes(moved=((b"a", b"b"),)))
    want(ledger, Changes(moved=((b"b", b"c"),)))
    assert {due.item.path: due.moved_from for due in ledger.due(10, ATTEMPTS)} == {b"a": None, b"b": None, b"c": b"b"}


def test_an_entry_that_is_no_file_is_refused_without_a_worker(ledger: Ledger) -> None:
    create(ledger, b"pipe", refusal="not a regular file")
    assert ledger.waiting() == 0
    assert [(row.path, row.reason) for row in ledger.rows(state="refused")] == [(b"pipe", "not a regular file")]
    assert set(ledger.known()) == {b"pipe"}


def test_a_link_in_place_of_an_indexed_document_still_needs_a_worker(ledger: Ledger) -> None:
    create(ledger, b"a")
    settle(ledger, b"a")
    want(ledger, Changes(changed=(b"a",)), refusal="symbolic link")
    assert due_paths(ledger) == [b"a"]


def test_a_link_in_place_of_a_document_whose_hint_is_on_its_way_still_needs_a_worker(ledger: Ledger) -> None:
    # Given a new document that a worker may just have written, with its outcome still to come
    create(ledger, b"a")
    # When a link takes its place
    want(ledger, Changes(changed=(b"a",)), refusal="symbolic link")
    # Then what was written must be taken out again
    assert due_paths(ledger) == [b"a"]


def test_an_unchanged_document_is_due_again_when_the_index_is_another_one(ledger: Ledger) -> None:
    ledger.add_embedded(Embedded(5, 3))
    ledger.add_embedded(Embedded(1, 0))
    assert (ledger.meta("embedded_total"), ledger.meta("reused_total")) == ("6", "3")
    create(ledger, b"a", b"b")
    settle(ledger, b"a")
    before = {path: ledger.wanted_seq(path) for path in (b"a", b"b")}
    ledger.new_index("another")
    assert set(due_paths(ledger)) == {b"a", b"b"}
    assert ledger.wanted_seq(b"a") > before[b"a"]
    assert {name: ledger.meta(name) for name in ("index_id", "embedded_total", "reused_total")} == {
        "index_id": "another",
        "embedded_total": "0",
        "reused_total": "0",
    }


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_a_document_that_the_worker_could_not_read_is_due_again_with_all_others(ledger: Ledger, state: State) -> None:
    # Given one that was larger than the limit, or that could not be opened: nothing of it was ever read
    create(ledger, b"a")
    outcome = Outcome(b"a", ledger.wanted_seq(b"a"), state, "larger than the limit of 10 bytes")
    assert ledger.applied(outcome, ATTEMPTS)
    # When the limit (part of the pipeline's fingerprint) is another one
    ledger.want_all_again()
    # Then it gets its chance
    assert due_paths(ledger) == [b"a"]


def test_tombstones_are_not_wanted_again(ledger: Ledger) -> None:
    create(ledger, b"a")
    want(ledger, Changes(deleted=(b"a",)))
    settle(ledger, b"a", "deleted", chunks=0)
    ledger.want_all_again()
    assert ledger.waiting() == 0


# -- what is known ---------------------------------------------------------------------------------------------

TRICKY = [b"a", b"a!", b"a/b", b"a0", b"a/b/c", b"a/b!", b"a\xff", b"a/\xff", b"A", b"aa", b"a-/b", b"b", b"a%"]


def test_equal_fingerprints_of_ledger_and_folder_are_held_once(ledger: Ledger) -> None:
    create(ledger, b"same.md", b"other.md", b"gone.md")
    seen = {b"same.md": entry(), b"other.md": entry(size=11), b"new.md": entry()}
    known = ledger.known(seen=seen)
    assert known == ledger.known() == {b"same.md": mark(), b"other.md": mark(), b"gone.md": mark()}
    assert known[b"same.md"] is seen[b"same.md"].fingerprint


@pytest.mark.parametrize("path", [b"a", b"a/b", b"a!", b"a0", b"a-", b"b", b"gone", b"a%", b"_"])
def test_what_is_known_below_a_path_is_that_path_and_what_lies_in_it(ledger: Ledger, path: bytes) -> None:
    create(ledger, *TRICKY)
    expected = {known for known in TRICKY if known == path or known.startswith(path + b"/")}
    assert set(ledger.known(below=path)) == expected


def test_everything_is_below_the_folder_itself(ledger: Ledger) -> None:
    create(ledger, *TRICKY)
    assert set(ledger.known(below=b"")) == set(ledger.known()) == set(TRICKY)


PATHS = st.lists(st.sampled_from([b"a", b"!", b"0", b"a!", b"\xff"]), min_size=1, max_size=3).map(b"/".join)


@settings(max_examples=25)
@given(st.sets(PATHS, max_size=8), PATHS | st.just(b""))
def test_known_below_agrees_with_a_search_through_all(paths: set[bytes], top: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(Path(directory) / "ledger.sqlite3")
        create(ledger, *paths)
        found = set(ledger.known(below=top))
        ledger.close()
    assert found == {path for path in paths if not top or path == top or path.startswith(top + b"/")}


def test_counts_are_by_state_and_what_is_due_waits(ledger: Ledger) -> None:
    states: list[State] = ["indexed", "indexed", "partial", "refused", "failed", "deleted"]
    create(ledger, *(b"%d" % number for number in range(len(states))), b"new", b"again")
    want(ledger, Changes(deleted=(b"5",)))
    for number, state in enumerate(states):
        settle(ledger, b"%d" % number, state, chunks=3 if state in ("indexed", "partial") else 0)
    settle(ledger, b"again", chunks=4)
    want(ledger, Changes(changed=(b"again",)))
    counts = ledger.counts()
    assert counts == Counts(indexed=2, partial=1, refused=1, failed=1, waiting=2, chunks=13)
    assert counts.documents == 7
    whole = {version.path: version.points for version in ledger.versions() if version.points}
    assert whole == {b"0": 4, b"1": 4, b"2": 4}


def test_documents_that_are_wanted_again_get_seqs_of_their_own_and_the_others_keep_theirs(ledger: Ledger) -> None:
    create(ledger, b"a", b"b", b"c")
    for path in (b"a", b"b", b"c"):
        settle(ledger, path)
    before = {version.path: version.applied_seq for version in ledger.versions()}
    with ledger.transaction():
        ledger.read_again([b"a", b"c", b"unknown"])
    after = {version.path: version.wanted_seq for version in ledger.versions()}
    assert after[b"b"] == before[b"b"]
    assert max(before.values()) < after[b"a"] < after[b"c"]
    assert [entry.item.path for entry in ledger.due(10, 3)] == [b"a", b"c"]


def test_deletions_are_accepted_by_number_and_forgotten_when_released(ledger: Ledger) -> None:
    assert ledger.accept_deletions() == ledger.accepted_deletions() == 0
    ledger.hold_deletions(7, "the folder was replaced")
    assert ledger.held_deletions() == 7
    assert ledger.accept_deletions() == ledger.accepted_deletions() == 7
    ledger.release_deletions()
    assert (ledger.held_deletions(), ledger.accepted_deletions()) == (0, 0)


def test_an_empty_ledger_counts_nothing(ledger: Ledger) -> None:
    assert (ledger.counts(), list(ledger.versions()), ledger.waiting(), ledger.rows()) == (Counts(), [], 0, [])


def test_rows_come_in_order_of_their_outcome_and_only_newer_ones_if_asked(ledger: Ledger, clock: Clock) -> None:
    create(ledger, b"a", b"b", b"c")
    for path in (b"c", b"a", b"b"):
        clock.now_ns += 10**9
        settle(ledger, path)
    assert [row.path for row in ledger.rows()][-3:] == [b"c", b"a", b"b"]
    assert [row.path for row in ledger.rows(since=clock.time() - 1)] == [b"b"]
    assert len(ledger.rows(limit=2)) == 2


# -- the file --------------------------------------------------------------------------------------------------


def test_what_is_noted_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger.sqlite3")
    create(first, b"a\xff")
    settle(first, b"a\xff")
    want(first, Changes(changed=(b"a\xff",)))
    seq = first.wanted_seq(b"a\xff")
    first.close()
    second = Ledger(tmp_path / "ledger.sqlite3")
    assert (second.wanted_seq(b"a\xff"), second.waiting()) == (seq, 1)
    second.close()


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.transaction():
        ledger.want(Changes(created=(b"a", b"missing")), {b"a": entry()}, "bulk")
    assert ledger.known() == {}
    assert ledger.meta("last_seq") is None


def test_a_reader_sees_what_the_writer_notes_and_cannot_write(tmp_path: Path) -> None:
    writer = Ledger(tmp_path / "ledger.sqlite3")
    reader = Ledger(tmp_path / "ledger.sqlite3", read_only=True)
    create(writer, b"a")
    assert set(reader.known()) == {b"a"}
    with pytest.raises((HeadwaterError, sqlite3.OperationalError)), reader.transaction():
        reader.set_meta("x", "y")
    reader.close()
    writer.close()


def test_a_reader_of_a_ledger_that_is_not_there_gets_a_plain_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError, match=r"ledger\.sqlite3"):
        Ledger(tmp_path / "ledger.sqlite3", read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["led ger", "a?b", "a#b", "100%41", "\u00e9"])
def test_a_ledger_lies_where_it_was_named(tmp_path: Path, name: str) -> None:
    Ledger(tmp_path / name).close()
    assert (tmp_path / name).is_file()


def test_a_file_that_is_no_ledger_gives_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"this is no database " * 500)
    with pytest.raises(HeadwaterError, match="damaged"):
        Ledger(tmp_path / "ledger.sqlite3")


def test_a_ledger_damaged_in_its_middle_gives_a_plain_error_to_whoever_reads(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    first = Ledger(path)
    create(first, *(b"%06d" % number for number in range(2000)))
    first.close()
    data = bytearray(path.read_bytes())
    data[8192:-4096] = b"\xa5" * (len(data) - 8192 - 4096)
    path.write_bytes(data)

    def read() -> None:
        ledger = Ledger(path)
        try:
            ledger.known()
            ledger.counts()
        finally:
            ledger.close()

    with pytest.raises(HeadwaterError, match="damaged"):
        read()


def test_a_directory_that_is_not_there_gives_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError):
        Ledger(tmp_path / "gone" / "ledger.sqlite3")


# -- verification ---------------------------------------------------------------------------------------------


def test_an_entry_tells_all_that_is_held_of_a_document(ledger: Ledger) -> None:
    create(ledger, b"a", b"b")
    settle(ledger, b"a", chunks=4)
    first = ledger.entry(b"a")
    assert first is not None
    assert (first.path, first.operation, first.state, first.chunks) == (b"a", "index", "indexed", 4)
    assert (first.content_hash, first.fingerprint, first.waiting) == ("hash", mark(), False)
    assert first.wanted_seq == first.applied_seq == ledger.wanted_seq(b"a")
    second = ledger.entry(b"b")
    assert second is not None
    assert second.waiting
    assert ledger.entry(b"c") is None


def test_entries_come_page_by_page_in_the_order_of_their_paths(ledger: Ledger) -> None:
    paths = [b"%03d" % n for n in range(25)] + [b"\xff"]
    create(ledger, *reversed(paths))
    found: list[bytes] = []
    while page := ledger.entries(found[-1] if found else b"", limit=10):
        assert len(page) <= 10
        found += [entry.path for entry in page]
    assert found == paths


def test_documents_that_are_wanted_again_are_due_with_new_seqs_and_no_others(ledger: Ledger, clock: Clock) -> None:
    # Given settled documents, one that failed for good, and a clock that went back
    create(ledger, b"a", b"b", b"c", b"poison")
    for path in (b"a", b"b", b"c"):
        settle(ledger, path)
    while not fail(ledger, b"poison"):
        pass
    highest = max(entry.wanted_seq for entry in ledger.entries())
    untouched = ledger.entry(b"b")
    clock.now_ns -= 3600 * 10**9
    # When some are wanted again, one of which the ledger does not know
    with ledger.transaction():
        first, end = ledger.want_as_seen([(b"a", mark(9)), (b"new", mark(8)), (b"poison", None)])
    # Then exactly they are due, each above every seq before
    assert due_paths(ledger) == [b"a", b"new", b"poison"]
    assert [ledger.wanted_seq(path) for path in (b"a", b"new", b"poison")] == list(range(first, end))
    assert first > highest
    assert ledger.entry(b"b") == untouched
    assert ledger.known() == {b"a": mark(9), b"b": mark(), b"c": mark(), b"new": mark(8), b"poison": None}
    # And the next change goes above them
    create(ledger, b"later")
    assert ledger.wanted_seq(b"later") >= end


def test_what_is_still_due_of_a_range_of_seqs_is_counted(ledger: Ledger) -> None:
    create(ledger, b"a", b"b", b"other")
    with ledger.transaction():
        first, end = ledger.want_as_seen([(b"a", mark()), (b"b", mark())])
    assert ledger.waiting_between(first, end) == 2
    settle(ledger, b"a")
    assert ledger.waiting_between(first, end) == 1
    fail(ledger, b"b")
    assert ledger.waiting_between(first, end) == 1
    want(ledger, Changes(changed=(b"b",)))
    assert ledger.waiting_between(first, end) == 0


def test_a_row_whose_applied_seq_was_damaged_is_due_all_the_same(ledger: Ledger, tmp_path: Path) -> None:
    create(ledger, b"a")
    settle(ledger, b"a")
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as other:
        other.execute("UPDATE documents SET applied_seq = 1 << 60")
    other.close()
    with ledger.transaction():
        ledger.want_as_seen([(b"a", mark())])
    assert due_paths(ledger) == [b"a"]


# -- tries of one content ---------------------------------------------------------------------------------------


def fail_content(ledger: Ledger, path: bytes, content: str, seq: int | None = None) -> bool:
    """A try of this content failed."""
    outcome = Outcome(path, seq or ledger.wanted_seq(path), "failed", "broken", mark(), content, retryable=True)
    with ledger.transaction():
        return ledger.applied(outcome, ATTEMPTS)


def next_item(ledger: Ledger) -> tuple[str, str | None]:
    [due] = ledger.due(1000, ATTEMPTS)
    return due.item.operation, due.item.tried


def test_a_touch_gives_no_new_tries_to_content_that_failed(ledger: Ledger) -> None:
    # Given a document whose content used up its tries
    create(ledger, b"a")
    assert [fail_content(ledger, b"a", "poison") for _ in range(ATTEMPTS)] == [False, False, True]
    # When its file is touched
    want(ledger, Changes(changed=(b"a",)))
    # Then the worker is told which content has none left, and its answer keeps reason and number
    assert next_item(ledger) == ("spent", "poison")
    answer = Outcome(b"a", ledger.wanted_seq(b"a"), "failed", None, mark(), "poison")
    assert ledger.applied(answer, ATTEMPTS)
    assert [row.reason for row in ledger.rows(state="failed")] == ["broken"]
    want(ledger, Changes(changed=(b"a",)))
    assert next_item(ledger) == ("spent", "poison")


def test_other_content_has_all_its_tries_also_in_the_middle(ledger: Ledger) -> None:
    create(ledger, b"a")
    fail_content(ledger, b"a", "one")
    fail_content(ledger, b"a", "one")
    assert next_item(ledger) == ("final", "one")
    want(ledger, Changes(changed=(b"a",)))
    assert [fail_content(ledger, b"a", "two") for _ in range(ATTEMPTS)] == [False, False, True]


def test_tries_are_counted_over_touches_during_each_of_them(ledger: Ledger) -> None:
    create(ledger, b"a")
    for _ in range(ATTEMPTS):
        tried = ledger.wanted_seq(b"a")
        want(ledger, Changes(changed=(b"a",)))
        assert not fail_content(ledger, b"a", "poison", tried)
    assert next_item(ledger) == ("spent", "poison")


def test_an_outcome_that_comes_twice_is_not_two_tries(ledger: Ledger) -> None:
    create(ledger, b"a")
    first = ledger.wanted_seq(b"a")
    assert not fail_content(ledger, b"a", "poison", first)
    for _ in range(ATTEMPTS):
        assert not fail_content(ledger, b"a", "poison", first)
    assert next_item(ledger) == ("index", "poison")
    assert ledger.wanted_seq(b"a") > first
    # Nor is one that comes after the document is settled
    settle(ledger, b"a")
    seq = ledger.wanted_seq(b"a")
    assert not fail_content(ledger, b"a", "poison", seq)
    assert (ledger.wanted_seq(b"a"), ledger.counts().indexed, ledger.waiting()) == (seq, 1, 0)


def test_tries_stay_counted_over_a_delete_and_the_loss_of_the_index(ledger: Ledger) -> None:
    create(ledger, b"a")
    for _ in range(ATTEMPTS):
        fail_content(ledger, b"a", "poison")
    want(ledger, Changes(deleted=(b"a",)))
    settle(ledger, b"a", "deleted", chunks=0)
    create(ledger, b"a")
    assert next_item(ledger) == ("spent", "poison")
    ledger.new_index("another")
    assert next_item(ledger) == ("spent", "poison")
    # But another way of cutting is another chance
    ledger.want_all_again(also_due=True)
    assert next_item(ledger) == ("index", None)


def test_content_that_is_indexed_at_last_forgets_its_failures(ledger: Ledger) -> None:
    create(ledger, b"a")
    fail_content(ledger, b"a", "hash")
    settle(ledger, b"a")
    want(ledger, Changes(changed=(b"a",)))
    assert next_item(ledger) == ("index", None)


def test_a_person_may_ask_for_all_tries_again(ledger: Ledger) -> None:
    create(ledger, b"a", b"b")
    for _ in range(ATTEMPTS):
        fail_content(ledger, b"a", "poison")
    before = ledger.wanted_seq(b"a")
    assert ledger.want_again(b"a")
    assert ledger.wanted_seq(b"a") > before
    assert {due.item.path: due.item.operation for due in ledger.due(9, ATTEMPTS)} == {b"a": "index", b"b": "index"}
    # But not for what is due, or not there
    assert not ledger.want_again(b"b")
    assert not ledger.want_again(b"nobody")


def test_a_ledger_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Ledger(path).close()
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE documents DROP COLUMN tried_hash")
        old.execute("ALTER TABLE documents DROP COLUMN tried_seq")
        old.execute("ALTER TABLE documents DROP COLUMN noticed_seq")
        old.execute("INSERT INTO documents (path, wanted_seq, attempts) VALUES (x'61', 5, 1)")
    old.close()
    ledger = Ledger(path)
    assert next_item(ledger) == ("index", None)
    fail_content(ledger, b"a", "poison")
    assert next_item(ledger) == ("final", "poison")
    ledger.close()


def test_a_full_disk_is_one_sentence_in_a_transaction_and_out_of_one(ledger: Ledger) -> None:
    # Given a ledger that cannot grow
    [pages] = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    # When more is noted than fits
    with pytest.raises(DiskFull, match="is full: free some space"):
        ledger.set_meta("reasons", "x" * 100_000)
    with pytest.raises(DiskFull, match="is full: free some space"), ledger.transaction():
        ledger.set_meta("reasons", "x" * 100_000)
    # Then it goes on when there is space again
    ledger._db.execute("PRAGMA max_page_count = 100000")
    with ledger.transaction():
        ledger.set_meta("reasons", "x" * 100_000)
    assert ledger.meta("reasons") == "x" * 100_000


@pytest.mark.parametrize("also_due", [False, True])
def test_documents_that_are_all_wanted_again_have_a_seq_each(ledger: Ledger, also_due: bool) -> None:
    """A census counts points by seq: with one for all, every document would look damaged and be read once more."""
    paths = tuple(b"%d" % number for number in range(5))
    with ledger.transaction():
        ledger.want(Changes(created=paths), {path: Seen(Fingerprint(1, 1, 1, 1)) for path in paths}, "bulk")
    for path in paths:
        assert ledger.applied(Outcome(path, ledger.wanted_seq(path), "indexed", None, None, "hash", 1), 3)
    before = max(map(ledger.wanted_seq, paths))
    ledger.want_all_again(also_due=also_due)
    seqs = [ledger.wanted_seq(path) for path in paths]
    assert len(set(seqs)) == 5 and min(seqs) > before
    for path in paths:
        assert ledger.applied(Outcome(path, ledger.wanted_seq(path), "indexed", None, None, "hash", 1), 3)
    assert compare(ledger.versions(), dict.fromkeys(seqs, 2)).findings == 0
    # And what is wanted next stands above all of them
    ledger.want_again(paths[0])
    assert ledger.wanted_seq(paths[0]) > max(seqs)
