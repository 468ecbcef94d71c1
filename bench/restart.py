"""A restart with nothing changed, over a small folder, a larger one and a large one: what it costs and keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.ingest import corpus
from bench.service import Running, make_static_model
from bench.small import restart, write_paragraphs

#: of a large folder, files beyond this are refused: what is measured here is the number of files
_LARGE_FILE_BYTES = 4096


def run(work: Path, documents: int, large: Path | None) -> dict[str, Any]:
    """Index each folder with a static model, start anew, and tell what the start did."""
    model = str(make_static_model(work))
    shutil.copytree(corpus(work), work / "small")
    write_paragraphs(work / "many", documents)
    results = {name: _restart(work / name, work / f"state-{name}", HEADWATER_MODEL=model) for name in ("small", "many")}
    if large is not None:
        bound = {"HEADWATER_MAX_FILE_BYTES": str(_LARGE_FILE_BYTES)}
        results["large"] = _restart(large, work / "state-large", HEADWATER_MODEL=model, **bound)
    _show(results)
    return results


def _restart(folder: Path, state: Path, **environment: str) -> dict[str, Any]:
    with Running(folder, state, **environment) as service:
        service.wait_ready()
        service.wait_all(1)
        embedded = service.peek()["embedded_texts_total"]
    return restart(folder, state, embedded, **environment)


def _show(results: dict[str, Any]) -> None:
    table = Table(title="restart, nothing changed")
    for column in ("files", "scan s", "in step after the start, s", "texts embedded", "producer MB", "allowed MB"):
        table.add_column(column, justify="right")
    for row in results.values():
        table.add_row(
            f"{row['files']}",
            f"{row['scan_s']:.3f}",
            f"{row['whole_s']:.1f}",
            f"{row['embedded']}",
            f"{row['producer_mb']:.0f}",
            f"{60 + row['files'] * 400 / 1e6:.0f}",
        )
    Console().print(table)
