"""Results for people: a table per data set, one row per configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from headwater.evaluation.configuration import COMPARED_SETTINGS
from headwater.evaluation.measures import Interval
from headwater.evaluation.runs import Result
from headwater.evaluation.scoring import MEASURES, headline

__all__ = ["TITLES", "labels", "print_results", "shown_number"]

#: what people read for each measure
TITLES = {
    "ndcg@10": "nDCG@10", "recall@10": "Recall@10", "recall@100": "Recall@100", "mrr@10": "MRR@10",
    "answer@1": "answer in top 1", "answer@5": "answer in top 5", "answer_mrr@10": "answer MRR@10",
    "span_recall@5": "span recall", "span_precision@5": "span precision", "span_iou@5": "span IoU",
    "spearman": "Spearman x 100",
}  # fmt: skip


def print_results(results: Sequence[Result], console: Console) -> None:
    """A table for each data set, and below it what is not as it should be."""
    for name, rows in groupby(results, key=lambda result: result.dataset):
        _print_set(name, list(rows), console)


def _print_set(name: str, results: list[Result], console: Console) -> None:
    table = Table(title=f"{name}: {results[0].asked} {'pairs' if results[0].kind == 'pairs' else 'questions'}")
    table.add_column("configuration", overflow="fold")
    columns = [(title, [cell(result) for result in results]) for title, cell in _columns(results)]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in columns:
        table.add_column(title, justify="right")
    for at, configuration in enumerate(labels(results)):
        table.add_row(configuration, *(cells[at] or "-" for _, cells in columns))
    console.print(table)
    for note in _notes(results):
        console.print(note, soft_wrap=True)


def _columns(results: Sequence[Result]) -> Iterator[tuple[str, Callable[[Result], str]]]:
    main = headline(results[0].measures)
    for name in MEASURES:
        yield TITLES[name], partial(_measure, name=name, interval=name == main)
    yield "p50 ms", lambda result: _number(result.p50_ms, "{:.1f}")
    yield "p95 ms", lambda result: _number(result.p95_ms, "{:.1f}")
    yield "texts/s", lambda result: _number(result.texts_per_s, "{:.1f}")
    yield "parameters", lambda result: shown_number(result.model.parameters)
    yield "dimension", lambda result: str(result.model.dimension)
    yield "window", lambda result: str(result.model.window)
    yield "index MB", lambda result: "" if result.built is None else f"{result.built.index_bytes / 1e6:.1f}"


def _measure(result: Result, *, name: str, interval: bool) -> str:
    value = result.measures.get(name)
    if value is None:
        return ""
    if not isinstance(value, Interval):
        return f"{value:.2f}"
    ends = f" ({value.low:.3f}-{value.high:.3f})" if interval else ""
    return f"{value.mean:.3f}{ends}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def shown_number(number: int) -> str:
    """22713216 as "22.7 M"."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _notes(results: Sequence[Result]) -> Iterator[str]:
    for configuration, result in zip(labels(results), results, strict=True):
        if result.refused:
            refused = f"{result.refused} questions are longer than the model reads"
            yield f"{configuration}: {refused}, and count as not answered"
        documents = {} if result.built is None else result.built.documents
        lost = ", ".join(f"{n} {state}" for state, n in documents.items() if n and state != "indexed")
        if lost:
            yield f"{configuration}: not all documents are in the index ({lost})"


# -- names of configurations ----------------------------------------------------------------------------------


def labels(results: Sequence[Result]) -> list[str]:
    """What tells each configuration of a data set from the others: the model, what differs, and the mode."""
    shown = [name for name in COMPARED_SETTINGS if name != "model" and len({_value(r, name) for r in results}) > 1]
    models = {_value(result, "model") for result in results}
    full = len({_short(result) for result in results}) < len(models)
    return [_label(result, shown, full=full) for result in results]


def _label(result: Result, names: Sequence[str], *, full: bool) -> str:
    model = str(_value(result, "model")) if full else _short(result)
    values = [f"{name}={_value(result, name)}" for name in names]
    return " ".join((model, *values, *([] if result.kind == "pairs" else [result.configuration.mode])))


def _short(result: Result) -> str:
    return result.model.name.partition("@")[0]


def _value(result: Result, name: str) -> Any:
    return dict(result.configuration.values).get(name)
