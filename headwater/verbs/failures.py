"""``headwater failures``: what could not be indexed and why; ``--retry`` gives it all its tries again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headwater.document import path_to_text
from headwater.errors import QueryError
from headwater.verbs.options import AsJson, Folder, StateDir
from headwater.verbs.place import Place, find_place, path_inside

if TYPE_CHECKING:
    from producer.entries import Entry

__all__ = ["failures"]

_SOME = 1


def failures(
    paths: Annotated[list[str] | None, typer.Argument(help="Only these documents, or those below them.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try them again, with all their tries.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also what is refused, or indexed in part.")] = False,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """What failed, with reason and number of tries. Exit status 1 if anything did, 0 if nothing or after --retry."""
    place = find_place(folder, state_dir, paths[0] if paths else None)
    found = _found(place, paths or [], every=every)
    retried = _retry(place, found) if retry else 0
    console = Console(highlight=False, markup=False, emoji=False)
    if as_json:
        shown = [_to_dict(entry) for entry in found]
        print(json.dumps({"failures": shown, "retried": retried, "running": place.running}))
    elif retry:
        _say_retried(console, place, retried)
    else:
        _show(console, found)
    if found and not retry:
        sys.exit(_SOME)


def _found(place: Place, texts: list[str], *, every: bool) -> list[Entry]:
    """The documents that did not make it, by path; only those at or below the paths that are given, if any is.

    Raises QueryError if nothing failed at one of these.
    """
    from producer.entries import Entries

    if not place.layout.ledger.exists():
        return []
    with Entries(place.layout.ledger) as ledger:
        entries = ledger.with_states(("failed", "refused", "partial") if every else ("failed",))
        paths = [path_inside(text, place.folder, Path.cwd(), lambda path: bool(ledger.below(path))) for text in texts]
    for text, path in zip(texts, paths, strict=True):
        if not any(_within(entry, path) for entry in entries):
            raise QueryError(f"nothing failed at {text}: see 'headwater why {text}'")
    return [entry for entry in entries if not paths or any(_within(entry, path) for path in paths)]


def _within(entry: Entry, path: bytes) -> bool:
    return not path or entry.path == path or entry.path.startswith(path + b"/")


def _retry(place: Place, found: Sequence[Entry]) -> int:
    """Make the documents due, with all their tries, in one transaction that the running service sees at its next look;
    how many. One that waits for its next try anyway stays as it is."""
    from producer.ledger import Ledger

    if not found:
        return 0
    with closing(Ledger(place.layout.ledger)) as ledger, ledger.transaction():
        return sum(ledger.want_again(entry.path) for entry in found)


def _to_dict(entry: Entry) -> dict[str, Any]:
    """``at`` (of the last outcome) and ``retry_at`` (if it is tried again by itself) in seconds since the epoch."""
    return {
        "path": path_to_text(entry.path),
        "state": entry.current,
        "reason": entry.reason,
        "tries": entry.attempts,
        "at": entry.settled_at or None,
        "retry_at": entry.due_at if entry.waiting else None,
    }


def _show(console: Console, found: Sequence[Entry]) -> None:
    for entry in found:
        console.print(f"{entry.current:8} {path_to_text(entry.path)}", style="bold", soft_wrap=True)
        console.print(f"         {_told(entry)}", soft_wrap=True)
    counts = Counter(entry.current for entry in found)
    console.print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "nothing failed")


def _told(entry: Entry) -> str:
    """Reason, number of tries and time in one line."""
    from producer.entries import local_time

    tries = f", tried {'once' if entry.attempts == 1 else f'{entry.attempts} times'}" if entry.attempts else ""
    when = f"again at {local_time(entry.due_at)}" if entry.waiting else local_time(entry.settled_at)
    return f"{entry.reason or 'no reason is known'} ({when}{tries})"


def _say_retried(console: Console, place: Place, number: int) -> None:
    if not number:
        console.print("nothing to try again")
        return
    when = "the service tries them now" if place.running else "the next 'headwater up' tries them"
    console.print(f"{number} document{'s'[: number != 1]} will be tried again: {when}")
