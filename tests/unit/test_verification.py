"""The comparison behind ``headwater verify``: planted damage of every kind is found, and nothing on a right index."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.document import Fingerprint, document_id, point_id, record_id, text_hash
from headwater.index import Chunk, DocumentWrite, Point, Sparse
from headwater.index_qdrant import document_points
from headwater.verification import Finding, PointCheck, Reading, Verdict, compare, compare_row, judge

PATH, DIMENSION, SEQ = "a.md", 4, 1000
STAT = Fingerprint(10, 20, 30, 40)


def encode(text: str, language: str | None = None) -> Sparse:
    """One term for each distinct character: none for an empty text."""
    return Sparse([ord(letter) for letter in sorted(set(text))], [1.5 for _ in set(text)])


CHECK = PointCheck(DIMENSION, encode)


def document(texts: Sequence[str], **changes: Any) -> DocumentWrite:
    rows = np.eye(DIMENSION, dtype=np.float32)[[n % DIMENSION for n in range(len(texts))]]
    made = DocumentWrite(
        document_id=document_id(PATH.encode()),
        path=PATH,
        seq=SEQ,
        content_hash="hash",
        pipeline="p",
        kind="text",
        modified_at="2026-01-02T03:04:05.000000Z",
        size=7,
        chunks=tuple(Chunk(n, text, text_hash(text), n, n + 1, headings=("H",)) for n, text in enumerate(texts)),
        dense=rows.reshape(len(texts), DIMENSION),
        sparse=[encode(text) for text in texts],
        metadata={"tags": ("x", "y")},
    )
    return replace(made, **changes)


def reading(texts: Sequence[str]) -> Reading:
    return Reading("indexed", None, STAT, "hash", document(texts))


def stored(texts: Sequence[str], **changes: Any) -> list[Point]:
    """The points of a right index, as an engine gives them back."""
    points = list(document_points(document(texts, **changes)))
    plain = {"tags": ["x", "y"]}
    return [
        replace(p, payload={**p.payload, **({"metadata": plain} if "metadata" in p.payload else {})}) for p in points
    ]


@dataclass(frozen=True)
class Row:
    """A row of the ledger that fits."""

    state: str = "indexed"
    chunks: int = 3
    content_hash: str | None = "hash"
    reason: str | None = None
    fingerprint: Fingerprint | None = STAT


def kinds(verdict: Verdict) -> list[tuple[str, tuple[int, ...]]]:
    return [(finding.kind, finding.chunks) for finding in verdict.findings]


def changed(point: Point, **fields: Any) -> Point:
    return replace(point, payload={**point.payload, **fields})


texts = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), max_size=8)


@given(texts, st.randoms(use_true_random=False))
def test_nothing_is_found_on_a_right_index_in_any_order(words: list[str], random: Any) -> None:
    points = stored(words)
    random.shuffle(points)
    row = Row(chunks=len(words))
    assert judge(PATH, reading(words), row, points, CHECK) == Verdict(points=len(words) + 1)


Plant = Callable[[list[Point], int], list[Point]]


def on_chunk(change: Callable[[Point], Point]) -> Plant:
    return lambda points, n: [change(p) if k == n else p for k, p in enumerate(points)]


def nan(point: Point) -> Point:
    return replace(point, dense=np.full(DIMENSION, np.nan, np.float32))


def infinite_weight(point: Point) -> Point:
    assert point.sparse is not None
    return replace(point, sparse=Sparse(point.sparse.indices, [float("inf")] * len(point.sparse.indices)))


#: damage of one chunk, the kind it is named by, and whether the point must go before the document is written anew
DAMAGE: dict[str, tuple[Plant, str, bool]] = {
    "removed": (lambda points, n: points[:n] + points[n + 1 :], "missing", False),
    "other text": (on_chunk(lambda p: changed(p, text="other")), "stale", True),
    "older version": (on_chunk(lambda p: changed(p, text="old", text_hash=text_hash("old"), seq=1)), "stale", False),
    "older seq": (on_chunk(lambda p: changed(p, seq=SEQ - 1)), "stale", False),
    "newer seq": (on_chunk(lambda p: changed(p, seq=SEQ + 1)), "stale", True),
    "no seq": (on_chunk(lambda p: changed(p, seq=None)), "stale", True),
    "seq is a text": (on_chunk(lambda p: changed(p, seq="1000")), "stale", True),
    "other offsets": (on_chunk(lambda p: changed(p, start=900, end=901)), "stale", False),
    "other metadata": (on_chunk(lambda p: changed(p, headings=[], modified_at="x")), "stale", False),
    "a field too many": (on_chunk(lambda p: changed(p, extra=1)), "stale", False),
    "hash of another text": (on_chunk(lambda p: changed(p, text_hash=text_hash("other"))), "stale", True),
    "doubled": (lambda points, n: [*points, replace(points[n], id=str(uuid.uuid4()))], "duplicate", True),
    "no dense vector": (on_chunk(lambda p: replace(p, dense=None)), "unsearchable", True),
    "not a number": (on_chunk(nan), "unsearchable", True),
    "zero": (on_chunk(lambda p: replace(p, dense=np.zeros(DIMENSION, np.float32))), "unsearchable", True),
    "longer": (on_chunk(lambda p: replace(p, dense=np.ones(DIMENSION, np.float32))), "unsearchable", True),
    "dimension": (on_chunk(lambda p: replace(p, dense=np.ones(1, np.float32))), "unsearchable", True),
    "no sparse vector": (on_chunk(lambda p: replace(p, sparse=None)), "unsearchable", True),
    "sparse not finite": (on_chunk(infinite_weight), "unsearchable", True),
    "sparse of another text": (on_chunk(lambda p: replace(p, sparse=encode("xyz"))), "unsearchable", True),
}


@pytest.mark.parametrize("damage", DAMAGE)
@given(n=st.integers(0, 2), random=st.randoms(use_true_random=False))
def test_damage_of_one_chunk_is_named_with_its_number_and_nothing_else_is(damage: str, n: int, random: Any) -> None:
    plant, kind, goes = DAMAGE[damage]
    points = plant(stored(["one", "two", "three"]), n)
    damaged = points[-1] if kind == "duplicate" else points[n]
    random.shuffle(points)
    verdict = judge(PATH, reading(["one", "two", "three"]), Row(), points, CHECK)
    assert kinds(verdict) == [(kind, (n,))]
    assert [point.id for point in verdict.discards] == ([damaged.id] if goes else [])
    assert all(finding.path == PATH and finding.detail for finding in verdict.findings)


def test_chunks_beyond_the_document_are_duplicates() -> None:
    verdict = judge(PATH, reading(["one"]), Row(chunks=1), stored(["one"]) + stored(["one", "x", "y"])[1:3], CHECK)
    assert kinds(verdict) == [("duplicate", (1, 2))]
    assert {point.id for point in verdict.discards} == {point_id(document_id(b"a.md"), n) for n in (1, 2)}


def test_equal_trouble_of_many_chunks_is_one_finding() -> None:
    words = [f"text {n}" for n in range(500)]
    points = [changed(point, kind="other") for point in stored(words)]
    [finding] = compare(PATH, reading(words), points, CHECK).findings
    assert finding == Finding("stale", PATH, "differs from the document in kind", tuple(range(500)))


def test_a_document_without_any_point_is_missing_as_a_whole() -> None:
    verdict = compare(PATH, reading(["one", "two"]), [], CHECK)
    assert verdict.findings == (Finding("missing", PATH, "the document is not in the index"),)


def test_a_record_that_is_missing_double_or_has_vectors_is_named() -> None:
    *chunks, record = stored(["one"])
    assert kinds(compare(PATH, reading(["one"]), chunks, CHECK)) == [("missing", ())]
    double = replace(record, id=str(uuid.uuid4()))
    assert kinds(compare(PATH, reading(["one"]), [*chunks, record, double], CHECK)) == [("duplicate", ())]
    found = compare(PATH, reading(["one"]), [*chunks, replace(record, dense=chunks[0].dense)], CHECK)
    assert kinds(found) == [("stale", ())]
    assert [point.id for point in found.discards] == [record_id(document_id(b"a.md"))]


def test_points_of_a_refused_document_are_left_over() -> None:
    refused = Reading("refused", "empty")
    points = stored(["one"])
    verdict = judge(PATH, refused, Row("refused", 0, None, "empty"), points, CHECK)
    assert kinds(verdict) == [("orphan", (0,))]
    assert {point.id for point in verdict.discards} == {point.id for point in points}
    assert judge(PATH, refused, Row("refused", 0, None, "empty"), [], CHECK) == Verdict()


def test_a_chunk_of_stop_words_needs_no_sparse_vector() -> None:
    points = [replace(point, sparse=None) for point in stored([""])]
    assert compare(PATH, reading([""]), points, CHECK) == Verdict(points=2)


def test_a_file_that_nothing_knows_is_missing_and_no_more() -> None:
    assert kinds(judge(PATH, reading(["one"]), None, [], CHECK)) == [("missing", ())]


def test_points_that_the_ledger_does_not_know_are_compared_but_for_their_seq() -> None:
    verdict = judge(PATH, reading(["one"]), None, stored(["one"], seq=7), CHECK)
    assert verdict.findings == (Finding("stale", PATH, "the ledger does not know the document"),)
    assert verdict.discards == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("failed", reason="poison"), "has the document as failed (poison), and its file gives indexed"),
        (Row(chunks=2), "notes 2 chunks where the file gives 3"),
        (Row(content_hash="other"), "notes another content"),
        (Row(fingerprint=replace(STAT, mtime_ns=1)), "notes another size, time or inode of the file"),
        (Row(fingerprint=None), "notes another size, time or inode of the file"),
    ],
)
def test_a_row_of_the_ledger_that_does_not_fit_is_stale(row: Row, said: str) -> None:
    words = ["one", "two", "three"]
    assert compare_row(PATH, reading(words), row) == [Finding("stale", PATH, f"the ledger {said}")]
    assert kinds(judge(PATH, reading(words), row, stored(words), CHECK)) == [("stale", ())]
