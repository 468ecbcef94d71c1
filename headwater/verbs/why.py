"""``headwater why PATH``: whether a file is in the index, and why, or why not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headwater.document import WITHIN, document_id, in_collection, member_path, path_to_text
from headwater.errors import HeadwaterError
from headwater.verbs.options import AsJson, Folder, StateDir
from headwater.verbs.place import Place, find_place, path_inside

__all__ = ["why"]

_NOT_FOUND = 1
#: shown names of facts
_NAMES = {"seq": "version", "content_hash": "sha256"}
#: what of a document's record people see
_OF_THE_RECORD = ("kind", "title", "size", "modified_at", "pipeline", "metadata", "members", "unread")


def why(
    path: Annotated[str, typer.Argument(help="A file or directory: a path in the folder, or as seen from here.")],
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Why a file is found, or not: excluded by which rule, failed, waiting ... Exit status 0 if it is indexed."""
    place = find_place(folder, state_dir, path)
    found = explain(place, path)
    if as_json:
        print(json.dumps(found))
    else:
        _show(Console(highlight=False, markup=False, emoji=False), found)
    if not found["found"]:
        sys.exit(_NOT_FOUND)


def explain(place: Place, text: str) -> dict[str, Any]:
    """The answer as one JSON-able object: ``path``, ``found`` (bool), ``state``, ``answer``, ``notes`` and facts."""
    from producer.evidence import Examiner

    examiner = Examiner(place.root, place.settings, place.layout, place.running)
    path = path_inside(text, place.folder, Path.cwd(), examiner.knows)
    file, _, member = path.partition(WITHIN.encode())
    if not member or examiner.knows(path) or not examiner.knows(file):
        file, member = path, b""
    found = examiner.examine(file)
    facts, notes = dict(found.facts), list(found.notes)
    if "documents" not in facts and found.facts.get("chunks"):
        record, note = _record(place, document_id(in_collection(file, place.settings.source)))
        facts |= record
        notes += [note] if note else []
    notes += [f"not indexed within it: {reason}" for reason in facts.get("unread") or ()]
    answer = {
        "path": found.path,
        "found": found.found,
        "state": found.state,
        "answer": found.sentence,
        "notes": notes,
        **{name: value for name, value in facts.items() if value is not None},
    }
    return _of_member(answer, path_to_text(member)) if member else answer


def _of_member(whole: Mapping[str, Any], member: str) -> dict[str, Any]:
    """What a document's answer says of a file within it."""
    answer = {**whole, "path": member_path(whole["path"], member)}
    refusal = next((why for why in whole.get("unread", ()) if why.startswith(f"{member}: ")), None)
    if not whole["found"] or member in whole.get("members", ()):
        return answer
    if refusal is not None:
        told = {"state": "refused", "answer": refusal.removeprefix(f"{member}: "), "notes": []}
    else:
        told = {"state": "absent", "answer": f"no such file is known within {whole['path']}"}
    return {**answer, "found": False, **told}


def _record(place: Place, document: str) -> tuple[dict[str, Any], str | None]:
    """What the index itself says of a document; a note if it cannot be asked, or contradicts the ledger."""
    try:
        record = read_record(place, document)
    except HeadwaterError as error:
        return {}, f"the index could not be asked: {error}"
    if record is None:
        return {}, "the ledger says that it is indexed and the index does not have it: run 'headwater verify'"
    return {name: record.get(name) for name in ("model", *_OF_THE_RECORD)}, None


def read_record(place: Place, document: str) -> Mapping[str, Any] | None:
    """The record of a document in the index, with the name of the index's ``model``; None if there is none.

    Asks the running service, else the index itself. Raises HeadwaterError if neither answers.
    """
    from headwater.verbs.reader import open_reader

    with open_reader(place) as reader:
        return reader.record(document)


def _show(console: Console, found: Mapping[str, Any]) -> None:
    colour = {True: "bold green", False: "bold yellow"}[found["found"]]
    console.print(f"{found['state']}  {found['path']}", style=colour)
    console.print(f"  {found['answer']}")
    for name in ("seq", "content_hash", "model", "kind", "title", "size"):
        if found.get(name) is not None and "documents" not in found:
            console.print(f"  {_NAMES.get(name, name):9}{found[name]}", style="dim")
    if found["state"] not in ("excluded", "absent") and found.get("rule"):
        console.print(f"  {'taken in':9}by {found['rule']}", style="dim")
    for note in found["notes"]:
        console.print(f"  - {note}")
