"""A restart with nothing changed, over a small folder, a larger one and a large one: what it costs and keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.ingest import corpus
from bench.service import Running, make_static_model, memory_mb
from bench.small import write_paragraphs

#: of a large folder, files beyond this are refused: what is measured here is the number of files
_LARGE_FILE_BYTES = 4096


def run(work: Path, documents: int, large: Path | None) -> dict[str, Any]:
    """Index each folder with a static model, start anew, and tell what the start did."""
    model = str(make_static_model(work))
    shutil.copytree(corpus(work), work / "small")
    write_paragraphs(work / "many", documents)
    folders = {"small": work / "small", "many": work / "many"} | ({} if large is None else {"large": large})
    results = {name: _restart(folder, work / f"state-{name}", model) for name, folder in folders.items()}
    _show(results)
    return results


def _restart(folder: Path, state: Path, model: str) -> dict[str, Any]:
    environment = {"HEADWATER_MODEL": model, "HEADWATER_MAX_FILE_BYTES": str(_LARGE_FILE_BYTES)}
    if folder.name in ("small", "many"):
        del environment["HEADWATER_MAX_FILE_BYTES"]
    with Running(folder, state, **environment) as service:
        service.wait_ready()
        service.wait_all(1)
        embedded = service.peek()["embedded_texts_total"]
    with Running(folder, state, **environment) as service:
        ready = service.wait_ready()
        in_step = service.wait_all()
        files, scan_s, changes = service.last_scan()
        return {
            "files": files,
            "scan_s": scan_s,
            "changes": changes,
            "in_step_after_start_s": in_step - service.started,
            "model_ready_after_start_s": ready - service.started,
            "embedded": service.peek()["embedded_texts_total"] - embedded,
            "producer_mb": memory_mb(service.children("headwater watch")),
            "documents": service.peek()["documents"],
        }


def _show(results: dict[str, Any]) -> None:
    table = Table(title="restart, nothing changed")
    for column in ("files", "scan s", "in step after the start, s", "texts embedded", "producer MB", "allowed MB"):
        table.add_column(column, justify="right")
    for row in results.values():
        table.add_row(
            f"{row['files']}",
            f"{row['scan_s']:.3f}",
            f"{row['in_step_after_start_s']:.1f}",
            f"{row['embedded']}",
            f"{row['producer_mb']:.0f}",
            f"{60 + row['files'] * 400 / 1e6:.0f}",
        )
    Console().print(table)
