"""``headwater rollback``: back to the index before the last reindex, which is brought up to date first."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from headwater.errors import SettingsError
from headwater.generations import Note, existing
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
        target = _target(layout)
        run = Returning(given, target, Console(highlight=False, markup=False, emoji=False), as_json)
        run.run(now=now)
    finally:
        lock.release()
    if run.interrupted:
        print("headwater: nothing was moved: run it again, and it goes on", file=sys.stderr)
        sys.exit(130)
    sentence = f"generation {target.generation} is the current index"
    print(json.dumps({"sentence": sentence, "generation": target.generation}) if as_json else sentence)


def _target(layout: Layout) -> Layout:
    note = Note.read(layout)
    if note is not None:
        raise SettingsError(
            f"a reindex is under way (generation {note.generation}): let 'headwater reindex' end, or "
            "give it up with --cancel"
        )
    previous = Pointer.read(layout).previous
    if previous is None or previous not in existing(layout.root):
        raise SettingsError(
            f"there is no index to go back to in {layout.root}: one that was replaced is kept for "
            "HEADWATER_KEEP_GENERATION_S seconds"
        )
    return Layout(layout.root, previous)
