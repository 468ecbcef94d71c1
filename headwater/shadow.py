"""Compares a new index with the one that it is to replace, before it does: documents, chunks and answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.index import Point

__all__ = ["Answers", "Comparison", "Held", "compare_documents", "overlap", "refusals", "sample_queries"]

#: hits of each side that are compared
TOP = 10
#: characters of a sample query
_MOST_CHARACTERS = 160
#: documents that a sentence names
_NAMED = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@dataclass(frozen=True, slots=True)
class Held:
    """One document as a ledger has it. ``chunks`` is None if it is not in the index; ``due``: it will be looked at."""

    content_hash: str | None
    chunks: int | None
    due: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """How alike both answer: of each query's first ``TOP`` hits, the share that both have."""

    queries: int
    mean: float
    lowest: float


@dataclass(frozen=True)
class Comparison:
    """What was found. ``cut_alike``: both cut documents in the same way, so the numbers of chunks must be equal."""

    documents: tuple[int, int]
    chunks: tuple[int, int]
    cut_alike: bool
    #: documents that only the old index has, and those with other numbers of chunks
    missing: tuple[bytes, ...] = ()
    differing: tuple[bytes, ...] = ()
    answers: Answers | None = None
    #: measure -> its value in the old index and in the new one
    measures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        sides = ("old", "new")
        answers = self.answers
        return {
            "documents": dict(zip(sides, self.documents, strict=True)),
            "chunks": dict(zip(sides, self.chunks, strict=True)),
            "cut_alike": self.cut_alike,
            "missing": len(self.missing),
            "differing": len(self.differing),
            f"overlap@{TOP}": None
            if answers is None
            else {"queries": answers.queries, "mean": answers.mean, "lowest": answers.lowest},
            "measures": {name: dict(zip(sides, values, strict=True)) for name, values in self.measures.items()},
            "notes": list(self.notes),
        }


def compare_documents(
    old: Mapping[bytes, Held], new: Mapping[bytes, Held], there: Callable[[bytes], bool], *, cut_alike: bool
) -> Comparison:
    """``there`` tells whether a path is in the folder. What either side has yet to look at is no difference, nor is a
    document of which they have read different versions."""
    missing: list[bytes] = []
    differing: list[bytes] = []
    for path, held in old.items():
        if held.chunks is None or held.due:
            continue
        other = new.get(path, Held(held.content_hash, None, due=False))
        if other.due or other.content_hash not in (held.content_hash, None):
            continue
        if other.chunks is None and there(path):
            missing.append(path)
        elif cut_alike and other.chunks not in (held.chunks, None):
            differing.append(path)
    return Comparison(
        (_documents(old.values()), _documents(new.values())),
        (_chunks(old.values()), _chunks(new.values())),
        cut_alike,
        tuple(missing),
        tuple(differing),
    )


def _documents(held: Iterable[Held]) -> int:
    return sum(one.chunks is not None for one in held)


def _chunks(held: Iterable[Held]) -> int:
    return sum(one.chunks or 0 for one in held)


def sample_queries(points: Iterable[Point], most: int) -> list[str]:
    """The first sentence of one chunk of each of some documents."""
    found: dict[str, str] = {}
    for point in points:
        sentence = _first_sentence(str(point.payload.get("text") or ""))
        if sentence and len(found) < most:
            found.setdefault(str(point.payload["document_id"]), sentence)
    return list(dict.fromkeys(found.values()))


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0][:_MOST_CHARACTERS].strip()


def overlap(pairs: Sequence[tuple[Collection[Any], Collection[Any]]]) -> Answers | None:
    """Of the hits of both sides to each query; None if there are no queries."""
    shares = [_share(set(old), set(new)) for old, new in pairs]
    return Answers(len(shares), sum(shares) / len(shares), min(shares)) if shares else None


def _share(old: set[Any], new: set[Any]) -> float:
    most = max(len(old), len(new))
    return len(old & new) / most if most else 1.0


def refusals(found: Comparison, min_overlap: float | None, *, accept_missing: bool) -> list[str]:
    """Sentences that say why the new index must not take the place of the old one; none if it may."""
    sentences: list[str] = []
    if found.missing and not accept_missing:
        sentences.append(
            f"the new index misses {len(found.missing)} documents of the old one, such as {_names(found.missing)}: "
            "see 'HEADWATER_GENERATION=N headwater why FILE', or accept that with --accept-missing"
        )
    if found.differing:
        sentences.append(
            f"{len(found.differing)} documents have another number of chunks, though they are cut alike, such as "
            f"{_names(found.differing)}: run 'headwater verify' on both, and 'headwater reindex --cancel' to begin anew"
        )
    if min_overlap is not None and (found.answers is None or found.answers.mean < min_overlap):
        value = "could not be measured" if found.answers is None else f"is {found.answers.mean:.2f}"
        sentences.append(f"overlap@{TOP} {value} and --min-overlap asks for {min_overlap:.2f}: lower it, or --cancel")
    return sentences


def _names(paths: Sequence[bytes]) -> str:
    return ", ".join(path.decode("utf-8", "replace") for path in paths[:_NAMED])
