"""Answers of a language model: a real HTTP server on loopback that speaks the streaming protocol, and its faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headwater.ask import ChatEndpoint, Cited, answer, stream_answer, used_passages
from headwater.context import Citation, Context, Passage
from headwater.errors import ModelEndpointError, SettingsError
from headwater.settings import Settings

Reply = Callable[[BaseHTTPRequestHandler], None]
DONE = b"data: [DONE]\n\n"


def passage(path: str) -> Passage:
    citation = Citation(path, 0, 4, 1, 1, None, None, (), 1, verified=True)
    return Passage("text", citation, 1.0, 3)


CONTEXT = Context("Who waits?", (passage("a.md"), passage("b.md"), passage("c.md")), 9, 100, 60)


def event(text: str | None, finish: str | None = None) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n".encode()


def stream(*parts: bytes, kind: str = "text/event-stream; charset=utf-8") -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.end_headers()
        for part in parts:
            request.wfile.write(part)

    return reply


def whole(status: int, body: str, kind: str = "application/json") -> Reply:
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


def cut_short(request: BaseHTTPRequestHandler) -> None:
    """More is promised than comes."""
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.send_header("Content-Length", "100000")
    request.end_headers()
    request.wfile.write(event("Her"))


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
    return "".join(stream_answer(CONTEXT, ChatEndpoint.of(settings)))


def test_an_answer_comes_as_it_is_written_and_the_prompt_goes_out_whole(endpoint: Endpoint) -> None:
    parts = [event("Herons"), b": a comment\n\n", event(" wait [1, 3]."), b'data: {"choices": []}\n\n']
    endpoint.reply = stream(*parts, b"data: [DONE]\n\n")
    assert asked(endpoint, llm_api_key="secret") == "Herons wait [1, 3]."
    [(path, key, body)] = endpoint.asked
    assert (path, key, body["model"], body["stream"]) == ("/v1/chat/completions", "Bearer secret", "m", True)
    assert body["messages"] == [{"role": "user", "content": CONTEXT.prompt}]


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_endpoint_that_does_not_stream_is_understood_too(endpoint: Endpoint, kind: str, indent: int | None) -> None:
    endpoint.reply = whole(200, json.dumps({"choices": [{"message": {"content": "Herons."}}]}, indent=indent), kind)
    assert asked(endpoint) == "Herons."


@pytest.mark.parametrize(
    "parts",
    [
        # JSON lets a text hold these; only a line feed ends a line of the stream
        (event("Her\u2028ons\x85 wait\x0b."), DONE),
        # not all servers send [DONE]: the model's own word that it has finished is enough
        (event("Her\u2028ons\x85 wait\x0b."), event(None, "stop")),
        (event("Her\u2028ons"), event("\x85 wait\x0b.", "length"), b'data: {"choices": [], "usage": {}}\n\n'),
        (b"event: message\r\nid: 1\r\nretry: 5\r\n", event("Her\u2028ons\x85 wait\x0b.").replace(b"\n", b"\r\n"), DONE),
        tuple(bytes([byte]) for byte in event("Her\u2028ons\x85 wait\x0b.") + DONE),
        (event("Her\u2028ons\x85 wait\x0b."), DONE, b"data: whatever comes behind it\n\n"),
    ],
)
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/json"])
def test_a_stream_is_read_as_it_is_meant(endpoint: Endpoint, parts: tuple[bytes, ...], kind: str) -> None:
    endpoint.reply = stream(*parts, kind=kind)
    assert asked(endpoint) == "Her\u2028ons\x85 wait\x0b."


def test_pieces_come_before_the_answer_is_whole(endpoint: Endpoint) -> None:
    # Given an endpoint that waits between two pieces until the first has been read
    read = threading.Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        stream(event("Herons"))(request)
        request.wfile.flush()
        assert read.wait(20)
        request.wfile.write(event(" wait [2].") + DONE)

    endpoint.reply = reply
    parts = answer(CONTEXT, ChatEndpoint(endpoint.url, "m"))
    # Then the first comes alone, and the passages that are cited come last
    assert next(parts) == "Herons"
    read.set()
    assert list(parts) == [" wait [2].", Cited(2, CONTEXT.passages[1])]


def test_the_passages_that_an_answer_cites_are_known_by_their_numbers() -> None:
    used = used_passages("As [3] and [1, 2] say, not [4] or [0], nor [x].", CONTEXT)
    assert [(number, passage.citation.path) for number, passage in used] == [(1, "a.md"), (2, "b.md"), (3, "c.md")]
    assert used_passages("Nothing.", CONTEXT) == []


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (whole(401, '{"error": {"message": "bad key"}}'), r"answered 401 \(bad key\): check HEADWATER_LLM_API_KEY"),
        (whole(404, '{"error": "no such model"}'), r"answered 404 \(no such model\): check HEADWATER_LLM_URL and"),
        (whole(429, "{}"), r"answered 429 .* asked too often"),
        (whole(307, ""), "answered 307"),
        (whole(500, "<html>\nbroken</html>", "text/html"), r"answered 500 \(<html> broken</html>\): see its own log"),
        (whole(200, "hello", "text/plain"), "no chat completion"),
        (whole(200, ""), r"no chat completion \(nothing at all\)"),
        (whole(200, "[" * 100_000), "no chat completion"),
        (whole(200, '{"choices": [{"message": 5}]}'), "no chat completion"),
        (whole(200, '{"choices": {"a": 1}}'), "no chat completion"),
        (whole(200, '{"choices": [{"message": {"content": ""}}]}'), "without a word"),
        (stream(b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'), "no chat completion"),
        (stream(b'data: {"choices": [5]}\n\n'), "no chat completion"),
        (stream(b"data: " + b"x" * (9 << 20)), "no chat completion"),
        (stream(event(None)), "broke off in the middle"),
        (stream(event(None), DONE), "without a word"),
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


def test_a_connection_that_ends_early_is_one_sentence(endpoint: Endpoint) -> None:
    endpoint.reply = cut_short
    with pytest.raises(ModelEndpointError, match=r"broke off in the middle of its answer .*: ask again"):
        asked(endpoint)


def test_an_endpoint_that_stops_in_the_middle_is_given_up(endpoint: Endpoint) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        stream(event("Her"))(request)
        request.wfile.flush()
        endpoint.ended.wait(20)

    endpoint.reply = reply
    with pytest.raises(ModelEndpointError, match=r"gave nothing for 0\.2 s"):
        asked(endpoint, llm_timeout_s=0.2)


def test_neither_key_nor_password_stands_in_a_message(endpoint: Endpoint) -> None:
    endpoint.reply = whole(401, '{"error": {"message": "the key sk-secret is unknown"}}')
    with pytest.raises(ModelEndpointError, match=r"the key \*\*\* is unknown"):
        asked(endpoint, llm_api_key="sk-secret\n")
    assert endpoint.asked[0][1] == "Bearer sk-secret"
    with pytest.raises(ModelEndpointError, match=r"me:\*\*\*@127") as caught:
        asked(endpoint, llm_url="http://me:hush@127.0.0.1:9/v1")
    assert "hush" not in str(caught.value)
    for key in ("sk-s\u00e9", "sk\nx", "two words"):
        with pytest.raises(SettingsError, match="HEADWATER_LLM_API_KEY") as refused:
            asked(endpoint, llm_api_key=key)
        assert key not in str(refused.value)
    assert "sk-secret" not in repr(ChatEndpoint(endpoint.url, "m", "sk-secret"))


def test_a_proxy_of_the_environment_is_not_for_an_endpoint_of_this_machine(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint.reply = stream(event("Herons."), DONE)
    assert asked(endpoint) == "Herons."


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
        ChatEndpoint.of(Settings.load())
