"""``headwater context`` and ``headwater ask`` as a person runs them: real processes, a real folder, a real endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from driver import Headwater
from word_embedder import word_environment

NOTES = {
    "pumps.md": "# Pumps\n\nThe blue pump drains the cellar.\n\n## Care\n\nOil the blue pump each spring.\n",
    "roof.txt": "The roof was tiled anew.\n",
}
QUESTION = "what drains the cellar"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    """A folder that is followed."""
    directory = tmp_path_factory.mktemp("ask")
    made = Headwater(directory / "folder", directory / "state")
    made.environment.update(word_environment())
    made.folder.mkdir()
    for name, text in NOTES.items():
        (made.folder / name).write_text(text)
    made.up()
    yield made
    made.kill()


@pytest.fixture
def run(service: Headwater) -> Iterator[Headwater]:
    """The service as every test finds it."""
    usual = dict(service.environment)
    yield service
    service.environment = usual


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and what it was asked; it knows the model "m" only, and says the same to everybody."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if asked[-1]["model"] == "m" else 404)
            self.end_headers()
            for piece in ("The blue pump", " [1]."):
                self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n" if "roof" not in asked[-1]["messages"][0]["content"][-40:] else b"")

        def log_message(self, *args: Any) -> None:
            """Nothing to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    server.server_close()
    thread.join(10)


def context(run: Headwater, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.run("context", QUESTION, "--json", *arguments).stdout)
    return found


def test_an_answer_is_printed_with_the_places_that_it_cites(
    run: Headwater, endpoint: tuple[str, list[dict[str, Any]]]
) -> None:
    url, asked = endpoint
    # Given no endpoint: the passages, and one sentence
    done = run.run("ask", QUESTION)
    assert "The blue pump drains the cellar." in done.stdout
    assert "set HEADWATER_LLM_URL" in done.stderr
    assert json.loads(run.run("ask", QUESTION, "--json").stdout)["answer"] is None
    # When one is named
    run.environment |= {"HEADWATER_LLM_URL": url, "HEADWATER_LLM_MODEL": "m", "HEADWATER_LLM_API_KEY": "sk-secret"}
    lines = run.run("ask", QUESTION).stdout.splitlines()
    first = context(run)["passages"][0]["citation"]["path"]
    assert lines[0] == "The blue pump [1]."
    assert lines[1].startswith(f"[1] {first}:")
    assert asked[0]["messages"][0]["content"] == context(run)["prompt"]
    answer = json.loads(run.run("ask", QUESTION, "--json").stdout)
    assert (answer["answer"], [cited["number"] for cited in answer["citations"]]) == ("The blue pump [1].", [1])
    # Then the key is shown nowhere
    assert "sk-secret" not in run.run("config", "show").stdout


#: arguments, environment, exit status, what the sentence says
MISTAKES: list[tuple[list[str], dict[str, str], int, str]] = [
    (["ask", "who tiled the roof"], {}, 75, "broke off in the middle"),
    (["ask", QUESTION], {"HEADWATER_LLM_MODEL": "other"}, 75, "whether it has the model 'other'"),
    (["ask", QUESTION], {"HEADWATER_LLM_URL": "http://127.0.0.1:9/v1"}, 75, "cannot be reached"),
    (["ask", QUESTION], {"HEADWATER_LLM_API_KEY": "a b"}, 78, "HEADWATER_LLM_API_KEY"),
    (["ask", " "], {}, 64, "the text to search for is empty"),
    (["context", QUESTION, "--max-tokens", "0"], {}, 64, "max_tokens is 0"),
    (["context", QUESTION, "--tokenizer", "nowhere.json"], {}, 64, "the tokenizer 'nowhere.json' cannot be loaded"),
]


def test_what_goes_wrong_is_one_sentence_on_a_line_of_its_own(
    run: Headwater, endpoint: tuple[str, list[dict[str, Any]]]
) -> None:
    usual = {**run.environment, "HEADWATER_LLM_URL": endpoint[0], "HEADWATER_LLM_MODEL": "m"}
    for arguments, environment, status, sentence in MISTAKES:
        run.environment = {**usual, **environment}
        done = run.run(*arguments, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        [line] = done.stderr.splitlines()
        assert line.startswith("headwater: ")
        assert sentence in line
        assert not done.stdout or done.stdout.endswith("\n")


def test_passages_and_their_citations_are_the_same_with_a_service_and_without(run: Headwater) -> None:
    # Given the passages that a service gives
    served = context(run)
    assert {p["citation"]["path"] for p in served["passages"]} == set(NOTES)
    assert {p["citation"]["verified"] for p in served["passages"]} == {True}
    assert served["text"] in run.run("context", QUESTION).stdout
    assert run.run("context", QUESTION, "--prompt").stdout.strip().endswith(f"Question: {QUESTION}")
    assert context(run, "--max-tokens", "20")["tokens"] <= 20
    # When nothing runs any more, then the index itself gives the same, named by its state directory alone
    assert run.stop() in (0, 130)
    assert context(run) == served
    # And what has changed since is told
    (run.folder / "roof.txt").write_text("Thatch.\n")
    assert {p["citation"]["path"]: p["citation"]["verified"] for p in context(run)["passages"]}["roof.txt"] is False
