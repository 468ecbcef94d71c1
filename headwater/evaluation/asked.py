"""A person's own questions: ``question <TAB> path`` or ``question <TAB> path#Lx-Ly``, one per line.

The same question in several lines has several answers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from headwater.errors import QueryError
from headwater.evaluation.measures import Span
from headwater.evaluation.question import Question
from headwater.evaluation.records import Line, read_text

__all__ = ["lines_span", "read_asked"]

_PLACE = re.compile(r"(?P<path>.+?)(?:#L(?P<first>\d+)(?:-L?(?P<last>\d+))?)?\s*")
_FORM = "write the question, a tab, and the path of the file that answers it, with '#L10-L20' for its lines if you like"


def read_asked(lines: Iterable[Line], folder: Path) -> tuple[Question, ...]:
    """The questions in the order of their first lines. Raises QueryError for a path or lines that are not there."""
    if not folder.is_dir():
        raise QueryError(f"the folder {folder} of --folder does not exist: name the one that the questions are about")
    answers: dict[str, tuple[dict[str, int], list[Span]]] = {}
    for line in lines:
        text, place = _columns(line)
        grades, spans = answers.setdefault(text, ({}, []))
        path, found = _answer(line, place, folder)
        grades[path] = 1
        spans += found
    return tuple(
        Question(str(number), text, grades, tuple(spans))
        for number, (text, (grades, spans)) in enumerate(answers.items(), start=1)
    )


def _columns(line: Line) -> tuple[str, str]:
    columns = line.text.split("\t")
    if len(columns) != 2 or not all(column.strip() for column in columns):
        raise line.wrong(f"it is no question: {_FORM}")
    return columns[0].strip(), columns[1].strip()


def _answer(line: Line, place: str, folder: Path) -> tuple[str, list[Span]]:
    """The path relative to the folder, and the span of the lines if they are named."""
    if (path := _inside(place, folder)) is not None:
        return path, []  # a file whose own name ends like lines
    match = _PLACE.fullmatch(place)
    path = None if match is None else _inside(match["path"], folder)
    if match is None or path is None:
        name = place if match is None else match["path"]
        raise line.wrong(f"there is no file {name!r} in {folder}: give its path relative to that folder")
    if match["first"] is None:
        return path, []
    span = lines_span(path, read_text(folder / path), int(match["first"]), int(match["last"] or match["first"]))
    if span is None:
        raise line.wrong(f"{path} has no text in the lines {place.rpartition('#')[2]}: correct them")
    return path, [span]


def _inside(name: str, folder: Path) -> str | None:
    """The path relative to the folder, with ``/``, of a file in it."""
    root = os.path.realpath(folder)
    full = os.path.normpath(os.path.join(root, name))
    if not full.startswith(root.rstrip("/") + "/") or not os.path.isfile(full):
        return None
    return os.path.relpath(full, root)


def lines_span(path: str, text: str, first: int, last: int) -> Span | None:
    """The characters of lines ``first`` to ``last`` (from 1) without blanks at both ends; None if there are none."""
    starts = list(_line_starts(text))
    if not 1 <= first <= last < len(starts):
        return None
    start, end = starts[first - 1], starts[last]
    inner = text[start:end]
    stripped = inner.strip()
    start += len(inner) - len(inner.lstrip())
    return Span(path, start, start + len(stripped)) if stripped else None


def _line_starts(text: str) -> Iterator[int]:
    """Where each line begins, and after the last one where it ends."""
    yield 0
    yield from (match.end() for match in re.finditer("\n", text))
    if not text.endswith("\n"):
        yield len(text)
