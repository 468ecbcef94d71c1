"""From a saved file to its place in the answers: one sentence edited in a file of 10 kB, again and again."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.service import Running, percentile
from bench.small import write_paragraphs

_MOST_S = 60.0
_PARAGRAPH = "The quick brown fox jumps over the lazy dog while the river runs down to the sea under a pale sky. "


def run(work: Path, edits: int) -> dict[str, Any]:
    """Seconds from ``write`` to the first search that finds the new sentence: idle, and while many files come in."""
    folder, state = work / "folder", work / "state"
    folder.mkdir()
    sections = [f"## Section {number}\n\n" + _PARAGRAPH * 8 for number in range(12)]
    path = folder / "edited.md"
    path.write_text("\n\n".join(sections))
    with Running(folder, state) as service:
        service.wait_ready()
        service.wait_all(1)
        idle = [_edit(service, path, sections, number) for number in range(edits)]
    write_paragraphs(
        folder / "bulk", 4_000
    )  # found by the next start's scan: as files that come live they would compete
    with Running(folder, state) as service:
        service.wait_ready()
        busy: list[float] = []
        while not service.peek()["in_step"] and len(busy) < edits:
            busy.append(_edit(service, path, sections, edits + len(busy)))
    results = {"file_bytes": path.stat().st_size, "idle_s": idle, "busy_s": busy}
    _show(results)
    return results


def _edit(service: Running, path: Path, sections: list[str], number: int) -> float:
    chance = random.Random(number)
    word = f"zq{number}x" + "".join(chance.choices("bcdfghklmnprst", k=6))
    changed = list(sections)
    changed[chance.randrange(len(changed))] += f"\n\nA sentence with {word} in it."
    time.sleep(0.2 + chance.random() / 10)
    started = time.perf_counter()
    path.write_text("\n\n".join(changed))

    question = {"text": word, "mode": "sparse", "limit": 1}
    while not any(word in hit["text"] for hit in service.ask("/v1/search", question)["hits"]):
        if time.perf_counter() - started > _MOST_S:
            raise SystemExit(f"{word} was not found within {_MOST_S:.0f} s")
        time.sleep(0.002)
    return time.perf_counter() - started


def _show(results: dict[str, Any]) -> None:
    table = Table(title=f"saved to searchable, one sentence in a file of {results['file_bytes']} bytes")
    for column in ("row", "edits", "p50 ms", "p95 ms", "worst ms"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name, values in (("idle", results["idle_s"]), ("during a bulk ingest", results["busy_s"])):
        if values:
            figures = [1000 * percentile(values, share) for share in (0.5, 0.95, 1.0)]
            table.add_row(name, str(len(values)), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)
