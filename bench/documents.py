"""A folder of real documents: every file accounted for, and how fast each kind is read."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.pack import NoData
from headwater.document import path_to_text
from headwater.embedder import load_embedder
from headwater.settings import Settings
from worker.sandboxes import ExtractionFailed, ExtractionRefused, SandboxPool

#: an embedder without a network, with the tokenizer of the default model: what is measured is all but the model
SUPPORT = Path(__file__).parents[1] / "tests" / "support"
MODEL = "python:word_embedder:make"


@dataclass
class _Kind:
    files: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bytes: int = 0
    seconds: float = 0.0
    chunks: int = 0


def run(work: Path, folder: Path | None) -> dict[str, Any]:
    """``headwater up --once`` with a model that costs nothing, then each file alone through one extraction child."""
    if folder is None:
        raise NoData("--folder names no folder")
    results: dict[str, Any] = {"folder": folder.name, **_index(work, folder)}
    results["kinds"] = _kinds(folder)
    _show(results)
    return results


def _index(work: Path, folder: Path) -> dict[str, Any]:
    regular = sum(path.is_file() and not path.is_symlink() for path in folder.rglob("*"))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "headwater", "up", str(folder), "--state-dir", str(work / "state"), "--once", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HEADWATER_MODEL": MODEL, "PYTHONPATH": str(SUPPORT)},
    )
    end = json.loads(done.stdout.splitlines()[-1])
    return {
        "regular_files": regular,
        "documents": end["documents"],
        "chunks": end["chunks"],
        "seconds": time.monotonic() - started,
    }


def _kinds(folder: Path) -> dict[str, dict[str, Any]]:
    kinds: dict[str, _Kind] = defaultdict(_Kind)
    sys.path.insert(0, str(SUPPORT))
    settings = Settings.load(model=MODEL, sandboxes=1)
    with tempfile.TemporaryDirectory() as homes:
        pool = SandboxPool.of(settings, load_embedder(settings), Path(homes) / "sandbox")
        with contextlib.closing(pool):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    _take(kinds, pool, path_to_text(os.fsencode(path.name)), path.read_bytes())
    return {
        kind: {
            "files": found.files,
            "outcomes": dict(found.outcomes),
            "mb": found.bytes / 1e6,
            "mb_per_s": found.bytes / 1e6 / found.seconds,
            "chunks": found.chunks,
        }
        for kind, found in kinds.items()
    }


def _take(kinds: dict[str, _Kind], pool: SandboxPool, name: str, data: bytes) -> None:
    started = time.monotonic()
    chunks = 0
    try:
        found = pool.extract(name, data)
        inner = {member.kind for member in found.members}
        kind = f"{found.kind} of {inner.pop()}" if found.kind == "compressed" and len(inner) == 1 else found.kind
        outcome, chunks = "indexed" if found.partial is None else "partial", len(found.chunks)
    except ExtractionRefused as refusal:
        kind, outcome = f"({str(refusal)[:40]})", "refused"
    except ExtractionFailed as failure:
        kind, outcome = f"({str(failure)[:40]})", "failed"
    taken = kinds[kind]
    taken.seconds += time.monotonic() - started
    taken.files += 1
    taken.bytes += len(data)
    taken.chunks += chunks
    taken.outcomes[outcome] += 1


def _show(results: dict[str, Any]) -> None:
    counts = ", ".join(f"{number} {state}" for state, number in results["documents"].items() if number)
    console = Console()
    console.print(
        f"{results['folder']}: {results['regular_files']} regular files; {counts}; {results['chunks']} chunks in "
        f"{results['seconds']:.0f} s"
    )
    table = Table("kind", "files", "outcomes", "MB", "MB/s", "chunks")
    for kind, found in sorted(results["kinds"].items(), key=lambda item: -item[1]["mb"]):
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in found["outcomes"].items())
        numbers = (f"{found['mb']:.1f}", f"{found['mb_per_s']:.2f}", f"{found['chunks']}")
        table.add_row(kind, str(found["files"]), outcomes, *numbers)
    console.print(table)
