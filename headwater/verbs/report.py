"""What people and programs see of ``headwater verify``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from headwater.errors import RetryableError
from headwater.verbs.audit import Totals
from headwater.verbs.scratch import Scratch
from headwater.verification import Finding

__all__ = ["Bar", "Repaired", "Report", "make_bar"]

#: findings that a person is shown
_MOST_SHOWN = 50


class Bar:
    """One bar with a stage at a time; on a terminal only."""

    def __init__(self, console: Console, *, shown: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), console=console,
            transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        if shown and console.is_terminal:
            self._bar.start()

    def stage(self, name: str, total: int | None = None) -> None:
        self._bar.reset(self._task, total=total, description=name)

    def advance(self, steps: int) -> None:
        self._bar.advance(self._task, steps)

    def stop(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


@contextlib.contextmanager
def make_bar(as_json: bool) -> Iterator[Bar]:
    bar = Bar(Console(stderr=True), shown=not as_json)
    try:
        yield bar
    finally:
        bar.stop()


@dataclass(frozen=True)
class Repaired:
    """Documents that were made due again, points that were deleted, and what was wrong before."""

    documents: int
    points: int
    before: Report


@dataclass(frozen=True)
class Report:
    """One verification, to be printed."""

    totals: Totals
    scratch: Scratch
    repaired: Repaired | None = None

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def status(self) -> int:
        return 1 if self.scratch.defects() else RetryableError.exit_code if self.totals.waiting else 0

    def print_json(self) -> None:
        """One object on one line; findings are written as they are read."""
        head: dict[str, Any] = {
            "ok": self.ok,
            "documents": self.totals.documents,
            "chunks": self.totals.chunks,
            "waiting": self.totals.waiting,
            "counts": self.scratch.counts(),
        }
        sys.stdout.write(json.dumps(head)[:-1])
        if self.repaired is not None:
            numbers = {"documents": self.repaired.documents, "points": self.repaired.points}
            sys.stdout.write(f', "repaired": {json.dumps(numbers)[:-1]}')
            self.repaired.before.write_findings()
            sys.stdout.write("}")
        self.write_findings()
        print("}")

    def write_findings(self) -> None:
        sys.stdout.write(', "findings": [')
        for number, finding in enumerate(self.scratch.findings()):
            sys.stdout.write((", " if number else "") + json.dumps(finding.to_dict()))
        sys.stdout.write("]")

    def print(self, console: Console) -> None:
        if self.repaired is not None:
            self.repaired.before.print_findings(console)
            console.print(
                f"repaired: {self.repaired.documents} documents indexed again, {self.repaired.points} points discarded"
            )
        self.print_findings(console)
        console.print(self._summary(), soft_wrap=True)

    def print_findings(self, console: Console) -> None:
        total = sum(self.scratch.counts().values())
        for finding in islice(self.scratch.findings(), _MOST_SHOWN):
            console.print(f"{finding.kind:12} {_line(finding)}", soft_wrap=True)
        if total > _MOST_SHOWN:
            console.print(f"... and {total - _MOST_SHOWN} more: --json has them all")

    def _summary(self) -> str:
        compared = f"{self.totals.documents} documents and {self.totals.chunks} chunks compared"
        waiting = f"{self.totals.waiting} documents wait to be indexed"
        if self.scratch.defects():
            named = ", ".join(f"{number} {kind}" for kind, number in self.scratch.counts().items() if number)
            also = f"; {waiting}" if self.totals.waiting else ""
            cure = "" if self.repaired else ": 'headwater verify --repair' puts it right"
            return f"{compared}, {named}{also}{cure}"
        return f"{compared}, nothing wrong, but {waiting}" if self.totals.waiting else f"{compared}, all is well"


def _line(finding: Finding) -> str:
    where = f"{finding.path}  " if finding.path else ""
    chunks = f"chunk{'s' if len(finding.chunks) > 1 else ''} {_ranges(finding.chunks)}: " if finding.chunks else ""
    return f"{where}{chunks}{finding.detail}{' (the ledger says so too)' if finding.known else ''}"


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as "0-2, 5"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
