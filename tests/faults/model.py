"""The fault group "model": a model that cannot be used at start, and one that misbehaves at some texts.

``python tests/faults/model.py --runs 20 --seed 1 --out FILE`` runs real services with a real, small model: its files
missing or damaged, or the model giving too few vectors, NaN or no answer for texts that hold a mark. One JSON line per
run; exit status 1 if any has a violation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
sys.path[:0] = [str(path) for path in (_ROOT, _HERE.parent / "support") if str(path) not in sys.path]

import numpy as np
from driver import Headwater

from headwater.embedder import Embedder, load_embedder
from headwater.settings import Settings

__all__ = ["AT_START", "AT_WORK", "Bench", "Verdict"]

HOSTILE = _HERE / "hostile"
#: a pass of the small model takes milliseconds
_EMBED_TIMEOUT_S = "2"
_MOST_DISTANCE = 1e-3


@dataclass
class Verdict:
    """What came of a run, as it is printed."""

    group: str
    fault: str
    seed: int
    runs: int
    converge_s: float = 0.0
    verdict: str = "pass"
    violations: list[str] = field(default_factory=list)

    def demand(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(what)
            self.verdict = "fail"


# -- damage to a model's files ------------------------------------------------------------------------------------


def _truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def _nan_weights(model: Path) -> None:
    """Weights that load without an error, and are no numbers."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(model / "model.safetensors")
    save_file({name: np.full_like(value, np.nan) for name, value in weights.items()}, model / "model.safetensors")


def _without_tokenizer(model: Path) -> None:
    for path in model.glob("*token*"):
        path.unlink()


#: name -> damage to a copy of the model
AT_START: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "weights truncated": _truncate,
    "weights missing": lambda model: (model / "model.safetensors").unlink(),
    "weights of zeros": lambda model: (model / "model.safetensors").write_bytes(bytes(4096)),
    "weights not numbers": _nan_weights,
    "config garbage": lambda model: (model / "config.json").write_text("{ garbage"),
    "modules garbage": lambda model: (model / "modules.json").write_bytes(b"\xff\xfe not json"),
    "tokenizer missing": _without_tokenizer,
    "tokenizer garbage": lambda model: (model / "tokenizer.json").write_text('{"version": "1.0"'),
}

#: name -> marks of the documents for which the model misbehaves
AT_WORK: dict[str, tuple[str, ...]] = {
    "too few vectors": ("MODELGIVESFEW",),
    "vectors not finite": ("MODELGIVESNAN",),
    "no answer": ("MODELHANGS",),
    "two without answer": ("MODELHANGS", "MODELHANGS"),
    "all at once": ("MODELGIVESFEW", "MODELGIVESNAN", "MODELHANGS"),
}


@dataclass
class Bench:
    """A model that is whole, and a directory for what the runs need."""

    directory: Path
    model: Path
    _embedder: Embedder | None = None

    def at_start(self, name: str, seed: int) -> Verdict:
        """One sentence and a status that says so; no try is spent; with the model repaired, all is indexed."""
        verdict = Verdict("model", f"at start: {name}", seed, 1)
        service, good = self._service(seed, name, ())
        damaged = self.directory / f"model-{seed}-{name.replace(' ', '-')}"
        shutil.copytree(self.model, damaged)
        AT_START[name](damaged)
        service.environment["HEADWATER_MODEL"] = str(damaged)
        done = service.run("up", str(service.folder), "--once", "--json", check=False)
        sentences = [line for line in done.stderr.splitlines() if line.strip()]
        verdict.demand(done.returncode == 78, f"status {done.returncode}, not 78")
        verdict.demand(len(sentences) == 1 and sentences[0].startswith("headwater: the model "), f"said {sentences}")
        for path, state, attempts in _ledger(service, "path, state, attempts"):
            verdict.demand((state, attempts) == ("waiting", 0), f"{path!r} is {state} after {attempts} tries")
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(self.model, damaged)
        started = time.monotonic()
        service.once()
        verdict.converge_s = round(time.monotonic() - started, 3)
        self._check(service, good, 0, verdict)
        return self._end(service, verdict)

    def at_work(self, name: str, seed: int) -> Verdict:
        """The marked documents end as failed with a reason; all else is indexed, each text with its own vector."""
        verdict = Verdict("model", f"at work: {name}", seed, 1)
        service, good = self._service(seed, name, AT_WORK[name])
        service.environment |= {
            "HEADWATER_MODEL": str(self.model),
            "HEADWATER_EMBED_TIMEOUT_S": _EMBED_TIMEOUT_S,
            "PYTHONPATH": os.pathsep.join([str(HOSTILE), str(_ROOT)]),
        }
        started = time.monotonic()
        service.once()
        verdict.converge_s = round(time.monotonic() - started, 3)
        self._check(service, good, len(AT_WORK[name]), verdict)
        return self._end(service, verdict)

    def _service(self, seed: int, name: str, marks: Sequence[str]) -> tuple[Headwater, dict[str, str]]:
        """Good documents of a few lengths, among them marked ones of the same: they share a pass of the model."""
        chance = random.Random(f"{name}/{seed}")
        home = self.directory / f"{seed}-{name.replace(' ', '-')}"
        folder = home / "folder"
        folder.mkdir(parents=True)
        good = {f"good-{n:02}.md": _words(chance, n) for n in range(24)}
        for path, words in good.items():
            (folder / path).write_text(words)
        for number, mark in enumerate(marks):
            (folder / f"good-{number}-bad.md").write_text(f"{mark} {_words(chance, number)}")
        return Headwater(folder, home / "state"), good

    def _check(self, service: Headwater, good: dict[str, str], bad: int, verdict: Verdict) -> None:
        found: dict[str, dict[str, Any]] = {p["payload"]["path"]: p for p in service.points() if "text" in p["payload"]}
        verdict.demand(set(found) == set(good), f"indexed besides or missing: {sorted(set(found) ^ set(good))}")
        own = self._vectors(list(good.values()))
        for (path, words), vector in zip(good.items(), own, strict=True):
            if path in found:
                verdict.demand(found[path]["payload"]["text"] == words, f"{path} has another text")
                distance = float(np.abs(np.asarray(found[path]["vector"]["dense"]) - vector).max())
                verdict.demand(distance < _MOST_DISTANCE, f"{path} has the vector of another text ({distance:.3f})")
        ends = _ledger(service, "path, reason", "state = 'failed'")
        verdict.demand(len(ends) == bad, f"{len(ends)} documents failed, not {bad}: {ends}")
        for path, reason in ends:
            verdict.demand(b"bad" in path and "the model gave" in (reason or ""), f"{path!r} failed: {reason}")

    def _vectors(self, texts: Sequence[str]) -> Any:
        if self._embedder is None:
            self._embedder = load_embedder(Settings.load(model=str(self.model), folder=self.directory))
        return self._embedder.encode(texts, "document")

    def _end(self, service: Headwater, verdict: Verdict) -> Verdict:
        service.kill()
        shutil.rmtree(service.folder.parent)
        return verdict


def _words(chance: random.Random, number: int) -> str:
    return f"nonce{chance.getrandbits(64):x} " + "heron water bridge " * (1 + number % 3 * 8) + "end."


def _ledger(service: Headwater, columns: str, where: str = "1") -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(service.state / "ledger.sqlite3")) as ledger:
        return ledger.execute(f"SELECT {columns} FROM documents WHERE {where}").fetchall()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the lines to this file")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from tiny_model import make_tiny_model

    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="hw-model-") as scratch, contextlib.ExitStack() as stack:
        out = stack.enter_context(open(options.out, "w")) if options.out else None
        bench = Bench(Path(scratch), make_tiny_model(Path(scratch)))
        kinds = [*((bench.at_start, name) for name in AT_START), *((bench.at_work, name) for name in AT_WORK)]
        for number in range(options.runs):
            run, name = kinds[number % len(kinds)]
            verdicts.append(run(name, options.seed + number))
            line = json.dumps(asdict(verdicts[-1]))
            print(line, flush=True)
            if out is not None:
                print(line, file=out, flush=True)
    return _summary(verdicts)


def _summary(verdicts: Sequence[Verdict]) -> int:
    times = [verdict.converge_s for verdict in verdicts]
    bad = sum(1 for verdict in verdicts if verdict.violations)
    figures = {"median_s": round(statistics.median(times), 3), "worst_s": max(times)}
    print(json.dumps({"group": "model", "runs": len(verdicts), "violations": bad, **figures}), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
