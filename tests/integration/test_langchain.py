"""The retriever for LangChain, with langchain-core itself."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from shelf import DOCUMENTS, Shelf, example, made_shelf, refuse_network, served

from headwater import Index
from headwater.errors import IndexUnavailable, QueryError
from headwater.integrations.langchain import HeadwaterRetriever
from headwater.local import LocalEngine

METADATA = {
    "path", "start", "end", "start_line", "end_line", "page", "headings", "title", "score", "seq", "language", "stale",
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return made_shelf(tmp_path_factory.mktemp("langchain"))


@pytest.fixture(scope="module")
def engine(shelf: Shelf) -> Iterator[LocalEngine]:
    made = shelf.engine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def index(engine: LocalEngine) -> Index:
    return Index(engine)


def test_a_document_is_a_chunk_with_its_place(index: Index) -> None:
    [document] = HeadwaterRetriever(index=index, limit=1, mode="sparse").invoke("trees for a nest")
    first, second = DOCUMENTS["birds/heron.md"][1]
    assert (document.page_content, document.id) == (second, "birds/heron.md#1")
    [hit] = index.search("trees for a nest", 1, "sparse")
    assert document.metadata == {
        "path": "birds/heron.md",
        "start": len(first) + 2,
        "end": len(first) + 2 + len(second),
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
    assert set(document.metadata) == METADATA


def test_a_document_keeps_its_id_in_every_answer(index: Index) -> None:
    retriever = HeadwaterRetriever(index=index, k=100)
    documents = retriever.invoke("heron")
    assert len({document.id for document in documents}) == len(documents) == 7
    again = {document.id: document.page_content for document in retriever.invoke("bread")}
    assert again == {document.id: document.page_content for document in documents}


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        ({"where": "lang:de"}, {"birds/reiher.md"}),
        ({"filters": {"extension": ["txt"], "directories": "copy"}}, {"copy/stars.txt"}),
        ({"where": "path:birds/", "filters": {"language": "en"}}, {"birds/heron.md"}),
        ({"limit": 2, "mode": "sparse", "score_threshold": 0.01, "where": "ext:txt"}, {"stars.txt", "copy/stars.txt"}),
        ({"group_by": "document", "rerank": False, "limit": 5}, set(DOCUMENTS)),
    ],
)
def test_what_is_asked_for_reaches_the_index(index: Index, asked: dict[str, Any], paths: set[str]) -> None:
    documents = HeadwaterRetriever(index=index, **asked).invoke("a star that burns")
    assert {document.metadata["path"] for document in documents} == paths
    assert len(documents) == len(index.search("a star that burns", **asked))


def test_variety_is_asked_for_as_well(index: Index) -> None:
    plain = HeadwaterRetriever(index=index, mode="dense", limit=2).invoke("a red giant is a star that burns helium")
    varied = HeadwaterRetriever(index=index, mode="dense", limit=2, diversity=1.0)
    documents = varied.invoke("a red giant is a star that burns helium")
    hits = index.search("a red giant is a star that burns helium", 2, "dense", diversity=1.0)
    assert [document.id for document in documents] == [f"{hit.path}#{hit.chunk}" for hit in hits]
    assert [document.id for document in documents] != [document.id for document in plain]


def test_awaited_and_in_batches_the_answers_are_the_same(index: Index) -> None:
    retriever = HeadwaterRetriever(index=index, mode="dense", limit=3)
    questions = ["heron", "bread", "helium", "Wasser"]
    expected = [retriever.invoke(question) for question in questions]
    assert retriever.batch(questions) == expected
    # And from one event loop after the other
    for _ in range(2):
        assert asyncio.run(retriever.abatch(questions)) == expected
        assert asyncio.run(retriever.ainvoke("heron")) == expected[0]


def test_errors_are_headwater_s_own(index: Index) -> None:
    wrong = HeadwaterRetriever(index=index, where="colour:red")
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        wrong.invoke("x")
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        asyncio.run(wrong.ainvoke("x"))
    with pytest.raises(QueryError, match="the text to search for is empty"):
        HeadwaterRetriever(index=index).invoke("  ")
    with pytest.raises(QueryError, match="HEADWATER_RERANKER"):
        HeadwaterRetriever(index=index, rerank=True).invoke("x")


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"k": 1001}, {"mode": "best"}, {"colour": "red"}])
def test_a_field_that_is_wrong_is_refused_when_the_retriever_is_made(index: Index, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HeadwaterRetriever(index=index, **wrong)


def test_it_is_a_part_of_a_chain(index: Index) -> None:
    from langchain_core.documents import Document
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    shown: list[str] = []

    def cited(documents: list[Document]) -> str:
        return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)

    def show(prompt: Any) -> Any:
        shown.append(prompt.to_string())
        return prompt

    retriever = HeadwaterRetriever(index=index, mode="sparse", limit=1)
    prompt = ChatPromptTemplate.from_template("From {context}: {question}")
    answers = FakeListChatModel(responses=["fish"])
    asked = {"context": retriever | cited, "question": RunnablePassthrough()}
    chain = asked | prompt | RunnableLambda(show) | answers | StrOutputParser()
    assert chain.invoke("what is in shallow water") == "fish"
    assert asyncio.run(chain.ainvoke("what is in shallow water")) == "fish"
    passage = f"[birds/heron.md#0] {DOCUMENTS['birds/heron.md'][1][0]}"
    assert shown == [f"Human: From {passage}: what is in shallow water"] * 2


def test_a_field_can_be_configured_for_one_call(index: Index) -> None:
    from langchain_core.runnables import ConfigurableField

    retriever = HeadwaterRetriever(index=index, mode="dense").configurable_fields(
        limit=ConfigurableField(id="limit"), where=ConfigurableField(id="where")
    )
    documents = retriever.invoke("heron", config={"configurable": {"limit": 2, "where": "dir:kitchen"}})
    assert [document.metadata["path"] for document in documents] == ["kitchen/bread.md"] * 2


def test_it_tells_callbacks_what_it_found(index: Index) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Told(BaseCallbackHandler):
        found: list[Any] = []

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            self.found.append(documents)

    documents = HeadwaterRetriever(index=index, limit=2).invoke("heron", config={"callbacks": [Told()]})
    assert Told.found == [documents]


# -- where the index comes from -----------------------------------------------------------------------------


def test_a_state_directory_names_the_index_which_is_closed_with_the_retriever(shelf: Shelf, tmp_path: Path) -> None:
    own = shelf.copied(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_MODEL", own.settings.model)
        retriever = HeadwaterRetriever(state_dir=own.settings.state_dir, limit=3)
        assert len(retriever.invoke("heron")) == 3
        # And a copy of it for one call opens nothing again
        assert retriever.model_copy().invoke("heron")
        retriever.close()
        HeadwaterRetriever(state_dir=own.settings.state_dir).close()


def test_an_index_that_was_given_stays_open(index: Index) -> None:
    retriever = HeadwaterRetriever(index=index)
    retriever.close()
    assert retriever.invoke("heron")


def test_a_running_service_is_asked(engine: LocalEngine, shelf: Shelf, index: Index) -> None:
    with served(engine, shelf.layout):
        retriever = HeadwaterRetriever(state_dir=shelf.settings.state_dir, mode="dense")
        assert retriever.invoke("heron") == HeadwaterRetriever(index=index, mode="dense").invoke("heron")
        retriever.close()
        wrong = HeadwaterRetriever(state_dir=shelf.settings.state_dir, where="colour:red")
        with pytest.raises(QueryError, match="there is no filter 'colour'"):
            wrong.invoke("x")
        wrong.close()


def test_an_index_that_is_not_there_is_said_when_the_retriever_is_made(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="there is no index in"):
        HeadwaterRetriever(state_dir=tmp_path)


def test_without_the_library_one_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "langchain_core"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    monkeypatch.delitem(sys.modules, "headwater.integrations.langchain")
    with pytest.raises(ImportError, match=r"pip install 'headwater\[langchain\]'"):
        importlib.import_module("headwater.integrations.langchain")


def test_the_example_of_the_documentation_runs(
    engine: LocalEngine, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(shelf.settings.state_dir))
    with served(engine, shelf.layout):
        exec(compile(example("integrations.md", "langchain"), "integrations.md", "exec"), {})
    assert capsys.readouterr().out == "By their sequence number.\n"
