"""``headwater rollback``: back to the index before the last reindex, which is brought up to date first."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from headwater.errors import SettingsError
from headwater.failpoints import reach
from headwater.generations import Note, Return, existing
from headwater.settings import Settings
from headwater.state import Layout, Lock, Pointer, find_layout
from headwater.verbs.options import AsJson, Folder, StateDir

__all__ = ["rollback"]


def rollback(
    now: Annotated[bool, typer.Option("--now", help="At once, and catch up with the folder afterwards.")] = False,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the index before the last reindex. The other one answers until it has caught up with the folder; once
    more, and it is the other one again."""
    from headwater.verbs.reindexing import Returning

    given = Settings.read(folder=folder, state_dir=state_dir)
    layout = find_layout(given).create()
    lock = Lock(layout, "reindex").acquire()
    try:
        noted = _noted(layout)
        target = Layout(layout.root, noted.generation)
        console = Console(highlight=False, markup=False, emoji=False)
        run = Returning(given, target, noted.source, console, as_json)
        run.run(now=now)
        layout.rollback.unlink(missing_ok=True)
    finally:
        lock.release()
    if run.interrupted:
        print("headwater: nothing was moved: run it again, and it goes on", file=sys.stderr)
        sys.exit(130)
    sentence = f"generation {target.generation} is the current index"
    print(json.dumps({"sentence": sentence, "generation": target.generation}) if as_json else sentence)


def _noted(layout: Layout) -> Return:
    """The rollback that is under way, else a new one: one that was killed when it had moved must not move again."""
    _check_no_reindex(layout)
    noted, there = Return.read(layout), existing(layout.root)
    if noted is None or noted.generation not in there:
        previous = Pointer.read(layout).previous
        if previous is None or previous not in there:
            raise SettingsError(
                f"there is no index to go back to in {layout.root}: one that was replaced is kept for "
                "HEADWATER_KEEP_GENERATION_S seconds"
            )
        noted = Return(previous, layout.generation)
        noted.write(layout)
    reach("rollback:noted")
    return noted


def _check_no_reindex(layout: Layout) -> None:
    note = Note.read(layout)
    if note is not None:
        raise SettingsError(
            f"a reindex is under way (generation {note.generation}): let 'headwater reindex' end, or "
            "give it up with --cancel"
        )
