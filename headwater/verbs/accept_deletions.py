"""``headwater accept-deletions``: what vanished in such numbers that it is held is meant to go."""

from __future__ import annotations

import json
from contextlib import closing

from headwater.errors import SettingsError
from headwater.verbs.options import AsJson, Folder, StateDir
from headwater.verbs.place import find_place

__all__ = ["accept_deletions"]


def accept_deletions(folder: Folder = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Let deletions go on that are held because so many documents vanished at once."""
    from producer.ledger import Ledger

    place = find_place(folder, state_dir)
    if not place.layout.ledger.exists():
        raise SettingsError(f"there is no ledger in {place.layout.root}: run 'headwater up FOLDER' first")
    with closing(Ledger(place.layout.ledger)) as ledger:
        accepted = ledger.accept_deletions()
    if as_json:
        print(json.dumps({"accepted": accepted, "running": place.running}))
    elif not accepted:
        print("no deletions are held")
    else:
        print(f"accepted: {accepted} deletions go on {'now' if place.running else 'at the next start'}")
