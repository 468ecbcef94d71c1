"""Whether the index holds what the ledger says: the census of seqs, compared and mended until both agree.

A damaged shard can load without an error, an index or a ledger may come back from an older copy, and a write may have
landed whose outcome was lost. One cheap question shows it all: how many points carry each seq, for a seq belongs to
one version of one document. The comparison is pure; ``CensusTaker`` keeps what a service knows between two answers.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headwater.messages import Census

__all__ = ["CensusTaker", "Verdict", "Version", "compare"]

#: seqs swept by one request at most
_MOST_SWEPT = 5000
#: censuses that show no progress before a person is told
_MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Version:
    """What the ledger says of one document. ``points`` is how many the index must hold for ``applied_seq``; None
    while the document is due, for its write may have landed or not."""

    path: bytes
    wanted_seq: int
    applied_seq: int
    points: int | None
    #: whether reading the document again would bring its points back
    is_indexed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """``damaged`` documents are to be read again; ``unwanted`` seqs belong to no version that the ledger knows."""

    damaged: tuple[bytes, ...]
    unwanted: tuple[int, ...]
    highest_seq: int

    @property
    def findings(self) -> int:
        return len(self.damaged) + len(self.unwanted)


def compare(versions: Iterable[Version], counts: Mapping[int, int]) -> Verdict:
    """Compare the ledger's versions with the points per seq that the index holds."""
    left = dict(counts)
    damaged = []
    for version in versions:
        if version.points is None:
            left.pop(version.wanted_seq, None)
            left.pop(version.applied_seq, None)
        elif version.points != left.get(version.applied_seq, 0):
            if version.is_indexed:
                damaged.append(version.path)
                left.pop(version.applied_seq, None)
        else:
            left.pop(version.applied_seq, None)
    return Verdict(tuple(damaged), tuple(sorted(left)), max(counts, default=0))


@dataclass
class CensusTaker:
    """When to ask for a census, and what to have swept with it. ``lease_s`` bounds the wait for an answer."""

    lease_s: float
    #: no census is due or on its way, and the last one agreed
    settled: bool
    sweep: tuple[int, ...] = ()
    due: bool = False
    #: seconds after which an index that did not become right is looked at again: a person may have repaired it
    again_s: float = 30.0
    _again_at: float = math.inf
    _late_at: float = math.inf
    _asked: tuple[str, float] | None = None
    _pages: dict[str, dict[int, Census]] = field(default_factory=dict)
    _findings: int = 0
    _rounds: int = 0

    def expect(self) -> None:
        """A worker has started and sends a census by itself."""
        self.settled = False
        self._pages.clear()
        self._asked = ("hello", time.monotonic())

    def to_ask(self) -> str | None:
        """The name of a census that is to be asked for now; None if none is."""
        if self._asked is not None and time.monotonic() - self._asked[1] > self.lease_s:
            self.due = True
        if time.monotonic() >= min(self._again_at, self._late_at):
            self.due, self._late_at = True, math.inf
        return uuid.uuid4().hex if self.due else None

    def again_in(self, seconds: float) -> None:
        """Something may be written that nobody wants: look again then."""
        self._late_at = time.monotonic() + seconds

    def asked(self, name: str) -> None:
        """The request is out."""
        self.due = False
        self._again_at = math.inf
        self._asked = (name, time.monotonic())

    def hear(self, page: Census) -> dict[int, int] | None:
        """Take one page; the points per seq once all pages of its census are there."""
        pages = self._pages.setdefault(page.census, {})
        pages[page.page] = page
        if len(pages) < page.pages:
            return None
        del self._pages[page.census]
        return dict(pair for heard in pages.values() for pair in heard.counts)

    def conclude(self, verdict: Verdict, *, at_rest: bool) -> bool:
        """Note what a census showed. Seqs are only swept when nothing is due, since a document that is due may hold
        an older version. False if the censuses show no progress."""
        self._asked = None
        self._rounds = self._rounds + 1 if verdict.findings >= self._findings > 0 else 1
        self._findings = verdict.findings
        self.sweep = verdict.unwanted[:_MOST_SWEPT] if at_rest and not verdict.damaged else ()
        self.settled = not verdict.findings
        self.due = bool(verdict.findings) and self._rounds <= _MOST_ROUNDS
        self._again_at = math.inf if self.settled or self.due else time.monotonic() + self.again_s
        return self.settled or self.due
