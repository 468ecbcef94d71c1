"""Points on the wire: every number arrives as it was, the impossible ones included."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import QueryError
from headwater.index import Point, Sparse
from headwater.points import NoPoints, answer_discard, answer_points, pages, point_from_wire, point_to_wire

numbers = st.floats(width=32)
terms = st.dictionaries(st.integers(0, 2**32 - 1), numbers, max_size=5)


@given(st.lists(numbers, max_size=8), terms, st.text())
def test_a_point_survives_the_wire(dense: list[float], weights: dict[int, float], text: str) -> None:
    point = Point(
        "id",
        {"text": text, "seq": 2**53 - 1},
        np.array(dense, np.float32),
        Sparse(list(weights), list(weights.values())),
    )
    back = point_from_wire(json.loads(json.dumps(point_to_wire(point), allow_nan=False)))
    assert (back.id, back.payload) == (point.id, point.payload)
    assert point.dense is not None
    assert back.dense is not None
    assert back.sparse is not None
    np.testing.assert_array_equal(back.dense, point.dense)
    assert list(back.sparse.indices) == list(weights)
    np.testing.assert_array_equal(np.array(back.sparse.values), np.array(list(weights.values())))


def test_a_record_has_no_vectors_on_the_wire_either() -> None:
    wire = point_to_wire(Point("id", {"path": "a"}))
    assert wire == {"id": "id", "payload": {"path": "a"}}
    assert point_from_wire(wire) == Point("id", {"path": "a"})


def test_an_index_that_is_not_there_has_one_empty_page() -> None:
    assert list(pages(NoPoints())) == [[]]


@pytest.mark.parametrize(
    "body", [{}, {"points": {}}, {"points": ["id"]}, {"points": [["id", "5"]]}, {"points": [[1, 5]]}]
)
def test_what_names_no_points_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(QueryError):
        answer_discard(None, body)  # type: ignore[arg-type]  # refused before it is asked


def test_an_offset_that_is_no_text_is_refused() -> None:
    with pytest.raises(QueryError):
        answer_points(None, {"offset": 5})  # type: ignore[arg-type]  # refused before it is asked
