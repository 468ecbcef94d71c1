"""What is wrong with the index: points and ledger row of one document against what its file gives now. Pure: no I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from headwater.document import Fingerprint, text_hash
from headwater.index import DocumentWrite, Point, SeenPoint, Sparse
from headwater.index_qdrant import document_points

__all__ = [
    "KINDS",
    "Finding",
    "Noted",
    "PointCheck",
    "Reading",
    "Verdict",
    "compare",
    "compare_row",
    "judge",
    "seen_point",
]

#: missing: not in the index. stale: of another version of the document. duplicate: beside the point that is right.
#: orphan: of no document. unsearchable: there, and not to be found by a search. unreadable: cannot be compared now.
Kind = Literal["missing", "stale", "duplicate", "orphan", "unsearchable", "unreadable"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: allowed distance of a vector's length from 1
_UNIT_TOLERANCE = 1e-2
#: allowed distance of a term's weight from its own encoding: weights are 32-bit numbers
_WEIGHT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a document; ``chunks`` are the numbers of the chunks that it concerns, empty if
    they all are or none is. ``known``: the ledger says so too, and the index is right about it: no defect."""

    kind: Kind
    path: str
    detail: str
    chunks: tuple[int, ...] = ()
    known: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": self.path,
            "detail": self.detail,
            "chunks": list(self.chunks),
            "known": self.known,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found. ``discards`` are points that rewriting the document would not put right."""

    findings: tuple[Finding, ...] = ()
    discards: tuple[SeenPoint, ...] = ()
    #: points that were compared
    points: int = 0


@dataclass(frozen=True, slots=True)
class PointCheck:
    """What every chunk point must meet: the length of its dense vector, and the terms of its text."""

    dimension: int
    encode_sparse: Callable[[str, str | None], Sparse]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file gives now. ``document`` is None if nothing of it belongs in the index."""

    state: Literal["indexed", "partial", "refused", "failed"]
    reason: str | None = None
    fingerprint: Fingerprint | None = None
    content_hash: str | None = None
    document: DocumentWrite | None = None


class Noted(Protocol):
    """What the ledger notes of a document (``producer.ledger.Entry``)."""

    @property
    def state(self) -> str: ...
    @property
    def chunks(self) -> int: ...
    @property
    def content_hash(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def fingerprint(self) -> Fingerprint | None: ...


def judge(path: str, reading: Reading, noted: Noted | None, points: Iterable[Point], check: PointCheck) -> Verdict:
    """Everything that is wrong with one settled document: its points, in any order, and its row in the ledger."""
    verdict = compare(path, reading, points, check, seq_known=noted is not None)
    if noted is None and reading.document is not None and not verdict.points:
        return verdict  # a new file: that it is missing says it all
    return replace(verdict, findings=(*verdict.findings, *compare_row(path, reading, noted)))


# -- points -----------------------------------------------------------------------------------------------------


def compare(
    path: str, reading: Reading, points: Iterable[Point], check: PointCheck, *, seq_known: bool = True
) -> Verdict:
    """All points that name the document, in any order, against what its file gives.

    Without ``seq_known`` the seq of points is not compared: the ledger knows of none.
    """
    comparison = _Comparison(path, reading, check, seq_known)
    for point in points:
        comparison.take(point)
    return comparison.verdict()


@dataclass
class _Comparison:
    path: str
    reading: Reading
    check: PointCheck
    seq_known: bool
    points: int = 0
    discards: list[SeenPoint] = field(default_factory=list)
    #: numbers of chunks by what is wrong with them; None stands for the document's record
    faults: dict[tuple[Kind, str], list[int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        document = self.reading.document
        wanted = () if document is None else document_points(document)
        #: points that have not come yet
        self.wanted = {point.id: _as_json(point.payload) for point in wanted}
        self.total = len(self.wanted)

    def take(self, point: Point) -> None:
        self.points += 1
        expected = self.wanted.pop(point.id, None)
        if self.reading.document is None:
            self._fault("orphan", f"the document is {self.reading.state} ({self.reading.reason})", point, discard=True)
        elif expected is None:
            self._fault("duplicate", self._why_superfluous(point.payload), point, discard=True)
        else:
            self._check(point, expected)

    def _why_superfluous(self, payload: Mapping[str, Any]) -> str:
        document = self.reading.document
        number = _number(payload)
        if document is None or number is None:
            return "a second record of the document"
        if number < len(document.chunks):
            return "a second point for the chunk, under another id"
        return f"a chunk beyond the {len(document.chunks)} of the document"

    def _check(self, point: Point, expected: Mapping[str, Any]) -> None:
        skipped = () if self.seq_known else ("seq",)
        names = [name for name in {**expected, **point.payload} if name not in skipped]
        differing = sorted(name for name in names if point.payload.get(name) != expected.get(name))
        if differing:
            detail = f"differs from the document in {', '.join(differing)}"
            self._fault("stale", detail, point, discard=not self._heals(point, expected))
        if "chunk" not in expected:
            if point.dense is not None or point.sparse is not None:
                self._fault("stale", "the record has vectors, so that a search finds it", point, discard=True)
        elif (trouble := _trouble(point, self.check, compare_terms="text" not in differing)) is not None:
            self._fault("unsearchable", trouble, point, discard=True)

    def _heals(self, point: Point, expected: Mapping[str, Any]) -> bool:
        """Whether writing the document anew replaces the point, and its vector may be used again till then."""
        payload, seq = point.payload, seen_point(point).seq
        text, context = payload.get("text"), payload.get("context", "")
        own_hash = "chunk" not in expected or (
            isinstance(text, str) and isinstance(context, str) and payload.get("text_hash") == text_hash(text, context)
        )
        return seq is not None and (not self.seq_known or seq <= expected["seq"]) and own_hash

    def _fault(self, kind: Kind, detail: str, point: Point, *, discard: bool) -> None:
        self.faults.setdefault((kind, detail), []).append(_number(point.payload))
        if discard and not (self.discards and self.discards[-1].id == point.id):
            self.discards.append(seen_point(point))

    def verdict(self) -> Verdict:
        self._note_missing()
        findings = (
            Finding(kind, self.path, detail, tuple(sorted(number for number in numbers if number is not None)))
            for (kind, detail), numbers in self.faults.items()
        )
        return Verdict(tuple(findings), tuple(self.discards), self.points)

    def _note_missing(self) -> None:
        """Points that did not come."""
        if not self.wanted:
            return
        if len(self.wanted) == self.total:
            self.faults["missing", "the document is not in the index"] = []
            return
        numbers: list[int | None] = [payload["chunk"] for payload in self.wanted.values() if "chunk" in payload]
        if numbers:
            self.faults["missing", "not in the index"] = numbers
        if len(numbers) < len(self.wanted):
            self.faults["missing", "the document's record is not in the index"] = []


def seen_point(point: Point) -> SeenPoint:
    """A point with the seq that fences its deletion."""
    seq = point.payload.get("seq")
    usable = isinstance(seq, int | float) and not isinstance(seq, bool)
    return SeenPoint(point.id, seq if usable else None)


def _number(payload: Mapping[str, Any]) -> int | None:
    number = payload.get("chunk")
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _as_json(payload: Mapping[str, Any]) -> dict[str, Any]:
    """As an engine gives it back."""
    value: dict[str, Any] = json.loads(json.dumps(dict(payload)))
    return value


def _trouble(point: Point, check: PointCheck, *, compare_terms: bool) -> str | None:
    """Why a search would not find the chunk; None if it would."""
    return next(_troubles(point, check, compare_terms=compare_terms), None)


def _troubles(point: Point, check: PointCheck, *, compare_terms: bool) -> Iterator[str]:
    dense, sparse = point.dense, point.sparse
    if dense is None:
        yield "it has no dense vector"
    elif dense.shape != (check.dimension,):
        yield f"its dense vector has {dense.size} numbers, not {check.dimension}"
    elif not np.all(np.isfinite(dense)):
        yield "its dense vector is not finite"
    elif abs(float(np.linalg.norm(dense)) - 1.0) > _UNIT_TOLERANCE:
        yield "its dense vector is not of unit length"
    terms = _terms(sparse)
    if not all(map(math.isfinite, terms.values())):
        yield "its sparse vector is not finite"
    text, language = point.payload.get("text"), point.payload.get("language")
    wanted = _terms(
        check.encode_sparse(text if isinstance(text, str) else "", language if isinstance(language, str) else None)
    )
    if not terms and wanted:
        yield "it has no sparse vector"
    elif compare_terms and not _same_terms(terms, wanted):
        yield "its sparse vector is not that of its text"


def _terms(sparse: Sparse | None) -> dict[int, float]:
    return {} if sparse is None else dict(zip(sparse.indices, sparse.values, strict=True))


def _same_terms(terms: Mapping[int, float], wanted: Mapping[int, float]) -> bool:
    return terms.keys() == wanted.keys() and all(
        math.isclose(weight, wanted[term], rel_tol=_WEIGHT_TOLERANCE) for term, weight in terms.items()
    )


# -- the ledger's row -------------------------------------------------------------------------------------------


def compare_row(path: str, reading: Reading, noted: Noted | None) -> list[Finding]:
    """What the ledger notes of a settled document against what its file gives."""
    if noted is None:
        return [Finding("stale", path, "the ledger does not know the document")]
    return [Finding("stale", path, f"the ledger {difference}") for difference in _differences(reading, noted)]


def _differences(reading: Reading, noted: Noted) -> Iterator[str]:
    if noted.state != reading.state:
        why = f" ({noted.reason})" if noted.reason else ""
        yield f"has the document as {noted.state}{why}, and its file gives {reading.state}"
        return
    chunks = 0 if reading.document is None else len(reading.document.chunks)
    if noted.chunks != chunks:
        yield f"notes {noted.chunks} chunks where the file gives {chunks}"
    if reading.document is not None and noted.content_hash != reading.content_hash:
        yield "notes another content"
    elif reading.fingerprint is not None and noted.fingerprint != reading.fingerprint:
        yield "notes another size, time or inode of the file"
