"""Which documents' texts are taken from another index: only those that it holds whole and in one version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headwater.document import document_id, text_hash
from headwater.index import Chunk, DocumentWrite, Member, Point, Sparse
from headwater.index_qdrant import document_points
from worker.stored import extraction_of


def _write(**changes: Any) -> DocumentWrite:
    chunks = [
        Chunk(number, f"text {number}", text_hash(f"text {number}"), number, number + 1, headings=("a", "b"), page=1)
        for number in range(3)
    ]
    made = DocumentWrite(
        document_id=document_id(b"a.md"),
        path="a.md",
        seq=7,
        content_hash="h",
        pipeline="p",
        kind="markdown",
        modified_at="2026-01-01T00:00:00Z",
        size=10,
        chunks=chunks,
        dense=np.eye(3, 8, dtype=np.float32),
        sparse=[Sparse([], [])] * 3,
        title="A",
        language="en",
        metadata={"tags": ["x", "y"], "n": 1},
    )
    return replace(made, **changes)


def _points(**changes: Any) -> list[Point]:
    return list(document_points(_write(**changes)))


def test_what_is_taken_is_what_was_written() -> None:
    found = extraction_of(_points(), "h", "p")
    written = _write()
    assert found is not None
    assert found.chunks == tuple(written.chunks)
    assert (found.kind, found.title, found.language) == ("markdown", "A", "en")
    assert found.metadata == written.metadata and found.partial is None


@pytest.mark.parametrize(
    "points",
    [
        [],
        _points(content_hash="another"),
        _points(pipeline="another"),
        _points(partial="only a part"),
        _points(members=[Member("b.txt", "text")]),
        _points(unread=["c.bin: binary"]),
        _points()[:-1],
        _points()[1:],
        [*_points(seq=6)[:1], *_points()[1:]],
        [replace(p, payload={**p.payload, "text": "damaged"}) if "text" in p.payload else p for p in _points()],
    ],
    ids=["nothing", "content", "cutting", "partial", "members", "unread", "no record", "a chunk short", "two versions",
         "damaged"],
)  # fmt: skip
def test_what_is_not_whole_is_read_anew(points: list[Point]) -> None:
    assert extraction_of(points, "h", "p") is None
