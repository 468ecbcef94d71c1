"""The retriever for LlamaIndex, with llama-index-core itself."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, QueryBundle
from shelf import DOCUMENTS, Shelf, example, made_shelf, refuse_network, served

from headwater import Index
from headwater.errors import IndexUnavailable, QueryError
from headwater.integrations.llamaindex import HeadwaterRetriever
from headwater.local import LocalEngine


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return made_shelf(tmp_path_factory.mktemp("llamaindex"))


@pytest.fixture(scope="module")
def engine(shelf: Shelf) -> Iterator[LocalEngine]:
    made = shelf.engine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def index(engine: LocalEngine) -> Index:
    return Index(engine)


def test_a_node_is_a_chunk_with_its_place_and_its_source(index: Index) -> None:
    [found] = HeadwaterRetriever(index, limit=1, mode="sparse").retrieve("trees for a nest")
    first, second = DOCUMENTS["birds/heron.md"][1]
    [hit] = index.search("trees for a nest", 1, "sparse")
    node = found.node
    start, end = len(first) + 2, len(first) + 2 + len(second)
    assert (found.score, found.text, node.node_id) == (hit.score, second, "birds/heron.md#1")
    assert (node.start_char_idx, node.end_char_idx, node.ref_doc_id) == (start, end, "birds/heron.md")
    assert node.metadata == {
        "path": "birds/heron.md",
        "start": start,
        "end": end,
        "start_line": 3,
        "end_line": 3,
        "page": None,
        "headings": ["Shelf", "heron"],
        "title": "Heron",
        "score": hit.score,
        "seq": 1,
        "language": "en",
        "stale": False,
    }


def test_a_language_model_is_told_what_helps_it(index: Index) -> None:
    [found] = HeadwaterRetriever(index, limit=1, mode="sparse").retrieve("trees for a nest")
    told = found.node.get_content(MetadataMode.LLM)
    lines = ["path: birds/heron.md", "headings: ['Shelf', 'heron']", "title: Heron"]
    assert told.split("\n\n") == ["\n".join(lines), DOCUMENTS["birds/heron.md"][1][1]]


def test_a_node_keeps_its_id_in_every_answer(index: Index) -> None:
    retriever = HeadwaterRetriever(index, limit=100)
    nodes = retriever.retrieve("heron")
    assert len({found.node_id for found in nodes}) == len(nodes) == 7
    again = {found.node_id: found.text for found in retriever.retrieve(QueryBundle("bread"))}
    assert again == {found.node_id: found.text for found in nodes}


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        ({"where": "lang:de"}, {"birds/reiher.md"}),
        ({"filters": {"extension": ["txt"], "directories": "copy"}}, {"copy/stars.txt"}),
        ({"where": "path:birds/", "filters": {"language": "en"}}, {"birds/heron.md"}),
        ({"limit": 2, "mode": "sparse", "score_threshold": 0.01, "where": "ext:txt"}, {"stars.txt", "copy/stars.txt"}),
        ({"group_by": "document", "rerank": False, "limit": 5}, set(DOCUMENTS)),
        ({"diversity": 0.5, "mode": "dense", "limit": 7}, set(DOCUMENTS)),
    ],
)
def test_what_is_asked_for_reaches_the_index(index: Index, asked: dict[str, Any], paths: set[str]) -> None:
    nodes = HeadwaterRetriever(index, **asked).retrieve("a star that burns")
    assert {found.metadata["path"] for found in nodes} == paths
    assert len(nodes) == len(index.search("a star that burns", **asked))


def test_awaited_the_answers_are_the_same_in_any_event_loop(index: Index) -> None:
    retriever = HeadwaterRetriever(index, mode="dense", limit=3)
    questions = ["heron", "bread", "helium", "Wasser"]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(retriever.aretrieve(question) for question in questions))

    expected = [retriever.retrieve(question) for question in questions]
    for _ in range(2):
        assert asyncio.run(ask()) == expected


def test_errors_are_headwater_s_own(index: Index) -> None:
    wrong = HeadwaterRetriever(index, where="colour:red")
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        wrong.retrieve("x")
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        asyncio.run(wrong.aretrieve("x"))
    with pytest.raises(QueryError, match="the text to search for is empty"):
        HeadwaterRetriever(index).retrieve("  ")
    with pytest.raises(QueryError, match="HEADWATER_RERANKER"):
        HeadwaterRetriever(index, rerank=True).retrieve("x")
    with pytest.raises(QueryError, match="the limit is 0"):
        HeadwaterRetriever(index, limit=0)


def test_it_is_a_part_of_a_query_engine(index: Index) -> None:
    retriever = HeadwaterRetriever(index, mode="sparse", limit=1)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    for response in (engine.query("trees for a nest"), asyncio.run(engine.aquery("trees for a nest"))):
        [source] = response.source_nodes
        assert source.node.node_id == "birds/heron.md#1"
        # The mock answers with its prompt: the passage was in it, with its path
        assert DOCUMENTS["birds/heron.md"][1][1] in str(response)
        assert "path: birds/heron.md" in str(response)


# -- where the index comes from -----------------------------------------------------------------------------


def test_a_state_directory_names_the_index_which_is_closed_with_the_retriever(shelf: Shelf, tmp_path: Path) -> None:
    own = shelf.copied(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_MODEL", own.settings.model)
        for _ in range(2):
            retriever = HeadwaterRetriever(state_dir=own.settings.state_dir, limit=3)
            assert len(retriever.retrieve("heron")) == 3
            retriever.close()


def test_an_index_that_was_given_stays_open(index: Index) -> None:
    retriever = HeadwaterRetriever(index)
    retriever.close()
    assert retriever.retrieve("heron")


def test_a_running_service_is_asked(engine: LocalEngine, shelf: Shelf, index: Index) -> None:
    with served(engine, shelf.layout):
        retriever = HeadwaterRetriever(state_dir=shelf.settings.state_dir, mode="dense")
        assert retriever.retrieve("heron") == HeadwaterRetriever(index, mode="dense").retrieve("heron")
        retriever.close()


def test_an_index_that_is_not_there_is_said_when_the_retriever_is_made(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="there is no index in"):
        HeadwaterRetriever(state_dir=tmp_path)


def test_without_the_library_one_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llama_index.core")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    monkeypatch.delitem(sys.modules, "headwater.integrations.llamaindex")
    with pytest.raises(ImportError, match=r"pip install 'headwater\[llamaindex\]'"):
        importlib.import_module("headwater.integrations.llamaindex")


def test_the_example_of_the_documentation_runs(
    engine: LocalEngine, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(shelf.settings.state_dir))
    with served(engine, shelf.layout):
        exec(compile(example("integrations.md", "llama_index"), "integrations.md", "exec"), {})
    assert " birds/heron.md 0..47" in capsys.readouterr().out
