"""Answers of a language model: a real HTTP server on loopback that speaks the streaming protocol, and its faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headwater.ask import stream_answer, used_passages
from headwater.context import Citation, Context, Passage
from headwater.errors import ModelEndpointError, SettingsError
from headwater.settings import Settings

Reply = Callable[[BaseHTTPRequestHandler], None]


def passage(path: str) -> Passage:
    citation = Citation(path, 0, 4, 1, 1, None, None, (), 1, verified=True)
    return Passage("text", citation, 1.0)


CONTEXT = Context("Who waits?", (passage("a.md"), passage("b.md"), passage("c.md")), 9, 100)


def event(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()


def stream(*parts: bytes) -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream; charset=utf-8")
        request.end_headers()
        for part in parts:
            request.wfile.write(part)

    return reply


def answer(status: int, body: str, kind: str = "application/json") -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.end_headers()
        request.wfile.write(body.encode())

    return reply


class Endpoint:
    """What it was asked, and how it replies."""

    def __init__(self) -> None:
        self.reply: Reply = stream(b"data: [DONE]\n\n")
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.ended = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append((self.path, self.headers.get("Authorization"), body))
                endpoint.reply(self)

            def log_message(self, *args: Any) -> None:
                """Nothing to the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.ended.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


def asked(endpoint: Endpoint, **flags: Any) -> str:
    settings = Settings.load(**{"llm_url": endpoint.url, "llm_model": "m", "llm_timeout_s": 20.0, **flags})
    return "".join(stream_answer(CONTEXT, settings))


def test_an_answer_comes_as_it_is_written_and_the_prompt_goes_out_whole(endpoint: Endpoint) -> None:
    parts = [event("Herons"), b": a comment\n\n", event(" wait [1, 3]."), b'data: {"choices": []}\n\n']
    endpoint.reply = stream(*parts, b"data: [DONE]\n\n")
    assert asked(endpoint, llm_api_key="secret") == "Herons wait [1, 3]."
    [(path, key, body)] = endpoint.asked
    assert (path, key, body["model"], body["stream"]) == ("/v1/chat/completions", "Bearer secret", "m", True)
    assert body["messages"] == [{"role": "user", "content": CONTEXT.prompt}]


def test_an_endpoint_that_does_not_stream_is_understood_too(endpoint: Endpoint) -> None:
    endpoint.reply = answer(200, json.dumps({"choices": [{"message": {"content": "Herons."}}]}))
    assert asked(endpoint) == "Herons."


def test_the_passages_that_an_answer_cites_are_known_by_their_numbers() -> None:
    used = used_passages("As [3] and [1, 2] say, not [4] or [0], nor [x].", CONTEXT)
    assert [(number, passage.citation.path) for number, passage in used] == [(1, "a.md"), (2, "b.md"), (3, "c.md")]
    assert used_passages("Nothing.", CONTEXT) == []


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (answer(401, '{"error": {"message": "bad key"}}'), r"answered 401 \(bad key\): check HEADWATER_LLM_API_KEY"),
        (answer(404, '{"error": "no such model"}'), r"answered 404 \(no such model\): check HEADWATER_LLM_URL and"),
        (answer(500, "<html>\nbroken</html>", "text/html"), r"answered 500 \(<html> broken</html>\): see its own log"),
        (answer(200, "hello", "text/plain"), "no chat completion"),
        (answer(200, '{"choices": [{"message": 5}]}'), "no chat completion"),
        (stream(event("Her"), b"data: {broken\n\n"), "no chat completion"),
        (stream(event("Her")), "broke off in the middle"),
        (stream(b'data: {"error": {"message": "out of memory"}}\n\n'), "failed: out of memory"),
    ],
)
def test_each_fault_of_an_endpoint_is_one_sentence(endpoint: Endpoint, reply: Reply, sentence: str) -> None:
    endpoint.reply = reply
    with pytest.raises(ModelEndpointError, match=sentence) as caught:
        asked(endpoint)
    assert "\n" not in str(caught.value)


def test_an_endpoint_that_says_nothing_is_given_up(endpoint: Endpoint) -> None:
    endpoint.reply = lambda request: endpoint.ended.wait(20) and None
    with pytest.raises(ModelEndpointError, match=r"gave nothing for 0\.2 s"):
        asked(endpoint, llm_timeout_s=0.2)


def test_an_endpoint_that_is_not_there_is_one_sentence(endpoint: Endpoint) -> None:
    for url in ("http://127.0.0.1:9/v1", "no url at all"):
        with pytest.raises(ModelEndpointError, match="check HEADWATER_LLM_URL"):
            asked(endpoint, llm_url=url)


def test_without_an_endpoint_the_sentence_says_how_to_name_one() -> None:
    with pytest.raises(SettingsError, match="set HEADWATER_LLM_URL"):
        list(stream_answer(CONTEXT, Settings.load()))
