"""The document that kills the worker is found, and no other is blamed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producer.suspects import Suspects


def test_one_death_makes_nobody_a_suspect() -> None:
    suspects = Suspects()
    assert suspects.worker_died([b"a", b"b"], 3) is None
    assert not suspects and b"a" not in suspects


def test_a_document_that_comes_through_is_cleared() -> None:
    suspects = Suspects()
    suspects.worker_died([b"a", b"b"], 3)
    suspects.landed(b"a")
    suspects.worker_died([b"a", b"b"], 3)
    assert b"a" not in suspects and b"b" in suspects


def test_what_is_not_due_any_more_is_forgotten() -> None:
    suspects = Suspects()
    suspects.worker_died([b"a"], 3)
    suspects.worker_died([b"a"], 3)
    assert suspects
    suspects.drop_all_but({b"b"})
    assert not suspects


@given(st.sets(st.integers(0, 30), min_size=1), st.data(), st.integers(1, 5))
def test_the_killer_is_found_among_any_number_and_only_it(names: set[int], data: st.DataObject, attempts: int) -> None:
    # Given documents of which one kills the worker whenever it is worked on
    due = [b"%d" % name for name in sorted(names)]
    killer = data.draw(st.sampled_from(due))
    suspects, deaths = Suspects(), 0
    # When they are rung for as the publisher does
    blamed = None
    while blamed is None:
        on_their_way = due
        if suspects:
            on_their_way = [next(path for path in due if path in suspects)]
            suspects.send_alone(on_their_way[0])
        if killer in on_their_way:
            deaths += 1
            blamed = suspects.worker_died(on_their_way, attempts)
        else:
            suspects.landed(on_their_way[0])
            due = [path for path in due if path != on_their_way[0]]
    # Then it is blamed after a bounded number of deaths
    assert blamed == (killer, deaths)
    assert deaths == 2 + max(1, attempts - 1)
