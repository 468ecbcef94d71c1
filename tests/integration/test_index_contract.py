"""The contract of VectorIndex, for each of its backends: the same calls give the same answers everywhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pytest
from versions import DIMENSION, MODEL, axis, texts_of, vector, version

from headwater import index_edge
from headwater.document import document_id, point_id, record_id, text_hash
from headwater.errors import IndexMismatch, IndexUnavailable, QueryError
from headwater.filters import glob_condition
from headwater.index import (
    Chunk,
    Condition,
    DocumentWrite,
    Fusion,
    IndexCounts,
    Member,
    Point,
    SearchQuery,
    SeenPoint,
    Sparse,
    VectorIndex,
)
from headwater.index_edge import EdgeIndex
from headwater.index_process import ProcessIndex
from headwater.index_qdrant import QdrantIndex


class Backend(Protocol):
    name: str

    def adapter(self) -> VectorIndex: ...


def plant(index: VectorIndex, points: Sequence[Point], seq: int) -> None:
    """Write points as they are, past all checks."""
    fences = {str(point.payload["document_id"]): seq for point in points}
    if isinstance(index, ProcessIndex):
        index._ask("_upsert", points, fences)
    else:
        assert isinstance(index, QdrantIndex)
        index._upsert(points, fences)


@pytest.fixture
def index(backend: Backend) -> VectorIndex:
    made = backend.adapter()
    made.ensure_schema(MODEL, DIMENSION)
    return made


# -- values -----------------------------------------------------------------------------------------------


def paths_found(index: VectorIndex, *conditions: Condition) -> set[str]:
    query = SearchQuery("dense", 50, vector("any"), conditions=conditions)
    return {hit.payload["path"] for hit in index.search(query)}


# -- files within documents -------------------------------------------------------------------------------


def archive(seq: int, **changes: object) -> DocumentWrite:
    """A mail with a text of its own and two attachments."""
    made = version("in/a.eml", seq, ["mail", "first", "second"], kind="eml", title="Hello", **changes)
    chunks = (made.chunks[0], replace(made.chunks[1], member=0), replace(made.chunks[2], member=1))
    first = Member("b.pdf", "pdf", "Report", "de", {"created": "2020-05-01", "pages": 3, "author": "Ada"})
    return replace(made, chunks=chunks, members=(first, Member("c.zip!/d.txt", "text")), unread=("e.png: no text",))


def test_a_file_within_a_document_has_path_and_fields_of_its_own(index: VectorIndex) -> None:
    index.apply(archive(1))
    found = {hit.payload["chunk"]: hit.payload for hit in index.search(SearchQuery("dense", 9, vector("first")))}
    assert [found[number]["path"] for number in range(3)] == [
        "in/a.eml",
        "in/a.eml!/b.pdf",
        "in/a.eml!/c.zip!/d.txt",
    ]
    assert [found[number].get("member") for number in range(3)] == [None, "b.pdf", "c.zip!/d.txt"]
    assert [found[number]["kind"] for number in range(3)] == ["eml", "pdf", "text"]
    assert [found[number]["title"] for number in range(3)] == ["Hello", "Report", None]
    assert [found[number]["extension"] for number in range(3)] == ["eml", "pdf", "txt"]
    assert {payload["document_id"] for payload in found.values()} == {document_id(b"in/a.eml")}
    record = index.record(document_id(b"in/a.eml"))
    assert record is not None and record["path"] == "in/a.eml"
    assert (record["members"], record["unread"]) == (["b.pdf", "c.zip!/d.txt"], ["e.png: no text"])


def test_a_file_within_a_document_is_found_by_its_own_fields(index: VectorIndex) -> None:
    index.apply_all([archive(1), version("other", 2, ["another"])])
    inner = {"in/a.eml!/b.pdf"}
    assert paths_found(index, Condition("created", gte="2020-01-01T00:00:00Z", lt="2021-01-01T00:00:00Z")) == inner
    assert paths_found(index, Condition("pages", gte=3, lte=3)) == inner
    assert paths_found(index, Condition("fields", any_of=("author=Ada",))) == inner
    assert paths_found(index, Condition("language", any_of=("de",))) == inner
    assert paths_found(index, glob_condition(index, "in/a.eml!/**")) == {*inner, "in/a.eml!/c.zip!/d.txt"}
    assert index.path_vectors("in/a.eml!/b.pdf").shape == (1, DIMENSION)
    assert np.allclose(index.path_vectors("in/a.eml!/b.pdf")[0], vector("first"), atol=1e-6)
    assert index.path_vectors("in/a.eml!/none").shape == (0, DIMENSION)


def test_a_document_goes_with_all_that_is_within_it(index: VectorIndex) -> None:
    index.apply(archive(1))
    index.apply(replace(version("in/a.eml", 2, ["mail"], kind="eml")))
    assert paths_found(index) == {"in/a.eml"}
    index.apply(archive(3))
    index.delete(document_id(b"in/a.eml"), 4)
    assert index.count() == IndexCounts(0, 0)


# -- schema -----------------------------------------------------------------------------------------------


def test_making_the_schema_twice_keeps_the_index_and_its_id(backend: Backend) -> None:
    first = backend.adapter().ensure_schema(MODEL, DIMENSION)
    index = backend.adapter()
    index.ensure_schema(MODEL, DIMENSION)
    index.apply(version("a", 1, ["one"]))
    again = index.ensure_schema(MODEL, DIMENSION)
    assert again == first
    assert (again.model, again.dimension) == (MODEL, DIMENSION)
    assert index.count() == IndexCounts(1, 1)
    assert backend.adapter().open_existing() == first


@pytest.mark.parametrize(("model", "dimension"), [("model@2", DIMENSION), (MODEL, DIMENSION + 1)])
def test_another_model_or_dimension_is_refused_and_the_index_is_left_alone(
    backend: Backend, model: str, dimension: int
) -> None:
    first = backend.adapter().ensure_schema(MODEL, DIMENSION)
    with pytest.raises(IndexMismatch, match=r"was made with the model model@1 \(8 dimensions"):
        backend.adapter().ensure_schema(model, dimension)
    assert backend.adapter().open_existing() == first


def test_opening_an_index_that_is_not_there_is_an_error(backend: Backend) -> None:
    with pytest.raises(IndexUnavailable, match=r"^there is no .*: (run|start) 'headwater"):
        backend.adapter().open_existing()


def test_an_existing_index_is_opened_with_all_that_it_holds(backend: Backend) -> None:
    first = backend.adapter()
    first.ensure_schema(MODEL, DIMENSION)
    first.apply(version("a", 1, ["one", "two"]))
    first.flush()
    index = backend.adapter()
    index.open_existing()
    assert texts_of(index, "a") == {0: "one", 1: "two"}
    assert index.document_vectors(document_id(b"nothing")).shape == (0, DIMENSION)


def test_closing_twice_is_no_error(backend: Backend) -> None:
    index = backend.adapter()
    index.ensure_schema(MODEL, DIMENSION)
    index.close()
    index.close()


# -- what is held -----------------------------------------------------------------------------------------


def test_an_unknown_document_has_no_state(index: VectorIndex) -> None:
    assert index.document_state(document_id(b"a")) is None


def test_a_staged_document_has_chunks_but_no_record(index: VectorIndex) -> None:
    index.stage(version("a", 7, ["one", "two"], total_chunks=3))
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.highest_seq, state.content_hash, state.chunks) == (0, 7, None, 0)
    assert state.newest_hashes == {"hash of 7"}
    assert index.count() == IndexCounts(0, 2)


def test_an_applied_document_is_whole(index: VectorIndex) -> None:
    index.apply(version("a", 7, ["one", "two"], partial="only the start"))
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.highest_seq, state.content_hash) == (7, 7, "hash of 7")
    assert (state.chunks, state.partial, state.newest_hashes) == (2, "only the start", {"hash of 7"})


def test_a_staged_newer_version_shows_beside_the_record_of_the_older_one(index: VectorIndex) -> None:
    index.apply(version("a", 7, ["one", "two", "three"]))
    index.stage(version("a", 8, ["uno"], total_chunks=3))
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.highest_seq, state.content_hash) == (7, 8, "hash of 7")
    assert state.newest_hashes == {"hash of 8"}


def test_the_last_chunks_complete_a_staged_version(index: VectorIndex) -> None:
    whole = version("a", 8, ["one", "two", "three"], total_chunks=3)
    first = replace(whole, chunks=whole.chunks[:2], dense=whole.dense[:2], sparse=whole.sparse[:2])
    last = replace(whole, chunks=whole.chunks[2:], dense=whole.dense[2:], sparse=whole.sparse[2:])
    index.stage(first)
    index.apply(last)
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.chunks) == (8, 3)
    assert texts_of(index, "a") == {0: "one", 1: "two", 2: "three"}


def test_a_document_without_chunks_has_a_record_alone(index: VectorIndex) -> None:
    index.apply(version("a", 3))
    assert index.count() == IndexCounts(1, 0)
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.chunks) == (3, 0)


def test_documents_that_are_applied_together_are_fenced_one_by_one(index: VectorIndex) -> None:
    # Given an older version of one document, a newer one of another, and the same one of a third
    index.apply(version("old", 1, ["was one", "was two", "was three"]))
    index.apply(version("new", 9, ["newer"]))
    index.apply(version("same", 5, ["as it is"]))
    # When versions of all three and of an unknown one are applied together
    index.apply_all(
        [
            version("old", 5, ["is one"]),
            version("new", 5, ["older", "older too"]),
            version("same", 5, ["as it is"]),
            version("unknown", 5, [f"line {number}" for number in range(600)]),
        ]
    )
    # Then each stands as if it had come alone
    assert texts_of(index, "old") == {0: "is one"}
    assert texts_of(index, "new") == {0: "newer"}
    assert texts_of(index, "same") == {0: "as it is"}
    assert len(texts_of(index, "unknown")) == 600
    assert index.census() == {9: 2, 5: 2 + 2 + 601}
    states = index.document_states([document_id(name.encode()) for name in ("old", "new", "absent")])
    assert {key: (state.seq, state.chunks) for key, state in states.items()} == {
        document_id(b"old"): (5, 1),
        document_id(b"new"): (9, 1),
    }


def test_one_unusable_vector_refuses_all_that_would_be_applied_with_it(index: VectorIndex) -> None:
    bad = replace(version("bad", 1, ["one"]), dense=np.zeros((1, DIMENSION), np.float32))
    with pytest.raises(ValueError, match="unit length"):
        index.apply_all([version("good", 1, ["one"]), bad])
    assert index.count() == IndexCounts(0, 0)


def test_counts_and_paths_follow_the_writes(index: VectorIndex) -> None:
    assert index.values("path") == []
    index.apply(version("b/two.md", 1, ["one", "two"]))
    assert index.values("path") == ["b/two.md"]
    index.apply(version("a.md", 2, ["three"]))
    assert index.values("path") == ["a.md", "b/two.md"]
    assert index.count() == IndexCounts(2, 3)
    index.delete(document_id(b"b/two.md"), 9)
    assert index.values("path") == ["a.md"]
    assert index.count() == IndexCounts(1, 1)


def test_the_vectors_of_a_document_come_in_the_order_of_its_chunks(index: VectorIndex) -> None:
    texts = [f"text {n}" for n in range(300)]
    index.apply(version("a", 1, texts))
    index.apply(version("b", 2, ["other"]))
    found = index.document_vectors(document_id(b"a"))
    assert found.shape == (300, DIMENSION)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack([vector(text) for text in texts]), atol=1e-6)


def test_the_record_of_a_document_is_found_without_its_texts(index: VectorIndex) -> None:
    index.apply(version("a", 1, ["one", "two"], title="A", partial="1 part could not be read"))
    index.apply(version("empty", 2))
    record = index.record(document_id(b"a"))
    assert record is not None
    assert (record["path"], record["seq"], record["chunks"], record["title"]) == ("a", 1, 2, "A")
    assert (record["pipeline"], record["partial"], record["content_hash"]) == (
        "p",
        "1 part could not be read",
        "hash of 1",
    )
    assert "text" not in record
    empty = index.record(document_id(b"empty"))
    assert empty is not None and empty["chunks"] == 0
    assert index.record(document_id(b"nobody")) is None


def test_a_scan_gives_every_point_once_with_or_without_its_vectors(index: VectorIndex) -> None:
    texts = [f"text {n}" for n in range(600)]
    index.apply(version("a", 1, texts))
    document = document_id(b"a")
    expected = sorted([record_id(document), *(point_id(document, n) for n in range(600))])
    bare = list(index.scan())
    full = list(index.scan(with_vectors=True))
    assert sorted(point.id for point in bare) == sorted(point.id for point in full) == expected
    assert all(point.dense is None and point.sparse is None for point in bare)
    for point in full:
        if point.id == record_id(document):
            assert point.dense is None
            continue
        assert point.dense is not None
        assert point.sparse is not None
        np.testing.assert_allclose(point.dense, vector(point.payload["text"]), atol=1e-6)
        assert (list(point.sparse.indices), list(point.sparse.values)) == ([11], [1.0])


def test_the_payload_of_a_chunk_has_exactly_the_fields_of_the_design(index: VectorIndex) -> None:
    chunk = Chunk(0, "one", text_hash("one"), 5, 8, start_line=2, end_line=3, page=4, headings=("A", "B"))
    index.apply(version("dir/a.md", 9, ["one"], chunks=(chunk,), title="Title", kind="markdown"))
    payload = next(point.payload for point in index.scan() if "text" in point.payload)
    assert dict(payload) == {
        "text": "one",
        "path": "dir/a.md",
        "source": "",
        "document_id": document_id(b"dir/a.md"),
        "chunk": 0,
        "text_hash": text_hash("one"),
        "content_hash": "hash of 9",
        "seq": 9,
        "title": "Title",
        "headings": ["A", "B"],
        "start": 5,
        "end": 8,
        "start_line": 2,
        "end_line": 3,
        "page": 4,
        "modified_at": "2026-01-02T03:04:05.000000Z",
        "kind": "markdown",
        "extension": "md",
        "directories": ["dir"],
        "language": None,
        "fields": [],
    }


# -- the embedding cache ----------------------------------------------------------------------------------


def test_vectors_are_found_by_the_hash_of_their_text_and_missing_ones_are_left_out(
    index: VectorIndex,
) -> None:
    index.apply(version("a", 1, ["one", "two"]))
    found = index.vectors([text_hash("two"), text_hash("never written"), text_hash("two")])
    assert list(found) == [text_hash("two")]
    np.testing.assert_allclose(found[text_hash("two")], vector("two"), atol=1e-6)
    assert index.vectors([]) == {}


def test_more_hashes_than_one_call_takes_are_all_answered(index: VectorIndex) -> None:
    texts = [f"text {n}" for n in range(700)]
    index.apply(version("a", 1, texts))
    found = index.vectors([text_hash(text) for text in texts] + [text_hash("missing")])
    assert len(found) == 700
    for text in texts:
        np.testing.assert_allclose(found[text_hash(text)], vector(text), atol=1e-6)


def test_a_rare_text_is_found_beside_one_that_stands_in_600_documents(index: VectorIndex) -> None:
    for n in range(600):
        index.stage(version(f"{n}", 1, ["licence"]))
    index.apply(version("rare", 1, ["rare", "licence"]))
    found = index.vectors([text_hash("licence"), text_hash("rare")])
    np.testing.assert_allclose(found[text_hash("rare")], vector("rare"), atol=1e-6)
    np.testing.assert_allclose(found[text_hash("licence")], vector("licence"), atol=1e-6)


def test_a_damaged_vector_is_not_used_again(index: VectorIndex) -> None:
    """Written past all checks, as a broken disk might leave it: more than one page of them, then a good one."""
    index.apply(version("a", 1, ["one"]))
    [good] = [point for point in index.scan(with_vectors=True) if "text" in point.payload]
    bad = [replace(good, id=point_id("bad", n), dense=np.zeros(DIMENSION, np.float32)) for n in range(300)]
    plant(index, bad, 1)
    np.testing.assert_allclose(index.vectors([text_hash("one")])[text_hash("one")], vector("one"), atol=1e-6)
    index.discard([SeenPoint(good.id, 1)])
    assert index.vectors([text_hash("one")]) == {}


# -- fencing ----------------------------------------------------------------------------------------------


def test_a_newer_version_replaces_the_older_one_and_its_tail(index: VectorIndex) -> None:
    index.apply(version("a", 5, ["one", "two", "three"]))
    index.apply(version("b", 5, ["other"]))
    index.apply(version("a", 6, ["uno", "two"]))
    assert texts_of(index, "a") == {0: "uno", 1: "two"}
    assert texts_of(index, "b") == {0: "other"}
    assert index.vectors([text_hash("one"), text_hash("three")]) == {}


def test_an_older_version_of_equal_length_is_ignored(index: VectorIndex) -> None:
    index.apply(version("a", 6, ["new one", "new two"]))
    index.apply(version("a", 5, ["old one", "old two"]))
    state = index.document_state(document_id(b"a"))
    assert state is not None
    assert (state.seq, state.highest_seq, state.content_hash) == (6, 6, "hash of 6")
    assert texts_of(index, "a") == {0: "new one", 1: "new two"}


def test_an_older_version_with_more_chunks_leaves_none_of_them(index: VectorIndex) -> None:
    """A slow worker's late write must not add a tail that no version has."""
    index.apply(version("a", 6, ["new"]))
    index.apply(version("a", 5, ["old one", "old two", "old three"]))
    assert texts_of(index, "a") == {0: "new"}
    assert index.count() == IndexCounts(1, 1)


def test_a_version_that_is_written_again_goes_over_what_an_interrupted_write_left(index: VectorIndex) -> None:
    index.apply(version("a", 6, ["half", "written"]))
    index.apply(version("a", 6, ["whole", "now"]))
    assert texts_of(index, "a") == {0: "whole", 1: "now"}
    np.testing.assert_allclose(index.document_vectors(document_id(b"a"))[0], vector("whole"), atol=1e-6)
    assert index.count() == IndexCounts(1, 2)


def test_seqs_of_today_are_told_apart_to_the_microsecond(index: VectorIndex) -> None:
    now = time.time_ns() // 1000
    for seq in range(now - 3, now + 4):
        index.apply(version("a", seq, [f"at {seq}"]))
        index.apply(version("a", seq - 1, ["too late"]))
        assert texts_of(index, "a") == {0: f"at {seq}"}
        index.delete(document_id(b"a"), seq)
        assert texts_of(index, "a") == {0: f"at {seq}"}
        state = index.document_state(document_id(b"a"))
        assert state is not None
        assert state.highest_seq == seq
    index.delete(document_id(b"a"), now + 4)
    assert index.document_state(document_id(b"a")) is None


def test_a_delete_takes_lower_seqs_of_its_document_only(index: VectorIndex) -> None:
    index.apply(version("a", 5, ["one", "two"]))
    index.apply(version("b", 5, ["other"]))
    index.delete(document_id(b"a"), 5)
    assert index.count() == IndexCounts(2, 3)
    index.delete(document_id(b"a"), 6)
    index.delete(document_id(b"a"), 6)
    assert index.count() == IndexCounts(1, 1)
    assert index.document_state(document_id(b"a")) is None
    assert texts_of(index, "b") == {0: "other"}


# -- search -----------------------------------------------------------------------------------------------


@pytest.fixture
def ranked(index: VectorIndex) -> VectorIndex:
    """Nearest to axis(1): A, C, B. Best for term 11: C, B. So the fused order is C, B, A."""
    for path, dense, sparse in [
        ("A", axis(1.0), Sparse([12], [9.0])),
        ("B", axis(0.3, 1.0), Sparse([11], [1.0])),
        ("C", axis(1.0, 0.75), Sparse([11], [3.0])),
    ]:
        index.apply(version(path, 1, ["text of " + path], dense=dense[None, :], sparse=[sparse]))
    return index


@pytest.mark.parametrize(("mode", "order"), [("dense", "ACB"), ("sparse", "CB"), ("hybrid", "CBA")])
def test_each_mode_finds_the_best_first(ranked: VectorIndex, mode: Any, order: str) -> None:
    hits = ranked.search(SearchQuery(mode, 10, axis(1.0), Sparse([11], [1.0])))
    assert "".join(hit.payload["path"] for hit in hits) == order
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].payload["text"] == f"text of {order[0]}"
    best = ranked.search(SearchQuery(mode, 1, axis(1.0), Sparse([11], [1.0])))
    assert [hit.payload["path"] for hit in best] == [order[0]]


def test_dense_scores_are_cosines(ranked: VectorIndex) -> None:
    hits = ranked.search(SearchQuery("dense", 10, axis(1.0)))
    scores = {hit.payload["path"]: hit.score for hit in hits}
    assert scores == pytest.approx({"A": 1.0, "C": 0.8, "B": 0.3 / np.hypot(0.3, 1.0)}, abs=1e-5)


def test_a_score_threshold_keeps_the_better_hits(ranked: VectorIndex) -> None:
    dense = ranked.search(SearchQuery("dense", 10, axis(1.0), score_threshold=0.5))
    assert [hit.payload["path"] for hit in dense] == ["A", "C"]
    whole = ranked.search(SearchQuery("hybrid", 10, axis(1.0), Sparse([11], [1.0])))
    between = (whole[1].score + whole[2].score) / 2
    hybrid = ranked.search(SearchQuery("hybrid", 10, axis(1.0), Sparse([11], [1.0]), score_threshold=between))
    assert [hit.payload["path"] for hit in hybrid] == ["C", "B"]


def test_a_search_in_each_mode_obeys_its_conditions(ranked: VectorIndex) -> None:
    only = (Condition("path", any_of=("A", "B")),)
    found = {
        mode: [hit.payload["path"] for hit in ranked.search(SearchQuery(mode, 9, axis(1.0), Sparse([11], [1.0]), only))]
        for mode in ("dense", "sparse", "hybrid")
    }
    assert found == {"dense": ["A", "B"], "sparse": ["B"], "hybrid": ["B", "A"]}


def test_a_search_needs_the_vectors_of_its_mode(index: VectorIndex) -> None:
    with pytest.raises(QueryError, match="a hybrid search needs its vectors"):
        index.search(SearchQuery("hybrid", 1, axis(1.0)))


def test_a_record_is_never_found(index: VectorIndex) -> None:
    for n in range(20):
        index.apply(version(f"empty {n}", 1))
    index.apply(version("a", 1, ["one"]))
    for mode in ("dense", "sparse", "hybrid"):
        hits = index.search(SearchQuery(mode, 50, vector("one"), Sparse([11], [1.0])))  # type: ignore[arg-type]
        assert [hit.payload.get("text") for hit in hits] == ["one"]


def test_an_offset_gives_the_next_page_of_the_same_answer(index: VectorIndex) -> None:
    for n in range(9):
        index.apply(replace(version(f"d{n}", n + 1, [f"text {n}"]), sparse=[Sparse([11], [n % 3 + 1.0])]))
    for mode in ("dense", "hybrid"):
        query = SearchQuery(mode, 9, vector("text 3"), Sparse([11], [1.0]))  # type: ignore[arg-type]
        whole = [hit.payload["path"] for hit in index.search(query)]
        pages = [index.search(replace(query, limit=4, offset=offset)) for offset in (0, 4, 8, 12)]
        assert [hit.payload["path"] for page in pages for hit in page] == whole
        assert [len(page) for page in pages] == [4, 4, 1, 0]


def test_vectors_come_with_hits_when_they_are_asked_for(index: VectorIndex) -> None:
    index.apply(version("a", 1, ["one"]))
    for mode in ("dense", "sparse", "hybrid"):
        query = SearchQuery(mode, 1, vector("one"), Sparse([11], [1.0]), with_vectors=True)  # type: ignore[arg-type]
        [hit] = index.search(query)
        assert hit.dense is not None, mode
        np.testing.assert_allclose(hit.dense, vector("one"), atol=1e-6)
        [plain] = index.search(replace(query, with_vectors=False))
        assert plain.dense is None


def test_the_weights_of_a_hybrid_search_decide_which_half_leads(index: VectorIndex) -> None:
    # Given one document that its meaning finds first, and one that its words do
    words = {"meaning": Sparse([11], [1.0]), "words": Sparse([11], [2.0])}
    for seq, (name, sparse) in enumerate(words.items(), start=1):
        index.apply(replace(version(name, seq, [name]), sparse=[sparse]))
    query = SearchQuery("hybrid", 1, vector("meaning"), Sparse([11], [1.0]))
    # Then the heavier half wins
    dense = index.search(replace(query, fusion=Fusion("rrf", k=2, dense_weight=9.0, sparse_weight=0.1)))
    sparse_first = index.search(replace(query, fusion=Fusion("rrf", k=2, dense_weight=0.1, sparse_weight=9.0)))
    assert [dense[0].payload["path"], sparse_first[0].payload["path"]] == ["meaning", "words"]
    assert len(index.search(replace(query, limit=5, fusion=Fusion("dbsf")))) == 2


def test_the_values_of_a_field_are_those_that_points_have(library: VectorIndex) -> None:
    assert library.values("language") == ["de", "en"]
    assert set(library.values("language", exact=False)) >= {"de", "en"}
    assert library.values("fields") == ["draft=true", "tags=x", "tags=y"]


def test_the_newest_seq_is_the_highest(index: VectorIndex) -> None:
    assert index.newest_seq() is None
    index.apply(version("a", 7, ["one"]))
    index.apply(version("b", 3, ["two"]))
    assert index.newest_seq() == 7
    index.delete(document_id(b"a"), 8)
    assert index.newest_seq() == 3


def test_the_chunks_of_a_document_come_by_their_numbers(index: VectorIndex) -> None:
    index.apply(version("a", 1, [f"text {n}" for n in range(300)]))
    index.apply(version("b", 2, ["other"]))
    found = index.document_chunks(document_id(b"a"), 8, 12)
    assert [(payload["chunk"], payload["text"]) for payload in found] == [(n, f"text {n}") for n in range(8, 13)]
    assert len(index.document_chunks(document_id(b"a"), 0, 999)) == 300
    assert index.document_chunks(document_id(b"a"), 300, 301) == []


@pytest.fixture
def library(index: VectorIndex) -> VectorIndex:
    """Four documents that differ in each field that filters may name."""
    for path, kind, page, modified_at, title in [
        ("a.md", "markdown", None, "2026-01-01T00:00:00Z", "Alpha"),
        ("docs/b.md", "markdown", None, "2026-02-01T12:00:00Z", None),
        ("docs/c.pdf", "pdf", 1, "2026-02-01T12:00:01Z", "Gamma"),
        ("docs/deep/d.pdf", "pdf", 9, "2026-03-01T00:00:00Z", None),
    ]:
        chunk = Chunk(0, path, text_hash(path), 0, 1, page=page, headings=(f"{kind} heading", "all"))
        fields = {"a.md": {"tags": ["x", "y"], "Draft": True}, "docs/c.pdf": {"tags": "x"}}.get(path, {})
        write = version(path, 1, [path], chunks=(chunk,), kind=kind, modified_at=modified_at, title=title)
        write = replace(write, metadata=fields, language="de" if path == "docs/c.pdf" else "en")
        index.apply(write)
    return index


FILTERS = [
    ([Condition("path", any_of=("a.md", "docs/c.pdf", "none"))], {"a.md", "docs/c.pdf"}),
    ([Condition("path", any_of=())], set()),
    ([Condition("kind", any_of=("pdf",))], {"docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("kind", any_of=("pdf",), negate=True)], {"a.md", "docs/b.md"}),
    ([Condition("title", any_of=("Alpha",))], {"a.md"}),
    ([Condition("headings", any_of=("pdf heading",))], {"docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("page", any_of=(9,))], {"docs/deep/d.pdf"}),
    ([Condition("page", gte=1, lt=9)], {"docs/c.pdf"}),
    ([Condition("page", gt=1, lte=9)], {"docs/deep/d.pdf"}),
    ([Condition("modified_at", gte="2026-02-01T12:00:01Z")], {"docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("modified_at", gt="2026-01-01T00:00:00Z", lt="2026-02-01T12:00:01Z")], {"docs/b.md"}),
    ([Condition("modified_at", lte="2026-02-01T13:00:00+01:00")], {"a.md", "docs/b.md"}),
    ([Condition("extension", any_of=("pdf",))], {"docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("directories", any_of=("docs",))], {"docs/b.md", "docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("directories", any_of=("docs/deep",))], {"docs/deep/d.pdf"}),
    ([Condition("language", any_of=("de",))], {"docs/c.pdf"}),
    ([Condition("fields", any_of=("tags=x",))], {"a.md", "docs/c.pdf"}),
    ([Condition("fields", any_of=("tags=y", "draft=true"))], {"a.md"}),
    ([Condition("path", any_of=(), negate=True)], {"a.md", "docs/b.md", "docs/c.pdf", "docs/deep/d.pdf"}),
    ([Condition("kind", any_of=("pdf",)), Condition("page", gte=2)], {"docs/deep/d.pdf"}),
    ([Condition("kind", any_of=("pdf",)), Condition("page", gte=2, negate=True)], {"docs/c.pdf"}),
]


def test_filters_keep_what_they_name(library: VectorIndex) -> None:
    wrong = [
        (conditions, found)
        for conditions, expected in FILTERS
        if (found := paths_found(library, *conditions)) != expected
    ]
    assert wrong == []


def test_a_filter_on_an_unknown_field_is_an_error_that_names_the_known_ones(library: VectorIndex) -> None:
    with pytest.raises(QueryError, match=r"there is no filter 'colour': filters are chunk, .*title"):
        paths_found(library, Condition("colour", any_of=("red",)))


GLOBS = [
    ("*.md", {"a.md", "docs/b.md"}),
    ("/*.md", {"a.md"}),
    ("docs/", {"docs/b.md", "docs/c.pdf", "docs/deep/d.pdf"}),
    ("docs/*.pdf", {"docs/c.pdf"}),
    ("docs/**/*.pdf", {"docs/c.pdf", "docs/deep/d.pdf"}),
    ("**", {"a.md", "docs/b.md", "docs/c.pdf", "docs/deep/d.pdf"}),
    (" a.md ", {"a.md"}),
    ("*.docx", set()),
]


def test_a_path_glob_becomes_the_paths_that_it_matches(library: VectorIndex) -> None:
    for glob, expected in GLOBS:
        condition = glob_condition(library, glob)
        assert paths_found(library, condition) == expected, glob


def test_a_path_glob_that_is_not_valid_is_an_error(library: VectorIndex) -> None:
    with pytest.raises(QueryError, match=r"^the path glob '!' is not valid"):
        glob_condition(library, "!")


# -- what is refused --------------------------------------------------------------------------------------

BAD_VECTORS: list[tuple[str, Callable[[DocumentWrite], DocumentWrite]]] = [
    ("not a number", lambda d: replace(d, dense=np.vstack([d.dense[:1], np.full((1, DIMENSION), np.nan)]))),
    ("infinite", lambda d: replace(d, dense=np.vstack([d.dense[:1], np.full((1, DIMENSION), np.inf)]))),
    ("too long", lambda d: replace(d, dense=d.dense * 2)),
    ("zero", lambda d: replace(d, dense=np.vstack([d.dense[:1], np.zeros((1, DIMENSION))]))),
    ("of another dimension", lambda d: replace(d, dense=np.eye(2, DIMENSION + 1, dtype=np.float32))),
    ("too few", lambda d: replace(d, dense=d.dense[:1])),
    ("sparse and too few", lambda d: replace(d, sparse=d.sparse[:1])),
    ("sparse and not a number", lambda d: replace(d, sparse=[d.sparse[0], Sparse([1], [float("nan")])])),
    ("sparse and infinite", lambda d: replace(d, sparse=[d.sparse[0], Sparse([1], [float("inf")])])),
]


def test_bad_vectors_are_refused_before_anything_is_written(index: VectorIndex) -> None:
    index.apply(version("a", 1, ["old"]))
    for name, spoil in BAD_VECTORS:
        for write in (index.stage, index.apply):
            try:
                write(spoil(version("a", 2, ["one", "two"])))
            except ValueError as error:
                assert "vector" in str(error), name
            else:
                pytest.fail(f"a vector that is {name} was taken")
            assert texts_of(index, "a") == {0: "old"}, name
    assert index.count() == IndexCounts(1, 1)


# -- the embedded engine alone ----------------------------------------------------------------------------

#: where this module and those that it imports are found
_TESTS = [str(Path(__file__).parents[1] / "support")]
_WRITER = """
import os, sys
from pathlib import Path
sys.path[:0] = {tests!r}
import versions
from headwater.index_edge import EdgeIndex
index = EdgeIndex(Path({where!r}) / "index", Path({where!r}) / "index.json")
index.ensure_schema(versions.MODEL, versions.DIMENSION)
index.apply(versions.version("a", 1, ["one", "two"]))
index.flush()
print("ready", flush=True)
{then}
"""


def other_process(where: Path, then: str) -> subprocess.Popen[str]:
    """A process that has written and flushed a document, and then does something else."""
    script = _WRITER.format(tests=_TESTS, where=str(where), then=then)
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_flushed_outlives_a_process_that_ends_without_closing(
    edge_index: EdgeIndex, index_directory: Path
) -> None:
    with other_process(index_directory, "os._exit(9)") as process:
        assert process.wait(timeout=20) == 9
    edge_index.ensure_schema(MODEL, DIMENSION)
    assert texts_of(edge_index, "a") == {0: "one", 1: "two"}
    np.testing.assert_allclose(edge_index.document_vectors(document_id(b"a"))[1], vector("two"), atol=1e-6)


_BUSY = """
import random, sys, threading, time
from pathlib import Path
sys.path[:0] = {tests!r}
import versions
from headwater.index_edge import EdgeIndex
index = EdgeIndex(Path({where!r}) / "index", Path({where!r}) / "index.json")
index.ensure_schema(versions.MODEL, versions.DIMENSION)
def write():
    chance = random.Random({seq})
    for seq in range({seq}, {seq} + 1_000_000):
        texts = [f"text {{number}} of {{seq}}" for number in range(chance.randrange(1, 5))]
        index.apply(versions.version(f"d{{chance.randrange(40)}}", seq, texts))
threading.Thread(target=write, daemon=True).start()
print("busy", flush=True)
while True:
    index.flush()
    time.sleep(0.002)
"""


def test_processes_killed_between_writes_and_flushes_leave_no_point_that_is_half_of_a_version(
    index_directory: Path, tmp_path: Path
) -> None:
    """The engine flushes field indexes, payloads and versions one after the other, and replays its log over them."""
    for round_ in range(1, 9):
        # When one process after the other is killed in the middle of writes and flushes
        script = _BUSY.format(tests=_TESTS, where=str(index_directory), seq=round_ * 10**7)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            time.sleep(0.3 + 0.1 * round_)
            process.kill()
        # Then payloads and field indexes tell of the same versions, and each chunk has its own text's vector
        copy = tmp_path / f"copy{round_}"
        subprocess.run(["cp", "-r", "--sparse=always", str(index_directory), str(copy)], check=True)
        index = EdgeIndex(copy / "index", copy / "index.json")
        index.open_existing()
        points = list(index.scan(with_vectors=True))
        assert index.census() == Counter(point.payload["seq"] for point in points)
        for point in points:
            if point.dense is not None:
                np.testing.assert_allclose(point.dense, vector(point.payload["text"]), atol=1e-6)
        index.close()


@pytest.mark.parametrize("step", ["write", "delete"])
def test_an_engine_that_ignores_a_write_without_an_error_is_not_believed(
    edge_index: EdgeIndex, index_directory: Path, step: str
) -> None:
    """With damaged versions of points, the engine takes every operation on them for one that it has made already."""
    edge_index.ensure_schema(MODEL, DIMENSION)
    edge_index.apply(version("a", 5, ["one", "two"]))
    edge_index.close()
    [versions] = index_directory.glob("index/segments/*/mutable_id_tracker.versions")
    data = bytearray(versions.read_bytes())
    data[4::8] = bytes(byte ^ 0x10 for byte in data[4::8])
    versions.write_bytes(data)
    told: list[str] = []
    damaged = EdgeIndex(index_directory / "index", index_directory / "index.json", on_damage=told.append)
    damaged.open_existing()
    with pytest.raises(IndexUnavailable, match="is damaged"):
        if step == "write":
            damaged.apply(version("a", 6, ["new", "two"]))
        else:
            damaged.remove(document_id(b"a"), 6)
    assert len(told) == 1
    # And the next to open it makes it anew
    again = EdgeIndex(index_directory / "index", index_directory / "index.json")
    again.ensure_schema(MODEL, DIMENSION)
    assert again.count() == IndexCounts(0, 0)
    again.apply(version("a", 6, ["new", "two"]))
    assert texts_of(again, "a") == {0: "new", 1: "two"}
    again.close()


class Unreadable:
    """A shard whose files hold what the engine cannot read; it says so in words only."""

    def __init__(self, words: str) -> None:
        self._words = words

    def update(self, operation: object) -> None:
        raise Exception(self._words)  # the engine has no error type of its own


@pytest.mark.parametrize(
    ("words", "is_damage"),
    [
        ("Service runtime error: Failed to decode value: Failed to deserialize Vec<ecow::EcoString>", True),
        ("Service runtime error: Not recovered from previous error: Failed to decode value: x", True),
        ("Service runtime error: Failed to decode value: No space left on device (os error 28)", False),
        ("Service runtime error: Input/output error (os error 5)", False),
        ("Wrong input: Vector dimension error", False),
    ],
)
def test_only_an_error_about_what_the_files_hold_is_damage(
    edge_index: EdgeIndex, index_directory: Path, words: str, is_damage: bool
) -> None:
    told: list[str] = []
    index = EdgeIndex(index_directory / "index", index_directory / "index.json", on_damage=told.append)
    index.ensure_schema(MODEL, DIMENSION)
    index.apply(version("a", 5, ["one"]))
    index.close()
    index.open_existing()
    real, index._shard = index._shard, cast("Any", Unreadable(words))
    with pytest.raises(IndexUnavailable):
        index.apply(version("a", 6, ["two"]))
    assert len(told) == is_damage
    assert real is not None
    real.close()
    again = EdgeIndex(index_directory / "index", index_directory / "index.json")
    again.ensure_schema(MODEL, DIMENSION)
    assert again.count() == (IndexCounts(0, 0) if is_damage else IndexCounts(1, 1))
    again.close()


def test_a_second_process_is_refused_until_the_first_has_let_go(
    edge_index: EdgeIndex, index_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_edge, "_LOCK_WAIT_S", 0.3)
    with other_process(index_directory, "sys.stdin.read(); index.close()") as process:
        for opened in (edge_index.open_existing, lambda: edge_index.ensure_schema(MODEL, DIMENSION)):
            with pytest.raises(IndexUnavailable, match="another process holds the index"):
                opened()
        process.communicate()
    edge_index.open_existing()
    assert edge_index.count() == IndexCounts(1, 2)


def test_a_shard_that_cannot_be_loaded_is_set_aside_and_a_new_index_is_made(
    edge_index: EdgeIndex, index_directory: Path
) -> None:
    # Given an index whose files are damaged
    first = edge_index.ensure_schema(MODEL, DIMENSION)
    edge_index.apply(version("a", 1, ["one"]))
    edge_index.close()
    for file in (index_directory / "index").rglob("*.json"):
        file.write_text("{ damaged")
    # Then reading it is an error
    with pytest.raises(IndexUnavailable, match="damaged"):
        EdgeIndex(index_directory / "index", index_directory / "index.json").open_existing()
    # And the worker makes a new one with another id, so that the producer rings for every document again
    second = edge_index.ensure_schema(MODEL, DIMENSION)
    assert second.index_id != first.index_id
    assert edge_index.count() == IndexCounts(0, 0)
    assert (index_directory / "index.damaged").is_dir()
    edge_index.apply(version("a", 2, ["one"]))
    edge_index.close()
    assert EdgeIndex(index_directory / "index", index_directory / "index.json").manifest() == second


def test_a_manifest_that_cannot_be_read_says_what_to_do(edge_index: EdgeIndex, index_directory: Path) -> None:
    edge_index.ensure_schema(MODEL, DIMENSION)
    edge_index.close()
    (index_directory / "index.json").write_text("[]")
    with pytest.raises(IndexMismatch, match=r"index\.json cannot be read .* delete it"):
        edge_index.open_existing()


_STARVED = """
import os, resource, sys
from pathlib import Path
sys.path[:0] = {tests!r}
import versions
from headwater.index_edge import EdgeIndex
index = EdgeIndex(Path({where!r}) / "index", Path({where!r}) / "index.json")
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    os.close(taken.pop())  # one is left, for the manifest
try:
    index.ensure_schema(versions.MODEL, versions.DIMENSION)
except Exception as error:
    print(type(error).__name__)
"""


def test_an_index_that_cannot_be_opened_for_want_of_files_is_not_thrown_away(
    edge_index: EdgeIndex, index_directory: Path
) -> None:
    """Too many open files is the process's trouble, not damage: the shard stays, and the call may succeed later."""
    first = edge_index.ensure_schema(MODEL, DIMENSION)
    edge_index.apply(version("a", 1, ["one"]))
    edge_index.close()
    script = _STARVED.format(tests=_TESTS, where=str(index_directory))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "IndexUnavailable\n", done.stderr
    assert not (index_directory / "index.damaged").exists()
    assert edge_index.open_existing() == first
    assert texts_of(edge_index, "a") == {0: "one"}


def test_a_closed_index_says_so(edge_index: EdgeIndex) -> None:
    edge_index.ensure_schema(MODEL, DIMENSION)
    edge_index.close()
    with pytest.raises(IndexUnavailable, match="is closed"):
        edge_index.count()


def test_eight_threads_write_search_and_flush_at_once(embedded: Backend) -> None:
    index = embedded.adapter()
    index.ensure_schema(MODEL, DIMENSION)

    def work(worker: int) -> None:
        for seq in range(1, 7):
            texts = [f"{worker} {seq} {n}" for n in range(1 + (seq * 7 + worker) % 5)]
            index.apply(version(f"own {worker}", seq, texts))
            index.apply(version("shared", 100 * seq + worker, [f"shared {worker} {seq}"]))
            index.flush()
            hits = index.search(SearchQuery("hybrid", 5, vector(texts[0]), Sparse([11], [1.0])))
            assert all("text" in hit.payload for hit in hits)
            assert f"own {worker}" in index.values("path")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    for worker in range(8):
        expected = [f"{worker} 6 {n}" for n in range(1 + (6 * 7 + worker) % 5)]
        assert texts_of(index, f"own {worker}") == dict(enumerate(expected))
    assert texts_of(index, "shared") == {0: "shared 7 6"}


# -- raw points -------------------------------------------------------------------------------------------


def all_pages(index: VectorIndex, document: str | None = None) -> list[list[Point]]:
    found: list[list[Point]] = []
    offset: str | None = None
    while True:
        page, offset = index.page(offset, document)
        found.append(page)
        if offset is None:
            return found


def test_pages_give_every_point_once_with_its_vectors(index: VectorIndex) -> None:
    texts = [f"text {n}" for n in range(600)]
    index.apply(version("a", 1, texts))
    index.apply(version("b", 2, ["other"]))
    found = all_pages(index)
    assert max(map(len, found)) <= 256
    points = [point for page in found for point in page]
    assert sorted(point.id for point in points) == sorted(point.id for point in index.scan())
    for point in points:
        assert (point.dense is None) == ("text" not in point.payload)
        if point.dense is not None:
            assert point.sparse is not None
            np.testing.assert_allclose(point.dense, vector(point.payload["text"]), atol=1e-6)


def test_pages_of_one_document_hold_its_points_alone(index: VectorIndex) -> None:
    index.apply(version("a", 1, [f"text {n}" for n in range(300)]))
    index.apply(version("b", 2, ["other"]))
    found = all_pages(index, document_id(b"a"))
    assert [len(page) for page in found] == [256, 45]
    assert {point.payload["path"] for page in found for point in page} == {"a"}
    assert all_pages(index, document_id(b"nothing")) == [[]]


def test_an_empty_index_has_one_empty_page(index: VectorIndex) -> None:
    assert index.page() == ([], None)


def test_discarding_takes_exactly_the_named_points(index: VectorIndex) -> None:
    index.apply(version("a", 5, [f"text {n}" for n in range(400)]))
    index.apply(version("b", 6, ["other"]))
    document = document_id(b"a")
    named = [SeenPoint(point_id(document, n), 5) for n in range(300)]
    index.discard([*named, SeenPoint(point_id(document_id(b"b"), 0), 6), SeenPoint(record_id(document_id(b"c")), 5)])
    assert set(texts_of(index, "a")) == set(range(300, 400))
    assert texts_of(index, "b") == {}
    assert index.count() == IndexCounts(2, 100)
    index.discard([])
    assert index.count() == IndexCounts(2, 100)


@pytest.mark.parametrize("seen", [4, 6, None, 5.5])
def test_a_point_that_is_newer_than_what_was_seen_is_not_discarded(index: VectorIndex, seen: float | None) -> None:
    index.apply(version("a", 5, ["one"]))
    index.discard([SeenPoint(point_id(document_id(b"a"), 0), seen)])
    assert texts_of(index, "a") == {0: "one"}


@pytest.mark.parametrize("seq", [None, "5", "absent"])
def test_a_point_without_a_usable_seq_is_discarded_as_one(index: VectorIndex, seq: str | None) -> None:
    index.apply(version("a", 5, ["one", "two"]))
    [point] = [point for point in index.scan(with_vectors=True) if point.payload.get("chunk") == 0]
    payload = {**point.payload, "seq": seq}
    if seq == "absent":
        del payload["seq"]
    index.discard([SeenPoint(point.id, 5)])
    plant(index, [replace(point, payload=payload)], 1)
    index.discard([SeenPoint(point.id, 5)])
    assert set(texts_of(index, "a")) == {0, 1}
    index.discard([SeenPoint(point.id, None)])
    assert set(texts_of(index, "a")) == {1}


# -- census -----------------------------------------------------------------------------------------------


def test_a_census_counts_the_points_of_each_version(backend: Backend) -> None:
    index = backend.adapter()
    index.ensure_schema(MODEL, DIMENSION)
    assert index.census() == {}
    index.apply(version("a", 1, ["one", "two"]))
    index.apply(version("b", 2))
    index.apply(version("a", 3, ["one"]))
    assert index.census() == {2: 1, 3: 2}
    newest = 2**53 - 1
    index.apply(version("c", newest, [str(n) for n in range(300)]))
    assert index.census() == {2: 1, 3: 2, newest: 301}


def test_a_sweep_deletes_exactly_the_versions_that_it_names(backend: Backend) -> None:
    index = backend.adapter()
    index.ensure_schema(MODEL, DIMENSION)
    for seq in (1, 2, 3):
        index.apply(version(f"{seq}", seq, ["text"]))
    index.sweep([1, 3, 7])
    index.sweep([])
    assert index.census() == {2: 2}
    assert index.values("path") == ["2"]


def test_versions_that_differ_by_one_are_swept_apart_however_large(backend: Backend) -> None:
    index = backend.adapter()
    index.ensure_schema(MODEL, DIMENSION)
    high = 2**53 - 2
    index.apply(version("a", high, ["text"]))
    index.apply(version("b", high + 1, ["text"]))
    index.sweep([high])
    assert index.census() == {high + 1: 2}


@pytest.mark.parametrize("seq", [None, "absent"])
def test_points_without_a_seq_are_swept_and_then_written_anew(index: VectorIndex, seq: str | None) -> None:
    # Given a document one of whose points a damaged shard has brought back without its seq
    index.apply(version("a", 5, ["one", "two"]))
    index.apply(version("b", 6, ["three"]))
    [point] = [point for point in index.scan(with_vectors=True) if point.payload.get("text") == "one"]
    payload = {name: value for name, value in point.payload.items() if name != "seq"}
    index.sweep([5])
    plant(index, [replace(point, payload=payload if seq == "absent" else {**payload, "seq": None})], 1)
    assert index.census() == {6: 2}
    assert index.count() == IndexCounts(1, 2)
    # When such points are swept, and the document is written again
    index.sweep_unversioned()
    assert index.count() == IndexCounts(1, 1)
    index.apply(version("a", 8, ["new", "two"]))
    assert index.census() == {6: 2, 8: 3}
    assert texts_of(index, "a") == {0: "new", 1: "two"}
