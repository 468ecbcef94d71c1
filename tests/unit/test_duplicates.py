"""Documents that say nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from headwater.duplicates import near_duplicates
from headwater.index import Point


class Points:
    """Stands for an index: documents with the vectors and text hashes of their chunks."""

    def __init__(self, documents: Mapping[str, Sequence[tuple[str, Sequence[float]]]]) -> None:
        self._documents = documents

    def scan(self, *, with_vectors: bool = False) -> Iterator[Point]:
        assert with_vectors
        for path, chunks in self._documents.items():
            yield Point(f"record of {path}", {"path": path, "document_id": path})
            for name, numbers in chunks:
                vector = np.array(numbers, np.float32)
                payload = {"path": path, "document_id": path, "text_hash": name}
                yield Point(f"{path} {name}", payload, vector / np.linalg.norm(vector))


def found(documents: Mapping[str, Sequence[tuple[str, Sequence[float]]]], threshold: float, limit: int = 10) -> list:  # type: ignore[type-arg]
    pairs = near_duplicates(Points(documents), threshold, limit)  # type: ignore[arg-type]  # a part of an index
    return [(pair.a, pair.b, round(pair.similarity, 3), pair.shared) for pair in pairs]


DOCUMENTS = {
    "a": [("1", (1, 0, 0)), ("2", (0, 1, 0))],
    "b, a copy": [("1", (1, 0, 0)), ("2", (0, 1, 0))],
    "c, nearly": [("1", (1, 0, 0)), ("3", (0.2, 1, 0))],
    "d, another": [("4", (0, 0, 1))],
}


def test_copies_come_first_and_then_what_is_near() -> None:
    pairs = found(DOCUMENTS, 0.9)
    assert pairs[0] == ("a", "b, a copy", 1.0, 1.0)
    assert [pair[:2] for pair in pairs[1:]] == [("a", "c, nearly"), ("b, a copy", "c, nearly")]
    assert all(0.9 <= pair[2] < 1 and pair[3] == 0.5 for pair in pairs[1:])


def test_the_threshold_and_the_limit_are_kept() -> None:
    assert [pair[:2] for pair in found(DOCUMENTS, 0.9999)] == [("a", "b, a copy")]
    assert len(found(DOCUMENTS, 0.9, limit=2)) == 2


def test_few_documents_have_no_pairs() -> None:
    assert found({}, 0.5) == []
    assert found({"a": [("1", (1, 0, 0))]}, 0.5) == []


def test_a_damaged_vector_is_passed_over() -> None:
    assert found({"a": [("1", (1, 0, 0)), ("2", (float("nan"), 0, 0))], "b": [("1", (1, 0, 0))]}, 0.99) == [
        ("a", "b", 1.0, 1.0)
    ]


def test_more_documents_than_one_block_are_all_compared() -> None:
    rows = np.random.default_rng(1).normal(size=(1500, 16))
    documents = {f"{n:04}": [("x", row)] for n, row in enumerate(rows)} | {"copy of 3": [("x", rows[3])]}
    assert found(documents, 0.9999) == [("0003", "copy of 3", 1.0, 1.0)]
