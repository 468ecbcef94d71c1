"""Which deletions are held back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.guard import DeletionGuard, Identity

HERE, ELSEWHERE, OTHER_DISK = Identity(1, 2), Identity(1, 3), Identity(9, 2)


def reason(
    deleted: int, known: int, before: Identity | None = HERE, now: Identity = HERE, accepted: int = 0
) -> str | None:
    return DeletionGuard(0.5).reason(deleted, known, before, now, accepted, clock_s=0.0)


def test_a_few_hundred_of_thousands_may_go() -> None:
    assert reason(400, 5000) is None


def test_most_of_the_folder_at_once_is_held() -> None:
    assert reason(2501, 5000) == "2501 of 5000 documents vanished at once"


@given(st.integers(0, 99))
def test_a_small_folder_may_change_as_a_whole(deleted: int) -> None:
    assert reason(deleted, deleted) is None


@pytest.mark.parametrize(
    ("now", "says"), [(ELSEWHERE, "the folder was replaced"), (OTHER_DISK, "the folder is on another device")]
)
def test_a_folder_that_is_another_one_and_lacks_documents_is_held(now: Identity, says: str) -> None:
    assert reason(3, 3, now=now) == f"{says}, and 3 of 3 documents are not in it"


def test_a_folder_that_was_replaced_by_a_copy_with_few_deletions_is_taken() -> None:
    assert reason(100, 1000, now=ELSEWHERE) is None
    assert reason(0, 1000, now=OTHER_DISK) is None
    assert reason(10, 10, before=None) is None  # the first look at a folder


def test_what_a_person_accepted_goes_on_and_no_more() -> None:
    assert reason(3000, 5000, accepted=3000) is None
    assert reason(3001, 5000, accepted=3000) is not None


def test_deletions_one_after_the_other_count_together_for_a_minute() -> None:
    guard = DeletionGuard(0.5)
    guard.passed(400, clock_s=100.0)
    assert guard.reason(200, 600, HERE, HERE, 0, clock_s=130.0) == "600 of 1000 documents vanished at once"
    assert guard.reason(200, 600, HERE, HERE, 0, clock_s=161.0) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_share_of_one_never_holds_for_the_share(deleted: int, left: int) -> None:
    assert DeletionGuard(1.0).reason(deleted, deleted + left, HERE, HERE, 0, 0.0) is None
