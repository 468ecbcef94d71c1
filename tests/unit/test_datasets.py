"""Data sets of each kind are recognised and read; each foreseeable mistake is one sentence that names file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.errors import QueryError
from headwater.evaluation.asked import lines_span
from headwater.evaluation.corpus import path_of
from headwater.evaluation.datasets import DataSet, Pair, PairSet, QuestionSet, first, load_set
from headwater.evaluation.measures import Span

QRELS = "query-id\tcorpus-id\tscore\n"


def json_lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """Two documents and two queries, one of which has an answer."""
    root = tmp_path / "tiny"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(
        json_lines({"_id": "a/1", "title": "T", "text": "first"}, {"_id": "q2", "title": "", "text": "more second"})
    )
    (root / "queries.jsonl").write_text(json_lines({"_id": "q1", "text": "one?"}, {"_id": "q2", "text": "second"}))
    (root / "qrels" / "test.tsv").write_text(QRELS + "q1\ta/1\t2\nq1\tq2\t0\n")
    return root


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    root = tmp_path / "spans"
    (root / "files").mkdir(parents=True)
    (root / "files" / "x.md").write_text("Grüße an alle.")
    (root / "questions.jsonl").write_text(
        json_lines(
            {"_id": "1", "text": "who?", "file": "x.md", "answer": [9, 13]},
            {"text": "what?", "doc": "x", "references": [{"start": 0, "end": 5}, {"start": 6, "end": 8}]},
        )
    )
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    (root / "deep").mkdir(parents=True)
    (root / "a.md").write_text("one\ntwo\n  three\n\n")
    (root / "deep" / "b#L1.md").write_text("b")
    return root


def questions(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "asked.tsv"
    file.write_text(text)
    return file


def asked(dataset: DataSet) -> QuestionSet:
    assert isinstance(dataset, QuestionSet)
    return dataset


# -- the layout of BEIR ---------------------------------------------------------------------------------------


def test_a_directory_in_beirs_layout_is_read(beir: Path) -> None:
    found = asked(load_set(beir))
    assert (found.name, found.kind, found.corpus) == ("tiny", "documents", beir / "corpus.jsonl")
    assert [(q.id, q.text, q.own) for q in found.questions] == [("q1", "one?", None)]
    assert found.questions[0].grades == {path_of("a/1"): 2, path_of("q2"): 0}


def test_a_query_that_is_a_document_itself_is_known_as_such_by_id_and_text(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").write_text(QRELS + "q1\ta/1\t1\nq2\ta/1\t1\n")
    assert [q.own for q in asked(load_set(beir)).questions] == [None, path_of("q2")]
    # And not by the id alone, which means nothing in many sets
    (beir / "queries.jsonl").write_text(json_lines({"_id": "q1", "text": "one?"}, {"_id": "q2", "text": "other"}))
    assert [q.own for q in asked(load_set(beir)).questions] == [None, None]


def test_qrels_may_be_without_a_heading(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").write_text("q1\ta/1\t1\n")
    assert len(asked(load_set(beir)).questions) == 1


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("queries.jsonl", None, "queries.jsonl cannot be read (No such file or directory): give a file that can"),
        ("qrels/test.tsv", None, "qrels/test.tsv cannot be read (No such file or directory): give a file that can"),
        ("queries.jsonl", '{"_id": "q1", "text": "a"}\n{"_id"\n', "queries.jsonl line 2: it is not JSON ("),
        ("queries.jsonl", json_lines({"_id": "q1", "text": " "}), "queries.jsonl line 1: the question is empty"),
        ("queries.jsonl", json_lines({"_id": "q1", "text": "a"}) * 2, "line 2: the id 'q1' comes a second time"),
        ("corpus.jsonl", "[]\n", "corpus.jsonl line 1: it is no JSON object: give one object per line"),
        ("qrels/test.tsv", QRELS + "q1\tz\t1\n", "line 2: there is no document 'z' in corpus.jsonl: add it, or remove"),
        (
            "qrels/test.tsv",
            QRELS + "q9\ta/1\t1\n",
            "line 2: there is no query 'q9' in queries.jsonl: add it, or remove",
        ),
        ("qrels/test.tsv", QRELS + "q1\ta/1\tgood\n", "line 2: the grade is 'good': give a whole number"),
        ("qrels/test.tsv", QRELS + "q1 0 a/1 1\n", "line 2: it has 1 columns: give query, document and grade"),
        ("qrels/test.tsv", QRELS + "q1\ta/1\t0\n", "test.tsv judges no document relevant: give grades above 0"),
        ("qrels/test.tsv", "", "test.tsv judges no document relevant: give grades above 0"),
    ],
)
def test_a_mistake_in_beirs_layout_is_named(beir: Path, file: str, text: str | None, sentence: str) -> None:
    (beir / file).unlink() if text is None else (beir / file).write_text(text)
    assert sentence in refusal(lambda: load_set(beir))


def test_bytes_that_are_not_utf8_are_named_with_their_line(beir: Path) -> None:
    (beir / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "a"}\n{"_id": "caf\xe9", "text": "a"}\n')
    assert "queries.jsonl line 2: it is not UTF-8: convert the file" in refusal(lambda: load_set(beir))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(QueryError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- questions with spans -------------------------------------------------------------------------------------


def test_spans_are_characters_of_the_files(spans: Path) -> None:
    found = asked(load_set(spans))
    assert (found.kind, found.folder) == ("spans", spans / "files")
    assert [q.id for q in found.questions] == ["1", "2"]
    assert [q.references for q in found.questions] == [
        (Span("x.md", 9, 13),),
        (Span("x.md", 0, 5), Span("x.md", 6, 8)),
    ]
    assert [(q.grades, q.text) for q in found.questions] == [({"x.md": 1}, "who?"), ({"x.md": 1}, "what?")]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (
            {"file": "y.md", "answer": [0, 1]},
            "questions.jsonl line 1: there is no file 'y.md' in files: correct its name",
        ),
        ({"doc": "y", "answer": [0, 1]}, "line 1: there is no file 'y' in files"),
        ({"answer": [0, 1]}, "line 1: the field 'doc' is missing"),
        ({"file": "x.md", "answer": [9, 99]}, "line 1: characters 9 to 99 are not in x.md, which has 14: correct them"),
        ({"file": "x.md", "answer": [5, 5]}, "line 1: characters 5 to 5 are not in x.md"),
        ({"file": "x.md", "answer": [5]}, "line 1: it names no span: give "),
        ({"file": "x.md", "answer": ["a", "b"]}, "line 1: it names no span: give "),
        ({"file": "x.md", "references": [{"start": 1}]}, "line 1: it names no span: give "),
        ({"file": "x.md", "references": []}, "line 1: it names no span: give "),
        ({"file": "x.md"}, "line 1: it names no span: give "),
    ],
)
def test_a_mistake_in_a_question_is_named(spans: Path, record: dict[str, object], sentence: str) -> None:
    (spans / "questions.jsonl").write_text(json_lines({"text": "q", **record}))
    assert sentence in refusal(lambda: load_set(spans))


def test_the_documents_of_spans_are_in_one_folder(spans: Path) -> None:
    (spans / "more").mkdir()
    assert "in exactly one folder (there is files, more): leave only that" in refusal(lambda: load_set(spans))


def test_no_question_at_all_is_named(spans: Path, tmp_path: Path) -> None:
    (spans / "questions.jsonl").write_text("\n")
    assert "questions.jsonl holds no question" in refusal(lambda: load_set(spans))
    assert "asked.tsv holds no question" in refusal(lambda: load_set(questions(tmp_path, "# nothing yet\n\n")))


# -- a person's own questions ---------------------------------------------------------------------------------


def test_questions_name_files_and_lines(tmp_path: Path, folder: Path) -> None:
    file = questions(
        tmp_path, "# mine\n\nwhere?\ta.md\nwhich?\ta.md#L2-L3\nwhich?\tdeep/b#L1.md\nhow?\t./deep/b#L1.md#L1\n"
    )
    found = asked(load_set(file, folder))
    assert (found.name, found.kind, found.folder) == ("asked", "questions", folder)
    assert [(q.text, dict(q.grades), q.references) for q in found.questions] == [
        ("where?", {"a.md": 1}, ()),
        ("which?", {"a.md": 1, "deep/b#L1.md": 1}, (Span("a.md", 4, 15),)),
        ("how?", {"deep/b#L1.md": 1}, (Span("deep/b#L1.md", 0, 1),)),
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("q\tnone.md", "line 2: there is no file 'none.md' in "),
        ("q\tnone.md#L3", "line 2: there is no file 'none.md' in "),
        ("q\t../asked.tsv", "line 2: there is no file '../asked.tsv' in "),
        ("q\tdeep", "line 2: there is no file 'deep' in "),
        ("q\ta.md#L4-L5", "line 2: a.md has no text in the lines L4-L5: correct them"),
        ("q\ta.md#L3-L2", "line 2: a.md has no text in the lines L3-L2: correct them"),
        ("q\ta.md#L0", "line 2: a.md has no text in the lines L0: correct them"),
        ("q\ta.md#L4", "line 2: a.md has no text in the lines L4: correct them"),
        ("no tab here", "line 2: it is no question: write the question, a tab, and the path"),
        ("q\t", "line 2: it is no question: write the question, a tab, and the path"),
    ],
)
def test_a_mistake_in_a_file_of_questions_is_named(tmp_path: Path, folder: Path, line: str, sentence: str) -> None:
    file = questions(tmp_path, f"# mine\n{line}\n")
    assert f"asked.tsv {sentence}" in refusal(lambda: load_set(file, folder))


def test_lines_of_a_file_that_is_not_utf8_cannot_be_named(tmp_path: Path, folder: Path) -> None:
    (folder / "a.md").write_bytes(b"caf\xe9\n")
    message = refusal(lambda: load_set(questions(tmp_path, "q\ta.md#L1\n"), folder))
    assert message.endswith("a.md is not UTF-8 (byte 3): convert it")


def test_a_file_of_questions_needs_its_folder(tmp_path: Path, folder: Path) -> None:
    file = questions(tmp_path, "q\ta.md\n")
    assert "holds questions about the files of a folder: name it with --folder" in refusal(lambda: load_set(file))
    assert "of --folder does not exist" in refusal(lambda: load_set(file, tmp_path / "nowhere"))


def test_lines_are_characters_without_the_blanks_around() -> None:
    text = "a\n\n  b  \r\nc"
    assert lines_span("p", text, 1, 1) == Span("p", 0, 1)
    assert lines_span("p", text, 2, 2) is None
    assert lines_span("p", text, 2, 3) == Span("p", 5, 6)
    assert lines_span("p", text, 3, 4) == Span("p", 5, 11)
    assert lines_span("p", text, 4, 5) is None
    assert lines_span("p", "", 1, 1) is None


# -- scored pairs ---------------------------------------------------------------------------------------------


def test_a_file_with_three_columns_holds_scored_pairs(tmp_path: Path) -> None:
    found = load_set(questions(tmp_path, "# mine\n4.5\ta cat\ta kitten\n\n0\ta cat\ta stone\n"))
    assert found == PairSet("asked", (Pair(4.5, "a cat", "a kitten"), Pair(0.0, "a cat", "a stone")))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\ta\tb\n2\ta\n", "line 2: it is no pair: give a score and two texts with tabs between them"),
        ("high\ta\tb\n", "line 1: it is no pair"),
        ("nan\ta\tb\n", "line 1: it is no pair"),
        ("1\ta\t \n", "line 1: a text is empty: give some words"),
        ("1\ta\tb\n1\ta\tc\n", "gives every pair the same score"),
    ],
)
def test_a_mistake_in_scored_pairs_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(lambda: load_set(questions(tmp_path, text)))


# -- which is which -------------------------------------------------------------------------------------------


def test_what_is_no_data_set_is_told_what_one_needs(tmp_path: Path) -> None:
    assert "nothing.tsv: give a directory or a file that exists" in refusal(lambda: load_set(tmp_path / "nothing.tsv"))
    message = refusal(lambda: load_set(tmp_path))
    assert "is no data set: it needs corpus.jsonl, queries.jsonl and qrels/test.tsv" in message


def test_only_the_first_questions_may_be_asked(spans: Path, tmp_path: Path) -> None:
    assert [q.id for q in asked(first(load_set(spans), 1)).questions] == ["1"]
    assert len(asked(first(load_set(spans), None)).questions) == 2
    pairs = first(load_set(questions(tmp_path, "1\ta\tb\n2\ta\tc\n")), 1)
    assert isinstance(pairs, PairSet) and len(pairs.pairs) == 1
