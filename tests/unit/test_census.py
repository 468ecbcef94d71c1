"""The comparison of the ledger with the seqs of an index, and when it is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.messages import Census
from producer.census import CensusTaker, Verdict, Version, compare
from worker.census import census_pages

SEQS = st.integers(1, 1000)


def indexed(path: bytes, seq: int, chunks: int) -> Version:
    return Version(path, seq, seq, chunks + 1, is_indexed=True)


def due(path: bytes, wanted: int, applied: int) -> Version:
    return Version(path, wanted, applied, None, is_indexed=True)


def gone(path: bytes, seq: int) -> Version:
    return Version(path, seq, seq, 0, is_indexed=False)


@given(st.dictionaries(SEQS, st.integers(0, 50), max_size=20))
def test_an_index_that_holds_what_the_ledger_says_has_no_findings(chunks: dict[int, int]) -> None:
    versions = [indexed(b"%d" % seq, seq, number) for seq, number in chunks.items()]
    verdict = compare(versions, {seq: number + 1 for seq, number in chunks.items()})
    assert verdict == Verdict((), (), max(chunks, default=0))


@given(st.dictionaries(SEQS, st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_points_that_are_missing_or_too_many_damage_exactly_their_document(
    points: dict[int, int], data: st.DataObject
) -> None:
    versions = [Version(b"%d" % seq, seq, seq, number, is_indexed=True) for seq, number in points.items()]
    hit = data.draw(st.sampled_from(sorted(points)))
    found = data.draw(st.integers(0, 60).filter(lambda number: number != points[hit]))
    verdict = compare(versions, {**points, hit: found})
    assert verdict.damaged == (b"%d" % hit,)
    assert verdict.unwanted == ()


def test_a_document_that_is_due_may_hold_its_old_or_its_new_version() -> None:
    assert compare([due(b"a", 9, 5)], {9: 3}).findings == 0
    assert compare([due(b"a", 9, 5)], {5: 7}).findings == 0
    assert compare([due(b"a", 9, 5)], {}).findings == 0


def test_what_no_document_wants_is_unwanted() -> None:
    verdict = compare([indexed(b"a", 5, 1), gone(b"b", 6)], {5: 2, 6: 1, 7: 4})
    assert verdict == Verdict((), (6, 7), 7)


def take(taker: CensusTaker, findings: Verdict, at_rest: bool = True) -> bool:
    return taker.conclude(findings, at_rest=at_rest)


CLEAN, DAMAGED, UNWANTED = Verdict((), (), 0), Verdict((b"a",), (), 0), Verdict((), (7, 8), 8)


def test_it_asks_until_the_index_agrees() -> None:
    taker = CensusTaker(lease_s=60, settled=False)
    assert taker.to_ask() is None
    assert take(taker, DAMAGED, at_rest=False)
    name = taker.to_ask()
    assert name and not taker.settled
    taker.asked(name)
    assert taker.to_ask() is None
    assert take(taker, CLEAN)
    assert taker.settled and taker.to_ask() is None


def test_nothing_is_swept_while_a_document_is_due_or_damaged() -> None:
    taker = CensusTaker(lease_s=60, settled=False)
    take(taker, UNWANTED, at_rest=False)
    assert taker.sweep == ()
    take(taker, Verdict((b"a",), (7,), 7))
    assert taker.sweep == ()
    take(taker, UNWANTED)
    assert taker.sweep == (7, 8)


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    taker = CensusTaker(lease_s=0, settled=False)
    taker.expect()  # the hello came, its census was lost
    name = taker.to_ask()
    assert name
    taker.asked(name)
    assert taker.to_ask() not in (None, name)


def test_it_gives_up_where_nothing_gets_better_and_begins_anew_later() -> None:
    taker = CensusTaker(lease_s=60, settled=False)
    assert [take(taker, DAMAGED) for _ in range(7)] == [True] * 5 + [False] * 2
    assert take(taker, CLEAN)
    assert take(taker, DAMAGED)


@given(st.dictionaries(SEQS, st.integers(1, 9)), st.integers(1, 4), st.randoms())
def test_pages_in_any_order_and_twice_give_the_census_back(counts: dict[int, int], size: int, random: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.census._PAGE", size)
        pages: list[Census] = list(census_pages("c", "i", counts))
    random.shuffle(pages)  # type: ignore[attr-defined]
    taker = CensusTaker(lease_s=60, settled=False)
    heard = [taker.hear(page) for page in [*pages[:-1], *pages]]
    assert heard[-1] == counts
    assert [answer for answer in heard[:-1] if answer is not None] == []


def test_a_producer_that_starts_beside_a_worker_asks_by_itself() -> None:
    # Given a worker that said hello, and sent its census, to a producer that has ended
    taker = CensusTaker(lease_s=60, settled=False, due=True)
    # Then the next one does not take the index for checked, and asks
    assert not taker.settled
    assert taker.to_ask() is not None


def test_an_index_that_did_not_become_right_is_looked_at_again_later() -> None:
    # Given an index in which a version stays that nobody wants
    taker = CensusTaker(lease_s=60, settled=False, again_s=0.0)
    while taker.conclude(Verdict((), (7,), 7), at_rest=True):
        taker.asked(taker.to_ask() or "")
    # Then it is asked about again all the same: a person may have repaired it
    name = taker.to_ask()
    assert name is not None
    taker.asked(name)
    assert taker.to_ask() is None
    # And once it is right, no more
    assert taker.conclude(Verdict((), (), 7), at_rest=True)
    assert taker.settled
    assert taker.to_ask() is None


def test_what_may_be_written_late_is_looked_for_also_after_a_census_in_between() -> None:
    taker = CensusTaker(lease_s=60, settled=True)
    taker.again_in(0.0)
    assert take(taker, CLEAN)
    name = taker.to_ask()
    assert name is not None
    taker.asked(name)
    assert take(taker, CLEAN) and taker.to_ask() is None
