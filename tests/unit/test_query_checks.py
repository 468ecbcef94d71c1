"""What a question may ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headwater.document import document_id, path_to_text
from headwater.errors import QueryError
from headwater.index import Condition, ScoredChunk, SearchQuery, Sparse
from headwater.local import LocalEngine, query_embedding
from headwater.query import Hit, Index
from headwater.question import MOST_CHARACTERS

PAYLOAD = {
    "text": "some text", "path": "a.md", "start": 0, "end": 9, "start_line": 1, "end_line": 1, "page": None,
    "headings": ["A", "B"], "seq": 5, "chunk": 0, "title": None, "kind": "markdown",
    "modified_at": "2026-01-01T00:00:00.000000Z", "document_id": "x", "text_hash": "y",
}  # fmt: skip


@dataclass
class FakeIndex:
    """Records each search; holds the documents by path."""

    documents: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    asked: list[SearchQuery] = field(default_factory=list)
    closed: bool = False

    def search(self, query: SearchQuery) -> list[ScoredChunk]:
        self.asked.append(query)
        return [ScoredChunk(0.5, PAYLOAD)]

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        return sorted(self.documents) if field == "path" else []

    def newest_seq(self) -> int | None:
        return 5

    def document_vectors(self, document: str) -> NDArray[np.float32]:
        found = [rows for path, rows in self.documents.items() if document_id(path.encode()) == document]
        return found[0] if found else np.zeros((0, 2), np.float32)

    def path_vectors(self, path: str) -> NDArray[np.float32]:
        return self.documents.get(path, np.zeros((0, 2), np.float32))

    def for_questions(self) -> FakeIndex:
        return self

    def close(self) -> None:
        self.closed = True


def embed(text: str) -> NDArray[np.float32]:
    text.encode()  # as every tokenizer does
    return np.array([1, 0] if "x" in text else [0, 1], np.float32)


@pytest.fixture
def index() -> FakeIndex:
    rows = np.array([[3, 0], [0, 4]], np.float32)
    return FakeIndex({"a.md": rows, "guide/b.md": rows, "guide/c.txt": rows})


@pytest.fixture
def engine(index: FakeIndex) -> LocalEngine:
    return LocalEngine(index, embed, lambda text, languages: Sparse([1], [1.0]))  # type: ignore[arg-type]  # a part of an index


def test_a_hit_carries_what_the_index_stored(engine: LocalEngine) -> None:
    (hit,) = Index(engine).search("words")
    assert (hit.score, hit.path, hit.headings, hit.start_line, hit.page) == (0.5, "a.md", ("A", "B"), 1, None)
    assert Hit.from_mapping(hit.to_dict()) == hit


@pytest.mark.parametrize(
    ("mode", "dense", "sparse"), [("hybrid", True, True), ("dense", True, False), ("sparse", False, True)]
)
def test_each_mode_brings_its_own_vectors(
    engine: LocalEngine, index: FakeIndex, mode: Any, dense: bool, sparse: bool
) -> None:
    Index(engine).search("words", 7, mode, score_threshold=0.25)
    (query,) = index.asked
    assert (query.mode, query.limit, query.score_threshold) == (mode, 7, 0.25)
    assert (query.dense is not None, query.sparse is not None) == (dense, sparse)


@pytest.mark.parametrize("text", ["", " \n\t", None, 5, b"bytes", "x" * (MOST_CHARACTERS + 1), "\ud800", "a\udcff"])
def test_a_text_that_is_none_is_refused_in_every_question(engine: LocalEngine, index: FakeIndex, text: Any) -> None:
    with pytest.raises(QueryError):
        Index(engine).search(text)
    with pytest.raises(QueryError):
        engine.similarity("words", text)
    assert index.asked == []


@pytest.mark.parametrize("path", ["", None, 5, "gone.md", "\ud800"])
def test_a_document_that_is_not_in_the_index_is_refused(engine: LocalEngine, path: Any) -> None:
    with pytest.raises(QueryError):
        Index(engine).similar(path)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 2.0, "5", None])
def test_a_limit_out_of_bounds_is_refused(engine: LocalEngine, limit: Any) -> None:
    with pytest.raises(QueryError, match="1 to 1000"):
        Index(engine).search("words", limit)
    with pytest.raises(QueryError, match="1 to 1000"):
        Index(engine).similar("a.md", limit)


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_limit_at_its_bounds_is_taken(engine: LocalEngine, index: FakeIndex, limit: int) -> None:
    Index(engine).search("words", limit)
    assert index.asked[0].limit == limit


@pytest.mark.parametrize("mode", ["", "Dense", "exact", None, 5, ["dense"]])
def test_a_mode_that_does_not_exist_is_refused_with_those_that_do(engine: LocalEngine, mode: Any) -> None:
    with pytest.raises(QueryError, match="hybrid"):
        Index(engine).search("words", mode=mode)


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        ({"kind": "pdf"}, Condition("kind", any_of=("pdf",))),
        ({"page": 3}, Condition("page", any_of=(3,))),
        ({"kind": ["pdf", "docx"]}, Condition("kind", any_of=("pdf", "docx"))),
        ({"page": (1, 2)}, Condition("page", any_of=(1, 2))),
        ({"page": {"gte": 2, "lt": 5}}, Condition("page", gte=2, lt=5)),
        (
            {"modified_at": {"gt": "2026-01-01T00:00:00Z"}},
            Condition("modified_at", gt="2026-01-01T00:00:00.000000Z"),
        ),
        ({"meta.author": "Alice"}, Condition("fields", any_of=("author=Alice",))),
        ({"meta.draft": True}, Condition("fields", any_of=("draft=true",))),
    ],
)
def test_filters_become_conditions(
    engine: LocalEngine, index: FakeIndex, filters: dict[str, Any], condition: Condition
) -> None:
    Index(engine).search("words", filters=filters)
    assert index.asked[0].conditions == (condition,)


@pytest.mark.parametrize(
    "filters",
    [
        {"nothing": 1}, {"text": "x"}, {"": "x"}, {"page": {}}, {"page": {"from": 1}}, {"page": {"gte": 1, "x": 2}},
        {"page": True}, {"page": [True]}, {"page": [1.5]}, {"kind": [None]}, {"kind": [["a"]]},
        {"kind": None}, {"page": 1.5}, {"page": {"gte": None}}, {"page": {"gte": [1]}}, {"page": {"gte": True}},
        {"page": {"gte": float("nan")}}, {"modified_at": "2026-01-01"}, {"meta.author": []}, {"meta.author": [1.5]},
    ],
)  # fmt: skip
def test_a_filter_that_does_not_exist_or_makes_no_sense_is_refused(
    engine: LocalEngine, index: FakeIndex, filters: dict[str, Any]
) -> None:
    with pytest.raises(QueryError, match="filter"):
        Index(engine).search("words", filters=filters)
    assert index.asked == []


@pytest.mark.parametrize(
    ("glob", "paths"),
    [
        ("*.md", ("a.md", "guide/b.md")),
        ("guide/*", ("guide/b.md", "guide/c.txt")),
        ("/a.md", ("a.md",)),
        (" guide/*.txt ", ("guide/c.txt",)),
        ("none", ()),
    ],
)
def test_a_path_glob_is_in_the_syntax_of_ignore_files(
    engine: LocalEngine, index: FakeIndex, glob: str, paths: Sequence[str]
) -> None:
    Index(engine).search("words", path_glob=glob)
    assert index.asked[0].conditions == (Condition("path", any_of=tuple(paths)),)


@pytest.mark.parametrize("glob", ["!", "\\", "[z-a]"])
def test_a_path_glob_that_is_none_is_refused(engine: LocalEngine, glob: str) -> None:
    with pytest.raises(QueryError, match="glob"):
        Index(engine).search("words", path_glob=glob)


def test_similar_documents_are_asked_for_by_the_mean_and_without_the_document_itself(
    engine: LocalEngine, index: FakeIndex
) -> None:
    Index(engine).similar("a.md", 3)
    (query,) = index.asked
    assert query.dense is not None
    assert np.allclose(query.dense, [0.6, 0.8])
    assert query.conditions == (Condition("document_id", any_of=(document_id(b"a.md"),), negate=True),)


def test_the_path_of_a_hit_can_be_asked_for_whatever_the_name() -> None:
    # Given a document whose name is not UTF-8
    name = b"caf\xe9.md"
    rows = np.array([[1, 0]], np.float32)

    class OneDocument(FakeIndex):
        def values(self, field: str, *, exact: bool = True) -> list[str]:
            return [path_to_text(name)]

        def document_vectors(self, document: str) -> NDArray[np.float32]:
            return rows if document == document_id(name) else np.zeros((0, 2), np.float32)

    engine = LocalEngine(OneDocument(), embed, lambda text, languages: Sparse([], []))  # type: ignore[arg-type]  # a part of an index
    # Then the path that a hit shows is one that the index knows
    assert len(Index(engine).similar(path_to_text(name))) == 1


def test_similarity_is_the_cosine_of_both_texts(engine: LocalEngine) -> None:
    assert engine.similarity("x", "also x") == pytest.approx(1.0)
    assert engine.similarity("x", "y") == pytest.approx(0.0)


def test_a_query_longer_than_the_window_is_refused_and_not_cut() -> None:
    class Embedder:
        window = 3

        def count_tokens(self, text: str) -> int:
            return len(text.split())

        def encode(self, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
            return np.stack([embed(text) for text in texts])

    ask = query_embedding(Embedder())
    assert ask("one two three").shape == (2,)
    with pytest.raises(QueryError, match="4 tokens"):
        ask("one two three four")


def test_an_index_closes_its_engine_when_its_block_ends(index: FakeIndex, engine: LocalEngine) -> None:
    with Index(engine) as opened:
        assert len(opened.search("words", 5, "dense")) == 1
        assert not index.closed
    assert index.closed
