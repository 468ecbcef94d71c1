"""Data sets with judged questions or scored pairs of texts, each kind recognised by looking.

    a directory with corpus.jsonl      BEIR's layout (Thakur et al. 2021): queries.jsonl and qrels/test.tsv beside it
    a directory with questions.jsonl   questions whose answers are spans of the files in the one folder beside it
    a file with two columns            a person's own questions: question <TAB> path[#Lx-Ly], about files of a folder
    a file with three columns          pairs of texts: score <TAB> text <TAB> text (semantic textual similarity)

Every mistake in one is a QueryError of one sentence that names the file, the line and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headwater.errors import QueryError
from headwater.evaluation.asked import read_asked
from headwater.evaluation.corpus import path_of, read_corpus
from headwater.evaluation.measures import Span
from headwater.evaluation.question import Question
from headwater.evaluation.records import Line, Record, read_lines, read_records, read_text

__all__ = ["DataSet", "Pair", "PairSet", "QuestionSet", "first", "load_set"]

Kind = Literal["documents", "spans", "questions"]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions about the documents of a folder. ``corpus``: the file that the folder is still to be written from."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    folder: Path | None = None
    corpus: Path | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts and how alike people found them (any scale, higher is more alike)."""

    score: float
    one: str
    other: str


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs of texts that people scored."""

    name: str
    pairs: tuple[Pair, ...]


DataSet = QuestionSet | PairSet


def load_set(path: Path, folder: Path | None = None) -> DataSet:
    """Read a data set; ``folder`` holds the documents that a file of questions is about. Raises QueryError."""
    if path.is_dir():
        return _load_directory(path)
    if not path.is_file():
        raise QueryError(f"there is no data set {path}: give a directory or a file that exists")
    first_line = next(_uncommented(path), None)
    if first_line is None:
        raise QueryError(f"{path} holds no question: write lines of question, tab, path")
    if first_line.text.count("\t") == 2:
        return _load_pairs(path)
    if folder is None:
        raise QueryError(f"{path} holds questions about the files of a folder: name it with --folder")
    return QuestionSet(path.stem, "questions", read_asked(_uncommented(path), folder), folder)


def first(dataset: DataSet, most: int | None) -> DataSet:
    """The same with its first questions or pairs only."""
    if isinstance(dataset, PairSet):
        return replace(dataset, pairs=dataset.pairs[:most])
    return replace(dataset, questions=dataset.questions[:most])


def _load_directory(path: Path) -> QuestionSet:
    if (path / "corpus.jsonl").exists():
        return _load_beir(path)
    if (path / "questions.jsonl").exists():
        return _load_spans(path)
    raise QueryError(
        f"{path} is no data set: it needs corpus.jsonl, queries.jsonl and qrels/test.tsv (the layout of BEIR), "
        "or questions.jsonl and a folder of files"
    )


# -- the layout of BEIR ---------------------------------------------------------------------------------------


def _load_beir(path: Path) -> QuestionSet:
    queries = _read_queries(path / "queries.jsonl")
    own, documents = _survey(path / "corpus.jsonl", queries)
    grades = _read_qrels(path / "qrels" / "test.tsv", queries, documents)
    # a question with no relevant document says nothing about a ranking
    questions = tuple(
        Question(query, text, grades[query], own=own.get(query))
        for query, text in queries.items()
        if any(grade > 0 for grade in grades.get(query, {}).values())
    )
    if not questions:
        raise QueryError(f"{path / 'qrels' / 'test.tsv'} judges no document relevant: give grades above 0")
    return QuestionSet(path.resolve().name, "documents", questions, corpus=path / "corpus.jsonl")


def _read_queries(file: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for record in read_records(file):
        query = record.text("_id")
        if query in queries:
            raise record.wrong(f"the id {query!r} comes a second time: give each query its own")
        queries[query] = _question(record)
    return queries


def _survey(file: Path, queries: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """Paths of documents that are a query themselves, by query, and all ids.

    In ArguAna and Quora each query is a document of the corpus under the same id, and BEIR leaves it out of the
    ranking. Elsewhere equal ids mean nothing, so the text decides.
    """
    own: dict[str, str] = {}
    documents: set[str] = set()
    for document in read_corpus(file):
        documents.add(document.id)
        if document.id in queries and queries[document.id].strip() in document.content:
            own[document.id] = path_of(document.id)
    return own, documents


def _read_qrels(file: Path, queries: Mapping[str, str], documents: set[str]) -> dict[str, dict[str, int]]:
    """Grades by query and by path."""
    grades: dict[str, dict[str, int]] = {}
    for line in read_lines(file):
        columns = line.text.split("\t")
        if line.number == 1 and columns[-1].strip() == "score":
            continue
        query, document, grade = _judgement(line, columns)
        if query not in queries:
            raise line.wrong(f"there is no query {query!r} in queries.jsonl: add it, or remove the line")
        if document not in documents:
            raise line.wrong(f"there is no document {document!r} in corpus.jsonl: add it, or remove the line")
        grades.setdefault(query, {})[path_of(document)] = grade
    return grades


def _judgement(line: Line, columns: list[str]) -> tuple[str, str, int]:
    if len(columns) != 3:
        raise line.wrong(f"it has {len(columns)} columns: give query, document and grade with tabs between them")
    try:
        return columns[0], columns[1], int(columns[2])
    except ValueError:
        raise line.wrong(f"the grade is {columns[2]!r}: give a whole number") from None


# -- questions with spans -------------------------------------------------------------------------------------


def _load_spans(path: Path) -> QuestionSet:
    folder = _only_folder(path)
    texts: dict[str, str] = {}
    questions = [_span_question(record, folder, texts) for record in read_records(path / "questions.jsonl")]
    if not questions:
        raise QueryError(f"{path / 'questions.jsonl'} holds no question: write one JSON object per line")
    return QuestionSet(path.resolve().name, "spans", tuple(questions), folder)


def _only_folder(path: Path) -> Path:
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(folders) != 1:
        found = ", ".join(each.name for each in folders) or "none"
        raise QueryError(f"{path} must hold the documents in exactly one folder (there is {found}): leave only that")
    return folders[0]


def _span_question(record: Record, folder: Path, texts: dict[str, str]) -> Question:
    path = _span_path(record, folder)
    if path not in texts:
        texts[path] = read_text(folder / path)
    spans = tuple(Span(path, start, end) for start, end in _ends(record))
    for span in spans:
        if not 0 <= span.start < span.end <= len(texts[path]):
            raise record.wrong(
                f"characters {span.start} to {span.end} are not in {path}, which has {len(texts[path])}: correct them"
            )
    number = record.text("_id", default=str(record.line.number))
    return Question(number, _question(record), {path: 1}, spans)


def _question(record: Record) -> str:
    text = record.text("text")
    if not text.strip():
        raise record.wrong("the question is empty: give some words")
    return text


def _span_path(record: Record, folder: Path) -> str:
    """The path that ``file`` names, or ``doc``, which may be without the ``.md`` at its end."""
    name = record.text("file" if "file" in record.values else "doc")
    candidates = (name,) if "file" in record.values else (name, f"{name}.md")
    found = next((each for each in candidates if (folder / each).is_file()), None)
    if found is None:
        raise record.wrong(f"there is no file {name!r} in {folder.name}: correct its name, or add it")
    return found


def _ends(record: Record) -> Iterable[tuple[int, int]]:
    """Start and end of each span: of ``answer`` as [start, end], else of ``references`` as a list of objects."""
    answer, references = record.values.get("answer"), record.values.get("references")
    try:
        if answer is not None:
            start, end = answer
            spans = [(start, end)]
        else:
            spans = [(each["start"], each["end"]) for each in references or ()]
    except (TypeError, ValueError, KeyError):
        spans = []
    if not spans or not all(type(end) is int for ends in spans for end in ends):
        raise record.wrong('it names no span: give "answer": [start, end], or "references" with start and end')
    return spans


# -- files of lines -------------------------------------------------------------------------------------------


def _uncommented(path: Path) -> Iterator[Line]:
    return (line for line in read_lines(path) if not line.text.startswith("#"))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _load_pairs(path: Path) -> PairSet:
    pairs = tuple(_pair(line) for line in _uncommented(path))
    if len({pair.score for pair in pairs}) < 2:
        raise QueryError(f"{path} gives every pair the same score: without an order there is nothing to compare")
    return PairSet(path.stem, pairs)


def _pair(line: Line) -> Pair:
    columns = line.text.split("\t")
    score = _number(columns[0])
    if len(columns) != 3 or score is None or score != score:
        raise line.wrong("it is no pair: give a score and two texts with tabs between them")
    if not all(text.strip() for text in columns[1:]):
        raise line.wrong("a text is empty: give some words")
    return Pair(score, columns[1], columns[2])
