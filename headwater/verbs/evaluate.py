"""``headwater evaluate``: how well does the index answer, and which model and settings answer better or faster?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from headwater.errors import SettingsError
from headwater.verbs.options import AsJson

if TYPE_CHECKING:
    from headwater.evaluation.datasets import DataSet
    from headwater.evaluation.runs import Result

__all__ = ["evaluate"]

#: columns of a table that no terminal cuts
_WIDTH = 200

Many = list[str] | None


def evaluate(
    dataset: Annotated[
        list[Path],
        typer.Argument(help="Data sets: directories (BEIR's layout, or questions.jsonl and a folder of files) or files "
                            "(questions, or scored pairs).", show_default=False),
    ],
    model: Annotated[Many, typer.Option(help="Embedding model, by name or path; may be repeated.")] = None,
    mode: Annotated[Many, typer.Option(help="hybrid (the default), dense or sparse; may be repeated.")] = None,
    truncate_dim: Annotated[
        list[int] | None, typer.Option(help="First dimensions of the vector to keep; may be repeated.")
    ] = None,
    precision: Annotated[Many, typer.Option(help="auto, fp32, bf16 or fp16; may be repeated.")] = None,
    chunk_tokens: Annotated[
        list[int] | None, typer.Option(help="Upper bound of a chunk in tokens; may be repeated.")
    ] = None,
    heading_context: Annotated[
        Many, typer.Option(help="on or off: the model reads the headings above a chunk too; may be repeated.")
    ] = None,
    quantization: Annotated[Many, typer.Option(help="none, int8 or binary; may be repeated.")] = None,
    fusion: Annotated[Many, typer.Option(help="rrf or dbsf; may be repeated.")] = None,
    rank_constant: Annotated[
        list[int] | None, typer.Option(help="Constant of the reciprocal rank; may be repeated.")
    ] = None,
    dense_weight: Annotated[
        list[float] | None, typer.Option(help="Weight of meanings in a hybrid search; may be repeated.")
    ] = None,
    sparse_weight: Annotated[
        list[float] | None, typer.Option(help="Weight of words in a hybrid search; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="The documents that a file of questions is about.")] = None,
    queries: Annotated[int | None, typer.Option(help="Ask only the first so many questions of each set.")] = None,
    work: Annotated[Path | None, typer.Option(help="Directory that keeps the indexes for the next time.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw quality against speed to this SVG file.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure how well the index answers judged questions, through the whole path, for each combination of options."""
    from headwater.evaluation.configuration import configurations
    from headwater.evaluation.plot import check_plot, draw
    from headwater.evaluation.report import print_results

    options: dict[str, Sequence[Any] | None]
    options = {
        "model": model,
        "truncate_dim": truncate_dim,
        "precision": precision,
        "chunk_tokens": chunk_tokens,
        "heading_context": heading_context,
        "quantization": quantization,
        "fusion": fusion,
        "rank_constant": rank_constant,
        "dense_weight": dense_weight,
        "sparse_weight": sparse_weight,
    }
    compared = configurations({name: values or () for name, values in options.items()}, mode or ["hybrid"])
    if plot is not None:
        check_plot(plot)
    results = _results(_load(dataset, folder, queries), compared, work, as_json=as_json)
    if as_json:
        print(json.dumps({"results": [result.to_dict() for result in results]}))
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        print_results(
            results,
            console if console.is_terminal else Console(width=_WIDTH, highlight=False, markup=False, emoji=False),
        )
    if plot is not None:
        draw(results, plot)


def _load(paths: Sequence[Path], folder: Path | None, queries: int | None) -> list[DataSet]:
    """All of them before the first is measured: a mistake in the last must not cost hours."""
    from headwater.evaluation.datasets import first, load_set

    if queries is not None and queries < 1:
        raise SettingsError(f"--queries is {queries}: give a whole number from 1 on")
    loaded: list[DataSet] = []
    names: dict[str, int] = {}
    for path in paths:
        dataset = first(load_set(path, folder), queries)
        names[dataset.name] = names.get(dataset.name, 0) + 1
        number = names[dataset.name]
        loaded.append(dataset if number == 1 else replace(dataset, name=f"{dataset.name} ({number})"))
    return loaded


def _results(datasets: Sequence[DataSet], compared: Sequence[Any], work: Path | None, *, as_json: bool) -> list[Result]:
    from headwater.evaluation.runs import Evaluator

    with _workplace(work) as place, _shown(as_json) as stage, _ended_in_order():
        evaluator = Evaluator(place, stage)
        found = (evaluator.run(dataset, each) for dataset in datasets for each in compared)
        return [result for result in found if result is not None]


@contextlib.contextmanager
def _workplace(work: Path | None) -> Iterator[Path]:
    if work is None:
        with tempfile.TemporaryDirectory(prefix="headwater-evaluate-", ignore_cleanup_errors=True) as made:
            yield Path(made)
        return
    try:
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"the directory {work} of --work cannot be made ({error.strerror}): name another") from None
    if not os.access(work, os.W_OK | os.X_OK):
        raise SettingsError(f"the directory {work} of --work is not writable: name another")
    yield work.resolve()


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: the command that indexes is ended, and what was made for a while goes."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _shown(as_json: bool) -> Iterator[_Screen]:
    screen = _Screen(Console(stderr=True, highlight=False, markup=False, emoji=False), shown=not as_json)
    try:
        yield screen
    finally:
        screen.stop()


class _Screen:
    """One bar on a terminal; sentences always."""

    def __init__(self, console: Console, *, shown: bool) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=None)
        if shown and console.is_terminal:
            self._bar.start()

    def stage(self, name: str, total: int | None = None) -> None:
        self._bar.reset(self._task, total=total, description=name)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def stop(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()
