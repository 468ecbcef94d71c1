"""Many small files with an embedding that costs nothing; then a restart on them, and a restart with one changed."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.service import Running, make_free_model, memory_mb

WORDS = ("river", "spring", "stone", "valley", "meadow", "harbour", "lantern", "copper", "violet", "thunder")


def run(work: Path, documents: int) -> dict[str, Any]:
    """Documents per second from the loaded model to "in step", then what a restart does with all of them there."""
    folder, state = work / "folder", work / "state"
    write_paragraphs(folder, documents)
    model = str(make_free_model(work, WORDS))
    results: dict[str, Any] = {"documents": documents}
    with Running(folder, state, HEADWATER_MODEL=model) as service:
        ready = service.wait_ready()
        seconds = service.wait_all(documents) - ready
        results["ingest"] = {"seconds": seconds, "documents_per_s": documents / seconds}
        results["producer_mb"] = memory_mb(service.children("headwater watch"))
        embedded = service.peek()["embedded_texts_total"]
    results["nothing changed"] = restart(folder, state, embedded, HEADWATER_MODEL=model)
    path = folder / "d000" / "f0000.md"
    path.write_text(path.read_text() + "\nOne more paragraph.\n")
    results["one changed"] = restart(folder, state, embedded, HEADWATER_MODEL=model)
    _show(results)
    return results


def write_paragraphs(folder: Path, documents: int, directories: int | None = None) -> None:
    """Files of one paragraph of 60 words each, in so many directories, else a hundred in each."""
    in_each = 100 if directories is None else -(-documents // directories)
    chance = random.Random(1)
    for number in range(documents):
        path = folder / f"d{number // in_each:03}" / f"f{number:04}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Note {number}. " + " ".join(chance.choices(WORDS, k=60)) + ".\n")


def restart(folder: Path, state: Path, embedded: int, **environment: str) -> dict[str, Any]:
    """What a start on an index does that had so many texts embedded before; times in seconds."""
    time.sleep(0.1)
    with Running(folder, state, **environment) as service:
        ready = service.wait_ready()
        in_step = service.wait_all()
        files, seconds, changes = service.last_scan()
        return {
            "files": files,
            "scan_s": seconds,
            "changes": changes,
            "in_step_after_ready_s": max(0.0, in_step - ready),
            "whole_s": in_step - service.started,
            "embedded": service.peek()["embedded_texts_total"] - embedded,
            "producer_mb": memory_mb(service.children("headwater watch")),
        }


def _show(results: dict[str, Any]) -> None:
    table = Table(title=f"{results['documents']} files of one paragraph, embedding of no cost")
    for column in ("row", "figure"):
        table.add_column(column, justify="left" if column == "row" else "right")
    table.add_row("ingest", f"{results['ingest']['documents_per_s']:.0f} documents/s")
    table.add_row("memory of the producer", f"{results['producer_mb']:.0f} MB")
    for name in ("nothing changed", "one changed"):
        row = results[name]
        text = f"scan {row['scan_s']:.3f} s, {row['changes']} changes, {row['embedded']} texts embedded"
        table.add_row(f"restart, {name}", text)
    Console().print(table)
