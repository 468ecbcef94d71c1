"""Ingest against raw encode, side by side in one run."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headwater.embedder import cpu_has_bf16

_ROOT = Path(__file__).resolve().parents[1]
#: of SciFact's 5,183 documents, so that a round of all rows takes two minutes
_ABSTRACTS = 1500


def run(work: Path, rounds: int) -> dict[str, Any]:
    """Run the rounds of each corpus and print its table."""
    results = {}
    for folder in (corpus(work), *_abstracts(work)):
        results[folder.name] = _rounds(folder, work, rounds)
        _show(results[folder.name])
    return results


def corpus(work: Path) -> Path:
    """The Rust book at the end of its history, else the docs of this project."""
    data = os.environ.get("HEADWATER_DATA")
    if not data:
        return _ROOT / "docs"
    history, folder = Path(data) / "history", work / "book"
    command = [sys.executable, str(history / "replay.py"), str(history / "rust-book.jsonl.xz"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _abstracts(work: Path) -> list[Path]:
    """SciFact's first documents as a folder, if there is a data pack."""
    data = os.environ.get("HEADWATER_DATA")
    if not data:
        return []
    retrieval, folder = Path(data) / "retrieval", work / "scifact"
    command = [retrieval / "beir_to_folder.py", retrieval / "scifact", folder, "--limit", str(_ABSTRACTS)]
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    return [folder]


def _rounds(folder: Path, work: Path, rounds: int) -> dict[str, Any]:
    """Each round runs every row once, so that a noisy neighbour hits them alike."""
    precision = "bf16" if cpu_has_bf16() else "fp32"
    texts = work / "texts.json"
    rows: dict[str, list[float]] = {"raw fp32": [], f"raw {precision}": [], "up --once": [], "up --once, whole": []}
    for number in range(rounds):
        ingest = _ingest(folder, work / f"state{number}", texts)
        rows["up --once"].append(ingest["texts"] / ingest["seconds"])
        rows["up --once, whole"].append(ingest["texts"] / ingest["whole_seconds"])
        rows["raw fp32"].append(_raw(texts, "fp32"))
        if precision != "fp32":
            rows[f"raw {precision}"].append(_raw(texts, precision))
        print(json.dumps({name: [round(rate, 1) for rate in rates] for name, rates in rows.items()}), flush=True)
    return {"folder": folder.name, "texts": ingest["texts"], "precision": precision, "texts_per_s": rows}


def _raw(texts: Path, precision: str) -> float:
    command = [sys.executable, "-m", "bench.raw", str(texts), precision]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["texts"] / found["seconds"])


def _ingest(folder: Path, state: Path, texts: Path) -> dict[str, float]:
    """Seconds from the moment that the model is loaded to "in step", and of the whole command."""
    command = [sys.executable, "-m", "headwater", "up", str(folder), "--once", "--json", "--state-dir", str(state)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    _await_ready(state, process)
    ready = time.perf_counter()
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "in_step":
            in_step = time.perf_counter()
    assert process.wait() == 0
    whole = time.perf_counter() - started
    texts.write_text(json.dumps(_texts(state)))
    shutil.rmtree(state)
    return {"texts": len(json.loads(texts.read_text())), "seconds": in_step - ready, "whole_seconds": whole}


def _await_ready(state: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        try:
            url = json.loads((state / "service.json").read_text())["url"]
            with urllib.request.urlopen(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)


def _texts(state: Path) -> list[str]:
    """The chunks that were embedded, from the index itself."""
    from headwater.index_edge import EdgeIndex

    index = EdgeIndex(state / "index", state / "index.json")
    index.open_existing()
    texts = {point.payload["text_hash"]: point.payload["text"] for point in index.scan() if "text" in point.payload}
    index.close()
    return list(texts.values())


def _show(results: dict[str, Any]) -> None:
    rows = {name: statistics.median(rates) for name, rates in results["texts_per_s"].items() if rates}
    same = rows[f"raw {results['precision']}"]
    table = Table(title=f"{results['folder']}: {results['texts']} texts, median of the rounds")
    for column in ("row", "texts/s", f"of raw {results['precision']}", "of raw fp32"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name, rate in rows.items():
        table.add_row(name, f"{rate:.1f}", f"{rate / same:.2f}", f"{rate / rows['raw fp32']:.2f}")
    Console().print(table)
