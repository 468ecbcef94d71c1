"""``headwater reindex``: another model or way of cutting, without a moment in which nothing or half is found."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headwater.errors import SettingsError
from headwater.following import current, drop_left, followed_in, remove, tell_pins
from headwater.generations import MAKING, Note, unpin
from headwater.settings import Settings
from headwater.state import Layout, Lock, Pointer, find_layout
from headwater.verbs.options import AsJson, Folder, StateDir

__all__ = ["reindex"]


def reindex(
    folder: Folder = None,
    model: Annotated[str | None, typer.Option(help="Embedding model of the new index, by name or path.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting that makes an index; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries to compare by, one per line (default: sentences of the documents).")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Judged questions about the folder, to compare by (docs/evaluate.md).")
    ] = None,
    min_overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help="Move only if both find this share of the same hits, at least.")
    ] = None,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Move though the new index misses documents of the old one.")
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Fill and compare, do not move; 'headwater reindex' goes on then.")
    ] = False,
    no_worker: Annotated[
        bool,
        typer.Option("--no-worker", help="Embed nothing here: workers of other hosts fill the new index (servers)."),
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give up a reindex that is under way, and remove what it made.")
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Remove indexes that were replaced now, not when their time is over.")
    ] = False,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make the index anew with other settings beside the one that answers, compare, and move to it.

    The settings are those given here and those of the environment that differ from what the index was made with. Killed
    or stopped at any moment, the same command goes on."""
    from headwater.verbs.reindexing import Check, Reindexing

    asked = _asked(model, set_ or [])
    given = Settings.read(folder=folder, state_dir=state_dir, **asked)
    layout = find_layout(given).create()
    console = Console(highlight=False, markup=False, emoji=False)
    lock = Lock(layout, "reindex").acquire()
    try:
        if cancel:
            _say(_cancel(given, layout), console, as_json=as_json)
            return
        if drop_old:
            _say(_drop(given, layout), console, as_json=as_json)
            return
        check = Check(queries, evaluation, min_overlap, accept_missing, check_only)
        run = Reindexing(given, layout, frozenset(asked), check, console, as_json, not no_worker)
        run.run()
    finally:
        lock.release()
    if run.interrupted:
        print("headwater: the reindex was stopped: run it again, and it goes on", file=sys.stderr)
        sys.exit(130)


def _asked(model: str | None, others: list[str]) -> dict[str, Any]:
    """Settings by name. Raises SettingsError for one that makes no index."""
    asked: dict[str, Any] = {} if model is None else {"model": model}
    for text in others:
        name, equals, value = text.partition("=")
        field = name.strip().lower().removeprefix("headwater_")
        if not equals or field not in MAKING:
            raise SettingsError(f"--set {text}: give NAME=VALUE, where NAME is one of {', '.join(MAKING)}")
        asked[field] = value or None
    return asked


def _cancel(given: Settings, layout: Layout) -> dict[str, Any]:
    note = Note.read(layout)
    if note is None:
        return {"sentence": "no reindex is under way"}
    if note.generation in (Pointer.read(layout).generation, current(given)):
        raise SettingsError(
            f"the index has been moved to generation {note.generation} already: run 'headwater reindex' to end that, "
            "and 'headwater rollback' to go back"
        )
    remove(given)(Layout(layout.root, note.generation))
    source = Layout(layout.root, note.source)
    unpin(source, note.source_pins)
    tell_pins(given, source)
    layout.reindex.unlink()
    return {"sentence": f"the reindex is given up, and generation {note.generation} is removed"}


def _drop(given: Settings, layout: Layout) -> dict[str, Any]:
    while (wait_s := followed_in(given, layout)) > 0:
        time.sleep(min(wait_s, 1.0))
    dropped = drop_left(given, layout.root, 0.0)
    names = ", ".join(str(number) for number in dropped)
    return {"sentence": f"removed: generation {names}" if dropped else "there is nothing to remove", "dropped": dropped}


def _say(answer: dict[str, Any], console: Console, *, as_json: bool) -> None:
    print(json.dumps(answer)) if as_json else console.print(answer["sentence"])
