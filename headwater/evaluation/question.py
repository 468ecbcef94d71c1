"""One judged question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headwater.evaluation.measures import Span

__all__ = ["Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """``grades`` names the relevant documents by their paths in the folder (0: judged, and not relevant).

    ``references`` are the places of the answer, if they are known. ``own`` is the path of the document that is the
    question itself and is left out of every ranking.
    """

    id: str
    text: str
    grades: Mapping[str, int]
    references: tuple[Span, ...] = ()
    own: str | None = None
