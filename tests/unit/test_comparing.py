"""The answers of two indexes, one of which may not answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from headwater import Index
from headwater.errors import HeadwaterError, QueryError, ServiceUnavailable
from headwater.hit import Freshness, Hits
from headwater.question import Question
from headwater.verbs.comparing import _both, _OldIsSilent


@dataclass
class Engine:
    """A fake that answers nothing, or fails."""

    error: HeadwaterError | None = None
    asked: list[str] = field(default_factory=list)

    def search(self, question: Question) -> Hits:
        self.asked.append(question.text)
        if self.error is not None:
            raise self.error
        return Hits([], Freshness(None))


def _index(error: HeadwaterError | None = None) -> Index:
    return Index(Engine(error))  # type: ignore[arg-type]  # no more of it is used


def test_both_are_asked() -> None:
    assert len(list(_both(_index(), _index(), ["a", "b"]))) == 2


def test_a_question_that_one_of_them_cannot_read_is_left_out() -> None:
    assert list(_both(_index(QueryError("too long")), _index(), ["a"])) == []
    assert list(_both(_index(), _index(QueryError("too long")), ["a"])) == []


def test_it_is_told_which_of_them_does_not_answer() -> None:
    with pytest.raises(_OldIsSilent, match="away"):
        list(_both(_index(ServiceUnavailable("away")), _index(), ["a"]))
    with pytest.raises(ServiceUnavailable):
        list(_both(_index(), _index(ServiceUnavailable("away")), ["a"]))
