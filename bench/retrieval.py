"""Retrieval through the whole path beside the same model without a service: each document encoded as one text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.pack import retrieval_set

_ROOT = Path(__file__).resolve().parents[1]
_SETS = ("scifact", "cranfield")
_MODES = ("dense", "sparse", "hybrid")


def run(work: Path, kept: Path | None) -> dict[str, Any]:
    """nDCG@10 of each set, by the service in each mode and by encode-and-compare. ``kept``: where indexes stay."""
    results = {}
    for name in _SETS:
        place = retrieval_set(name)
        results[name] = {"whole documents": _whole(place), **_evaluated(place, kept or work)}
    _show(results)
    return results


def _evaluated(place: Path, work: Path) -> dict[str, Any]:
    modes = [argument for mode in _MODES for argument in ("--mode", mode)]
    command = [sys.executable, "-m", "headwater", "evaluate", str(place), *modes, "--work", str(work), "--json"]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(done.stdout)["results"]
    return {row["configuration"]["mode"]: row["measures"]["ndcg@10"] for row in rows}


def _whole(place: Path) -> dict[str, float]:
    """In a process of its own: the service gets all the memory and threads back."""
    command = [sys.executable, "-m", "bench.whole", str(place)]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {"mean": float(json.loads(done.stdout.splitlines()[-1])["ndcg@10"])}


def _show(results: dict[str, Any]) -> None:
    table = Table(title="nDCG@10")
    for column in ("set", "whole documents", *_MODES, "dense less whole"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for name, found in results.items():
        means = {way: value["mean"] for way, value in found.items()}
        less = means["dense"] - means["whole documents"]
        table.add_row(name, *(f"{means[way]:.4f}" for way in ("whole documents", *_MODES)), f"{less:+.4f}")
    Console().print(table)
