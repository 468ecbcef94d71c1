"""What a search may ask, checked in one place for the library, the command and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args

from headwater.errors import QueryError
from headwater.filters import FilterValue
from headwater.index import Mode

__all__ = ["MOST_CHARACTERS", "MOST_HITS", "Question", "check_limit", "check_text"]

MOST_HITS = 1000
MOST_CHARACTERS = 20_000
#: hits that an answer may leave out before its first
_MOST_OFFSET = 10_000
_LONGEST_WAIT_S = 3600.0
IN_STEP = "in-step"


@dataclass(frozen=True, slots=True)
class Question:
    """A search. Creating one checks it: QueryError names what is wrong and what to give instead."""

    text: str
    limit: int = 10
    mode: Mode = "hybrid"
    path_glob: str | None = None
    filters: Mapping[str, FilterValue] | None = None
    where: str | None = None
    score_threshold: float | None = None
    offset: int = 0
    group_by: Literal["document"] | None = None
    diversity: float | None = None
    rerank: bool | None = None
    wait_for: str | None = None
    timeout: float = 10.0

    def __post_init__(self) -> None:
        check_text(self.text)
        check_limit(self.limit)
        if self.mode not in get_args(Mode):
            raise QueryError(f"the mode is {self.mode!r}: give one of {', '.join(get_args(Mode))}")
        self._check_filters()
        if not _is_whole(self.offset) or not 0 <= self.offset <= _MOST_OFFSET:
            raise QueryError(f"the offset is {self.offset!r}: give a whole number from 0 to {_MOST_OFFSET}")
        if self.group_by not in (None, "document"):
            raise QueryError(f"group_by is {self.group_by!r}: give 'document', or nothing")
        if self.diversity is not None and not (_is_number(self.diversity) and 0 <= self.diversity <= 1):
            raise QueryError(f"the diversity is {self.diversity!r}: give a number from 0 (none) to 1")
        if self.rerank is not None and not isinstance(self.rerank, bool):
            raise QueryError(f"rerank is {self.rerank!r}: give true or false")
        if self.wait_for is not None and not (isinstance(self.wait_for, str) and self.wait_for):
            raise QueryError(f"wait_for is {self.wait_for!r}: give a path relative to the folder, or {IN_STEP!r}")
        if not _is_number(self.timeout) or not 0 <= self.timeout <= _LONGEST_WAIT_S:
            raise QueryError(f"the timeout is {self.timeout!r}: give seconds from 0 to {_LONGEST_WAIT_S:.0f}")

    def _check_filters(self) -> None:
        if self.path_glob is not None and not isinstance(self.path_glob, str):
            raise QueryError(f"the path glob is {self.path_glob!r}: give a text such as '*.md'")
        if self.filters is not None and not isinstance(self.filters, Mapping):
            raise QueryError(f"the filters are {self.filters!r}: give fields with their values")
        if self.where is not None and not isinstance(self.where, str):
            raise QueryError(f"where is {self.where!r}: give a text such as 'ext:md after:30d'")
        if self.score_threshold is not None and not _is_number(self.score_threshold):
            raise QueryError(f"the score threshold is {self.score_threshold!r}: give a number")

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Question:
        """From JSON; what is null counts as not given."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(raw) - set(known)):
            named = ", ".join(ascii(name)[1:-1] for name in unknown)  # a key may be half a character, or two lines
            raise QueryError(f"the request has {named}: it may have {', '.join(known)}")
        return cls(**{"text": "", **{name: value for name, value in raw.items() if value is not None}})

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def check_text(text: object) -> None:
    """Raises QueryError unless it is a text that can be embedded, of a length that a question may have."""
    if not isinstance(text, str) or not text.strip():
        raise QueryError("the text to search for is empty: give some words")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("the text holds half of a character (a lone surrogate): give whole ones")
    if len(text) > MOST_CHARACTERS:
        raise QueryError(f"the text has {len(text)} characters, more than {MOST_CHARACTERS}: shorten it")


def check_limit(limit: object) -> None:
    if not _is_whole(limit) or not 1 <= limit <= MOST_HITS:  # type: ignore[operator]  # a whole number by then
        raise QueryError(f"the limit is {limit!r}: give a whole number from 1 to {MOST_HITS}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
