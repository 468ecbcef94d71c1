"""A corpus of JSON lines as a folder: every document is there, verbatim, under a path that tells its id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from headwater.errors import QueryError
from headwater.evaluation.corpus import id_of, path_of, read_corpus, write_corpus
from producer.rules import DEFAULT_DENIALS

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
DENIED = GitIgnoreSpec.from_lines(DEFAULT_DENIALS)


def corpus(directory: Path, *documents: object) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / "corpus.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return file


@given(ids)
def test_a_path_tells_the_id_and_is_one_that_any_file_system_takes(document: str) -> None:
    path = path_of(document)
    assert id_of(path) == document
    assert path.isascii()
    assert all(0 < len(part) <= 255 and part not in (".", "..") for part in path.split("/"))
    assert not path.startswith("/")


@pytest.mark.parametrize(
    "document",
    [".env", "a~", "~$a", "#a#", "x" * 197 + ".tmp", "id_rsa", "a/../b", "node_modules", "", "..", "a.pem", "4913"],
)
def test_no_id_looks_like_a_file_that_is_never_indexed(document: str) -> None:
    path = path_of(document)
    parts = path.split("/")
    assert not any(DENIED.match_file("/".join(parts[: n + 1])) for n in range(len(parts)))
    assert id_of(path) == document


def test_the_text_is_written_exactly_as_it_is(tmp_path: Path) -> None:
    # Given documents with every kind of blank, and one without a title
    odd = "  two\r\nlines\x0c\t and \u2028 an end \n\n"
    file = corpus(tmp_path / "set", {"_id": "a/1", "title": "T ", "text": odd}, {"_id": 2, "text": odd})
    # When they are written
    folder = write_corpus(file, tmp_path / "work")
    # Then title, blank line and text are there to the last character
    assert (folder / path_of("a/1")).read_bytes().decode() == f"T \n\n{odd}"
    assert (folder / path_of("2")).read_bytes().decode() == odd
    assert len(list(folder.rglob("*.txt"))) == 2


def test_a_corpus_is_written_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    file = corpus(tmp_path / "set", {"_id": "1", "text": "one"})
    folder = write_corpus(file, tmp_path / "work")
    written = (folder / path_of("1")).stat().st_mtime_ns
    assert write_corpus(file, tmp_path / "work") == folder
    assert (folder / path_of("1")).stat().st_mtime_ns == written
    changed = write_corpus(corpus(tmp_path / "set", {"_id": "1", "text": "two"}), tmp_path / "work")
    assert changed != folder
    assert (changed / path_of("1")).read_text() == "two"


def test_a_broken_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    file = corpus(tmp_path / "set", {"_id": "1", "text": "one"}, {"_id": "2"})
    with pytest.raises(QueryError, match=r"corpus.jsonl line 2: the field 'text' is missing: give a text"):
        write_corpus(file, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("documents", "sentence"),
    [
        ([{"_id": "1", "text": "a"}, {"_id": "1", "text": "b"}], "line 2: the id '1' comes a second time"),
        ([{"_id": "1", "text": "\ud800"}], "line 1: the field 'text' holds half of a character"),
        ([{"_id": None, "text": "a"}], "line 1: the field '_id' is missing"),
        ([{"_id": "1", "text": ["a"]}], "line 1: the field 'text' is ['a']: give a text"),
        (["a"], "line 1: it is no JSON object"),
    ],
)
def test_each_mistake_is_named_with_its_line(tmp_path: Path, documents: list[object], sentence: str) -> None:
    with pytest.raises(QueryError) as caught:
        list(read_corpus(corpus(tmp_path / "set", *documents)))
    assert sentence in str(caught.value)
