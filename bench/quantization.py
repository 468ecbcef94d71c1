"""What int8 and binary copies of the vectors cost in answers: one index, compacted anew with each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from bench.pack import retrieval_set
from headwater.evaluation.configuration import Configuration
from headwater.evaluation.corpus import write_corpus
from headwater.evaluation.datasets import QuestionSet, load_set
from headwater.evaluation.indexing import build_index
from headwater.evaluation.runs import ask
from headwater.evaluation.scoring import figures, latency, scores
from headwater.index import Quantization
from headwater.index_process import ProcessIndex
from headwater.local import LocalEngine
from headwater.query import Index
from headwater.state import Layout


class _Silent:
    """A stage that shows nothing."""

    def stage(self, name: str, total: int | None = None) -> None: ...

    def update(self, done: int, total: int) -> None: ...

    def note(self, text: str) -> None: ...


def run(work: Path, kept: Path | None) -> dict[str, Any]:
    """nDCG@10 of SciFact, dense, and the time of a search, with each kind of copy."""
    judged = load_set(retrieval_set("scifact"))
    assert isinstance(judged, QuestionSet) and judged.corpus is not None
    place = kept or work
    built = build_index(Configuration(), write_corpus(judged.corpus, place / "corpora"), place, _Silent())
    assert built.settings.state_dir is not None
    results = {}
    for kind in get_args(Quantization):
        copy = work / kind
        shutil.copytree(built.settings.state_dir, copy)
        results[kind] = _asked(
            copy, judged, built.settings.model_copy(update={"state_dir": copy, "quantization": kind})
        )
    _show(results)
    return results


def _asked(state: Path, judged: QuestionSet, settings: Any) -> dict[str, float]:
    layout = Layout(state)
    index = ProcessIndex(layout.index, layout.manifest, on_damage=_end, quantization=settings.quantization)
    manifest = index.open_existing()
    index.ensure_schema(manifest.model, manifest.dimension)  # takes the kind of copies over
    index.compact()
    with Index(LocalEngine.open(index, settings), settings) as asked:
        answers = ask(asked, judged, "dense", _Silent())
    measured = figures([scores(q, a, documents=True) for q, a in zip(judged.questions, answers, strict=True)])
    taken = latency(answers)
    assert taken is not None
    return {
        "ndcg@10": measured["ndcg@10"].mean,
        "recall@100": measured["recall@100"].mean,
        "p50_ms": taken.p50_ms,
        "copies": sum(file.stat().st_size for file in layout.index.rglob("quantized.data")),
    }


def _end(sentence: str) -> None:
    raise SystemExit(sentence)


def _show(results: dict[str, Any]) -> None:
    table = Table(title="SciFact, dense, compacted")
    for column in ("copies", "nDCG@10", "Recall@100", "p50 ms", "copies MB"):
        table.add_column(column, justify="left" if column == "copies" else "right")
    for kind, found in results.items():
        ms, mb = f"{found['p50_ms']:.1f}", f"{found['copies'] / 1e6:.2f}"
        table.add_row(kind, f"{found['ndcg@10']:.4f}", f"{found['recall@100']:.4f}", ms, mb)
    Console().print(table)
