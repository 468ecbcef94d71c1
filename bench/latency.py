"""From a saved file to its place in the answers: one sentence edited in a file of 10 kB, again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.service import Running, percentile
from bench.small import write_paragraphs

_MOST_S = 60.0
_OTHERS = 4_000
_PARAGRAPH = "The quick brown fox jumps over the lazy dog while the river runs down to the sea under a pale sky. "
#: the steps on the way, by the failpoint that ends each
_STEPS = {
    "producer:scanned": "watched, compared with the ledger",
    "producer:wanted": "noted in the ledger, on disk",
    "producer:published": "hint sent",
    "worker:taken": "hint received",
    "worker:read": "file read and hashed",
    "worker:extracted": "text extracted and cut",
    "worker:embedded": "known vectors fetched, new text embedded",
    "worker:upserted": "new version written",
}
_FOUND = "found by the next search"


@dataclass
class _Edited:
    """One file, and how long its edits took to be found: (moment of the save, seconds) of each."""

    path: Path
    sections: list[str] = field(default_factory=lambda: [f"## Section {n}\n\n" + _PARAGRAPH * 8 for n in range(12)])
    edits: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.write_text("\n\n".join(self.sections))

    def edit(self, service: Running) -> float:
        """Save one more sentence, and search until it is found; seconds."""
        number = len(self.edits)
        chance = random.Random(number)
        word = f"zq{number}x" + "".join(chance.choices("bcdfghklmnprst", k=6))
        changed = list(self.sections)
        changed[chance.randrange(len(changed))] += f"\n\nA sentence with {word} in it."
        time.sleep(0.2 + chance.random() / 10)
        saved = time.monotonic()
        self.path.write_text("\n\n".join(changed))
        question = {"text": word, "mode": "sparse", "limit": 1}
        while not any(word in hit["text"] for hit in service.ask("/v1/search", question)["hits"]):
            if time.monotonic() - saved > _MOST_S:
                raise SystemExit(f"{word} was not found within {_MOST_S:.0f} s")
            time.sleep(0.002)
        self.edits.append((saved, time.monotonic() - saved))
        return self.edits[-1][1]


def run(work: Path, edits: int) -> dict[str, Any]:
    """Seconds from ``write`` to the first search that finds the new sentence: idle, and while many files come in."""
    folder, state = work / "folder", work / "state"
    folder.mkdir()
    edited = _Edited(folder / "edited.md")
    times = work / "times"
    with Running(folder, state, HEADWATER_FAILPOINTS=";".join(f"{name}=time@{times}" for name in _STEPS)) as service:
        service.wait_ready()
        service.wait_all(1)
        idle = [edited.edit(service) for _ in range(edits)]
    results = {"file_bytes": edited.path.stat().st_size, "idle_s": idle, "steps_s": _steps(edited.edits, times)}
    write_paragraphs(folder / "scanned", _OTHERS)
    with Running(folder, state) as service:
        service.wait_ready()
        results["behind scanned files_s"] = list(_until_indexed(edited, service, edits, _OTHERS + 1))
        write_paragraphs(folder / "live", _OTHERS)
        time.sleep(0.5)  # else it would be found before the first of them
        results["behind live files_s"] = list(_until_indexed(edited, service, edits, 2 * _OTHERS + 1))
    _show(results)
    return results


def _until_indexed(edited: _Edited, service: Running, most: int, documents: int) -> Iterator[float]:
    """Edits until so many documents are indexed, or so many edits are made."""
    for _ in range(most):
        if service.peek()["documents"]["indexed"] >= documents:
            return
        yield edited.edit(service)


def _steps(edits: list[tuple[float, float]], times: Path) -> dict[str, float]:
    """Median seconds that each step took."""
    passes = [(name, float(moment)) for name, moment in map(str.split, times.read_text().splitlines())]
    took: dict[str, list[float]] = {name: [] for name in (*_STEPS, _FOUND)}
    for saved, seconds in edits:
        before = saved
        for name in _STEPS:
            moment = min((at for passed, at in passes if passed == name and at > saved), default=before)
            took[name].append(moment - before)
            before = moment
        took[_FOUND].append(saved + seconds - before)
    return {name: median(values) for name, values in took.items()}


def _show(results: dict[str, Any]) -> None:
    table = Table(title=f"saved to searchable, one sentence in a file of {results['file_bytes']} bytes")
    for column in ("row", "edits", "p50 ms", "p95 ms", "worst ms"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name in ("idle", "behind scanned files", "behind live files"):
        if values := results[f"{name}_s"]:
            figures = [1000 * percentile(values, share) for share in (0.5, 0.95, 1.0)]
            table.add_row(name, str(len(values)), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)
    steps = Table(title="where an idle edit's time goes", show_header=False)
    for name, seconds in results["steps_s"].items():
        steps.add_row(_STEPS.get(name, name), f"{1000 * seconds:.1f} ms")
    Console().print(steps)
