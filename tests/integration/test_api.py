"""The query API over HTTP: the same answers as the index itself, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest
from driver import wait_until

from headwater import Index
from headwater.api import ApiServer, make_api
from headwater.client import RemoteEngine
from headwater.document import document_id, text_hash
from headwater.embedder import Embedder
from headwater.errors import IndexUnavailable, QueryError, ServiceUnavailable, SettingsError
from headwater.index import Chunk, DocumentWrite
from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine, query_embedding
from headwater.settings import Settings
from headwater.state import Layout, Service

TOKEN = "the-token"
DOCUMENTS = {
    "birds/heron.md": ["The grey heron waits in shallow water for fish.", "It nests in tall trees."],
    "birds/owl.md": ["Owls hunt mice at night without a sound."],
    "kitchen/bread.md": [
        "Knead the dough for ten minutes, then let it rise.",
        "Bake the bread until it is brown.",
    ],
    "stars.txt": ["A red giant is a star late in its life that burns helium."],
}


@pytest.fixture(scope="module")
def engine(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    directory = tmp_path_factory.mktemp("api")
    index = EdgeIndex(directory / "index", directory / "index.json")
    index.ensure_schema(embedder.name, embedder.dimension)
    bm25 = Bm25Encoder()
    for seq, (path, texts) in enumerate(DOCUMENTS.items(), start=1):
        chunks = [Chunk(n, t, text_hash(t), 0, len(t), 1, 1, page=None, headings=("H",)) for n, t in enumerate(texts)]
        index.apply(
            DocumentWrite(
                document_id=document_id(path.encode()),
                path=path,
                seq=seq,
                content_hash=text_hash(path),
                pipeline="p",
                kind="markdown" if path.endswith(".md") else "text",
                modified_at=f"2026-0{seq}-01T00:00:00Z",
                size=1,
                chunks=chunks,
                dense=embedder.encode(texts, "document"),
                sparse=[bm25.document(text) for text in texts],
                title=path,
            )
        )
    yield LocalEngine(index, query_embedding(embedder), bm25.query)
    index.close()


class Api:
    """A served API and what it was asked to do."""

    def __init__(self, engine: Future[LocalEngine], **settings: Any) -> None:
        self.engine = engine
        self.flushed = 0
        self.server = ApiServer(Settings.load(port=0, **settings))
        app = make_api(
            engine,
            status=lambda: {"running": True},
            flush=self._flush,
            token=TOKEN,
            allowed_hosts=["docs.lan"],
        )
        self.server.start(app)
        self.http = httpx.Client(base_url=self.server.url, timeout=20, trust_env=False)
        wait_until(self._answers, "the API answers", timeout_s=10)

    def _flush(self) -> None:
        self.flushed += 1

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def problem(self, status: int, path: str, body: bytes | Mapping[str, Any]) -> str:
        """Asks for something that is wrong: the sentence of the answer."""
        answer = self.http.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
        assert answer.status_code == status, (answer.status_code, answer.text[:300])
        error = answer.json()["error"]
        assert set(error) == {"type", "message"}
        message = str(error["message"])
        assert message.strip(), answer.text
        assert "\n" not in message, answer.text
        assert "Traceback" not in message, answer.text
        return message

    def close(self) -> None:
        self.http.close()
        self.server.stop()


@pytest.fixture(scope="module")
def api(engine: LocalEngine) -> Iterator[Api]:
    ready: Future[LocalEngine] = Future()
    ready.set_result(engine)
    made = Api(ready)
    yield made
    made.close()


@pytest.fixture
def remote(api: Api) -> Iterator[RemoteEngine]:
    made = RemoteEngine(api.server.url)
    yield made
    made.close()


# -- answers ----------------------------------------------------------------------------------------------

QUESTIONS: list[dict[str, Any]] = [
    {"text": "a bird that eats fish"},
    {"text": "a bird that eats fish", "mode": "dense", "limit": 2},
    {"text": "helium star", "mode": "sparse"},
    {"text": "dough", "path_glob": "kitchen/"},
    {"text": "dough", "path_glob": "*.pdf"},
    {"text": "anything", "filters": {"kind": "text"}},
    {"text": "anything", "filters": {"path": ["stars.txt", "birds/owl.md"], "seq": {"gte": 3, "lt": 5}}},
    {
        "text": "anything",
        "filters": {"modified_at": {"gte": "2026-02-01T00:00:00Z", "lt": "2026-04-01T00:00:00Z"}},
    },
    {"text": "star", "mode": "dense", "score_threshold": 0.4},
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_search_through_http_answers_as_the_index_does(
    engine: LocalEngine, remote: RemoteEngine, question: dict[str, Any]
) -> None:
    expected = Index(engine).search(**question)
    assert Index(remote).search(**question) == expected
    assert bool(expected) == (question.get("path_glob") != "*.pdf")


def test_the_best_hit_is_the_one_that_answers(remote: RemoteEngine) -> None:
    for mode in ("dense", "sparse", "hybrid"):
        hit = Index(remote).search("which bird waits for fish", limit=1, mode=mode)[0]  # type: ignore[arg-type]
        assert (hit.path, hit.chunk, hit.text) == ("birds/heron.md", 0, DOCUMENTS["birds/heron.md"][0])
        assert (hit.headings, hit.title, hit.kind, hit.page) == (("H",), "birds/heron.md", "markdown", None)


def test_similar_documents_and_similarities_are_the_same_through_http(
    engine: LocalEngine, remote: RemoteEngine
) -> None:
    index = Index(remote)
    similar = index.similar("birds/heron.md", limit=2)
    assert similar == Index(engine).similar("birds/heron.md", 2)
    assert similar[0].path == "birds/owl.md"
    assert "birds/heron.md" not in {hit.path for hit in index.similar("birds/heron.md")}
    assert index.similarity("a cat", "a kitten") == pytest.approx(engine.similarity("a cat", "a kitten"), abs=1e-6)
    assert index.similarity("a cat", "a kitten") > index.similarity("a cat", "tax law") + 0.3


def test_the_index_of_a_running_service_is_asked_through_it(api: Api, engine: LocalEngine, tmp_path: Path) -> None:
    Service(api.server.url, os.getpid()).write(Layout(tmp_path))
    with Index.open(state_dir=tmp_path) as index:
        assert index.search("star") == Index(engine).search("star")


def test_a_document_and_known_texts_are_told_through_http_as_by_the_index(
    remote: RemoteEngine, engine: LocalEngine
) -> None:
    owl, nobody = document_id(b"birds/owl.md"), document_id(b"nobody.md")
    record = remote.record(owl)
    assert record == engine.record(owl) is not None
    assert (record["path"], record["chunks"], record["pipeline"]) == ("birds/owl.md", 1, "p")
    assert record["model"] and "text" not in record
    assert remote.record(nobody) is None
    here, other = text_hash(DOCUMENTS["birds/owl.md"][0]), text_hash("a text of no document")
    assert remote.known([here, other, here]) == engine.known([here, other, here]) == {here}
    assert remote.known([]) == set()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/document", {}), ("/v1/document", {"document_id": 5}), ("/v1/document", {"document_id": "\u00e4"}),
        ("/v1/document", {"document_id": "a", "more": 1}), ("/v1/known", {}), ("/v1/known", {"text_hashes": "abc"}),
        ("/v1/known", {"text_hashes": [1]}), ("/v1/known", {"text_hashes": ["\ud800"]}),
    ],
)  # fmt: skip
def test_a_bad_lookup_is_answered_with_400_and_one_sentence(api: Api, path: str, body: Mapping[str, Any]) -> None:
    api.problem(400, path, body)


def test_errors_come_through_http_as_what_they_are(remote: RemoteEngine) -> None:
    index = Index(remote)
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        index.search("x", filters={"colour": "red"})
    with pytest.raises(QueryError, match="no document 'nowhere' is in the index"):
        index.similar("nowhere")
    with pytest.raises(QueryError, match="the text to search for is empty"):
        index.similarity("x", "  ")


def test_a_service_that_is_gone_is_one_sentence(remote: RemoteEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    engine = RemoteEngine(f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceUnavailable, match=r"^the service at http://127\.0\.0\.1:\d+ does not answer"):
        engine.similarity("a", "b")
    engine.close()


# -- bad requests -----------------------------------------------------------------------------------------

BAD_SEARCHES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"text": "x", "colour": 1}, "the request has colour"),
    "no text": ({}, "the text to search for is empty"),
    "blank text": ({"text": " \n"}, "the text to search for is empty"),
    "text of another type": ({"text": 5}, "the text to search for is empty"),
    "long text": ({"text": "x" * 20_001}, "20001 characters, more than 20000"),
    "more tokens than the model reads": (
        {"text": "x " * 300},
        "the text has 300 tokens and the model reads 254",
    ),
    "limit 0": ({"text": "x", "limit": 0}, "the limit is 0: give a whole number from 1 to 1000"),
    "limit too high": ({"text": "x", "limit": 1001}, "the limit is 1001"),
    "limit of another type": ({"text": "x", "limit": "5"}, "the limit is '5'"),
    "limit true": ({"text": "x", "limit": True}, "the limit is True"),
    "unknown mode": ({"text": "x", "mode": "best"}, "the mode is 'best': give one of hybrid, dense, sparse"),
    "mode of another type": ({"text": "x", "mode": ["dense"]}, "the mode is ['dense']"),
    "unknown filter": ({"text": "x", "filters": {"colour": "red"}}, "there is no filter 'colour'"),
    "unknown bound": (
        {"text": "x", "filters": {"page": {"above": 1}}},
        "the filter 'page' has the bounds ['above']",
    ),
    "filter of another type": ({"text": "x", "filters": {"page": 1.5}}, ""),
    "filter null": ({"text": "x", "filters": {"page": None}}, ""),
    "filters as a list": ({"text": "x", "filters": ["page"]}, ""),
    "filters as a text": ({"text": "x", "filters": "page=1"}, ""),
    "bound of another type": ({"text": "x", "filters": {"page": {"gte": "one"}}}, ""),
    "bound as a list": ({"text": "x", "filters": {"page": {"gte": [1]}}}, ""),
    "time that is none": ({"text": "x", "filters": {"modified_at": {"gte": "yesterday"}}}, ""),
    "values of two types": ({"text": "x", "filters": {"page": [1, "two"]}}, ""),
    "invalid glob": ({"text": "x", "path_glob": "!"}, "the path glob '!' is not valid"),
    "glob of another type": ({"text": "x", "path_glob": 5}, ""),
    "threshold of another type": ({"text": "x", "score_threshold": "high"}, ""),
    "half a character": ({"text": "\ud800"}, ""),
}


@pytest.mark.parametrize("case", list(BAD_SEARCHES))
def test_a_bad_search_is_answered_with_400_and_one_sentence(api: Api, case: str) -> None:
    body, sentence = BAD_SEARCHES[case]
    assert sentence in api.problem(400, "/v1/search", body)


BAD_BODIES: dict[str, bytes] = {
    "no JSON": b"{text: x}",
    "nothing": b"",
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "a list": b'["text"]',
    "a number": b"5",
    "too large": b'{"text": "' + b"x" * (2 << 20) + b'"}',
    "nested too deep": b"[" * 200_000,
    "a key that is half a character": b'{"\\ud800": 1}',
    "a key of two lines": b'{"a\\nb": 1}',
}


@pytest.mark.parametrize("path", ["/v1/search", "/v1/similarity"])
@pytest.mark.parametrize("case", list(BAD_BODIES))
def test_a_bad_body_is_answered_with_400_and_one_sentence(api: Api, case: str, path: str) -> None:
    api.problem(400, path, BAD_BODIES[case])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/similar", {"path": "nowhere"}),
        ("/v1/similar", {"path": ""}),
        ("/v1/similar", {"path": "stars.txt", "limit": 0}),
        ("/v1/similar", {"path": 5}),
        ("/v1/similar", {"path": "\ud800"}),
        ("/v1/similar", {"paths": []}),
        ("/v1/similarity", {"a": "x"}),
        ("/v1/similarity", {"a": "x", "b": 5}),
        ("/v1/similarity", {"a": "x", "b": "y", "c": "z"}),
    ],
)
def test_a_bad_comparison_is_answered_with_400_and_one_sentence(api: Api, path: str, body: Mapping[str, Any]) -> None:
    api.problem(400, path, body)


def test_the_api_goes_on_after_bad_requests(api: Api) -> None:
    for content in BAD_BODIES.values():
        api.http.post("/v1/search", content=content)
    assert api.http.post("/v1/search", json={"text": "star"}).status_code == 200
    assert api.http.get("/v1/search").status_code == 405
    assert api.http.get("/elsewhere").status_code == 404
    assert api.http.get("/status").json() == {"running": True}


# -- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "docs.lan"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": "[broken"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
    ],
)
def test_only_pages_and_callers_of_this_machine_are_answered(api: Api, headers: dict[str, str], status: int) -> None:
    for path in ("/healthz", "/status"):
        answer = api.http.get(path, headers=headers)
        assert answer.status_code == status, path
    answer = api.http.post("/v1/search", json={"text": "star"}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["message"].endswith("is not one that this API serves")


def test_what_changes_state_needs_the_token(api: Api) -> None:
    before = api.flushed
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer \xe9"},
    ):
        answer = api.http.post("/v1/flush", headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert answer.status_code == 401
        assert "needs the token" in answer.json()["error"]["message"]
    assert api.flushed == before
    assert api.http.post("/v1/flush", headers={"Authorization": f"Bearer {TOKEN}"}).json() == {"ok": True}
    assert api.flushed == before + 1


# -- before the engine is there, and after it failed ------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[[Future[LocalEngine]], Api]]:
    made: list[Api] = []

    def start(engine: Future[LocalEngine]) -> Api:
        made.append(Api(engine))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_it_is_ready_when_the_engine_is_there_and_questions_wait_for_it(
    serve: Callable[[Future[LocalEngine]], Api], engine: LocalEngine
) -> None:
    loading: Future[LocalEngine] = Future()
    api = serve(loading)
    answer = api.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    assert api.http.get("/healthz").status_code == 200
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(api.http.post("/v1/search", json={"text": "star"})))
    asking.start()
    loading.set_result(engine)
    asking.join(timeout=20)
    assert [answer.status_code for answer in answers] == [200]
    answer = api.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


def test_an_engine_that_could_not_be_opened_is_said_so(serve: Callable[[Future[LocalEngine]], Api]) -> None:
    failed: Future[LocalEngine] = Future()
    failed.set_exception(IndexUnavailable("another process holds the index"))
    api = serve(failed)
    assert api.http.get("/readyz").status_code == 503
    assert api.problem(503, "/v1/search", {"text": "x"}) == "another process holds the index"


def test_questions_that_waited_too_long_are_asked_to_come_again(
    serve: Callable[[Future[LocalEngine]], Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.api._READY_TIMEOUT_S", 0.1)
    api = serve(Future())
    assert "still loading its model" in api.problem(503, "/v1/search", {"text": "x"})


# -- the port ---------------------------------------------------------------------------------------------


def test_a_port_that_another_service_serves_is_a_sentence(api: Api) -> None:
    port = int(api.server.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=rf"^the query API cannot listen on 127\.0\.0\.1 port {port} \(.*--port"):
        ApiServer(Settings.load(port=port))


def test_a_port_is_taken_from_the_moment_it_is_bound() -> None:
    """Two services that start together must not both believe that the port is theirs."""
    first = ApiServer(Settings.load(port=0))
    try:
        with pytest.raises(SettingsError, match="cannot listen"):
            ApiServer(Settings.load(port=int(first.url.rpartition(":")[2]))).stop()
    finally:
        first.stop()
