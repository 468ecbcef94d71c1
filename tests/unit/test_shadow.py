"""What a new index lacks of an old one, and when it must not take its place."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.index import Point
from headwater.shadow import Answers, Comparison, Held, compare_documents, overlap, refusals, sample_queries

HASHES = st.sampled_from(["x", "y"])
SIDES = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c", b"d"]),
    st.builds(Held, HASHES, st.one_of(st.none(), st.integers(0, 3)), st.booleans()),
)


def compared(old: Mapping[bytes, Held], new: Mapping[bytes, Held], *, cut_alike: bool = True) -> Comparison:
    return compare_documents(old, new, lambda path: path != b"gone", cut_alike=cut_alike)


@given(SIDES)
def test_an_index_differs_in_nothing_from_itself(side: dict[bytes, Held]) -> None:
    found = compared(side, side)
    assert (found.missing, found.differing) == ((), ())
    assert found.documents[0] == found.documents[1] and found.chunks[0] == found.chunks[1]
    assert refusals(found, None, accept_missing=False) == []


@given(SIDES, SIDES)
def test_what_is_missing_was_settled_in_both_and_is_in_the_old_one_alone(
    old: dict[bytes, Held], new: dict[bytes, Held]
) -> None:
    for path in compared(old, new).missing:
        assert old[path].chunks is not None and not old[path].due
        assert path not in new or (new[path].chunks is None and not new[path].due)
        assert path not in new or new[path].content_hash == old[path].content_hash


def test_a_document_that_is_gone_from_the_folder_is_not_missing() -> None:
    held = Held("x", 1, due=False)
    assert compared({b"gone": held, b"a": held}, {}).missing == (b"a",)


def test_numbers_of_chunks_count_where_documents_are_cut_alike() -> None:
    old, new = {b"a": Held("x", 2, due=False)}, {b"a": Held("x", 3, due=False)}
    assert compared(old, new).differing == (b"a",)
    assert compared(old, new, cut_alike=False).differing == ()
    assert "cut alike" in refusals(compared(old, new), None, accept_missing=True)[0]


@pytest.mark.parametrize(
    ("answers", "least", "refused"),
    [(None, None, False), (None, 0.5, True), (Answers(3, 0.4, 0.1), 0.5, True), (Answers(3, 0.6, 0.1), 0.5, False)],
)
def test_an_overlap_counts_where_one_is_asked_for(answers: Answers | None, least: float | None, refused: bool) -> None:
    found = Comparison((1, 1), (1, 1), cut_alike=True, answers=answers)
    assert bool(refusals(found, least, accept_missing=False)) is refused


def test_overlap_is_the_share_of_hits_that_both_have() -> None:
    assert overlap([]) is None
    assert overlap([("abcd", "abxy"), ("", "")]) == Answers(2, 0.75, 0.5)


def test_queries_are_first_sentences_of_as_many_documents() -> None:
    def point(document: str, text: str | None) -> Point:
        return Point("i", {"document_id": document, **({} if text is None else {"text": text})})

    points = [point("1", "One is here. Two."), point("1", "Other."), point("2", None), point("3", "Line\nnext")]
    assert sample_queries(points, 9) == ["One is here.", "Line"]
    assert sample_queries(points, 1) == ["One is here."]
