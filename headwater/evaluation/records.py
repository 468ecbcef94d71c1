"""Lines of a data set's files; what is wrong with one is a sentence that names file, line and cure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.errors import QueryError

__all__ = ["Line", "Record", "read_lines", "read_records", "read_text"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a text file, without its end. ``number`` counts from 1."""

    file: Path
    number: int
    text: str

    def wrong(self, what: str) -> QueryError:
        """The error for this line: ``what`` says what is wrong and what to do."""
        return QueryError(f"{self.file} line {self.number}: {what}")


@dataclass(frozen=True, slots=True)
class Record:
    """One line that holds a JSON object."""

    line: Line
    values: dict[str, Any]

    def text(self, name: str, *, default: str | None = None) -> str:
        """A field that must be a text. A number is taken as its digits: some sets write ids so."""
        value = self.values.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.line.wrong(f"the field {name!r} is {_shown(value)}: give a text")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.line.wrong(f"the field {name!r} holds half of a character (a lone surrogate): give whole ones")
        return value

    def wrong(self, what: str) -> QueryError:
        return self.line.wrong(what)


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]


def read_text(path: Path) -> str:
    """A file's text, each character as it stands, line ends included; a byte order mark is no part of it. Raises
    QueryError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise QueryError(f"{path} is not UTF-8 (byte {error.start}): convert it") from None
    except OSError as error:
        raise QueryError(f"{path} cannot be read ({error.strerror}): give a file that can") from None


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a UTF-8 file that is not blank. Raises QueryError."""
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                line = Line(path, number, _decoded(path, number, raw))
                if line.text.strip():
                    yield line
    except OSError as error:
        raise QueryError(f"{path} cannot be read ({error.strerror}): give a file that can") from None


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise Line(path, number, "").wrong("it is not UTF-8: convert the file") from None
    return text.rstrip("\r\n")


def read_records(path: Path) -> Iterator[Record]:
    """Every JSON object of a file with one per line. Raises QueryError."""
    for line in read_lines(path):
        try:
            values = json.loads(line.text)
        except ValueError as error:
            raise line.wrong(f"it is not JSON ({error}): give one object per line") from None
        if not isinstance(values, dict):
            raise line.wrong("it is no JSON object: give one object per line")
        yield Record(line, values)
