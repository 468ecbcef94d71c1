"""``headwater extract FILE``: what Headwater reads in a file. Writes nothing."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from headwater.document import member_path
from headwater.errors import FileUnreadable
from headwater.settings import Settings
from headwater.verbs.options import AsJson

__all__ = ["extract"]

_NOT_READ = 1
#: characters of a chunk that people are shown without --text
_MOST_SHOWN = 200
#: fields of a chunk that do not say where it stands or what it holds
_INTERNAL = frozenset(("text_hash", "member", "context"))


def extract(
    file: Annotated[Path, typer.Argument(help="Any file; it need not be in the folder.")],
    text: Annotated[bool, typer.Option("--text", help="Show each chunk whole.")] = False,
    as_json: AsJson = False,
) -> None:
    """What Headwater reads in a file: kind, library, fields, and chunks with tokens and positions. Exit status 0 if
    it would be indexed."""
    settings = Settings.load()
    data = _bytes_of(file, settings.max_file_bytes)
    with Status(f"reading {file.name}", console=Console(stderr=True)):
        found = examine(settings, file.name, data)
    if as_json:
        print(json.dumps({"file": str(file), **found}))
    else:
        _show(Console(highlight=False, markup=False, emoji=False), file, found, whole=text)
    if found["outcome"] not in ("indexed", "partial"):
        sys.exit(_NOT_READ)


def _bytes_of(file: Path, most: int) -> bytes:
    """Raises FileUnreadable."""
    try:
        if not file.is_file():
            raise FileUnreadable(f"{file} is {'no regular file' if file.exists() else 'not there'}: name a document")
        if file.stat().st_size > most:
            raise FileUnreadable(
                f"{file} is larger than the limit of {most} bytes: raise HEADWATER_MAX_FILE_BYTES to have it indexed"
            )
        return file.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"{file} cannot be read ({error.strerror}): allow it or name another") from None


def examine(settings: Settings, name: str, data: bytes) -> dict[str, Any]:
    """What a worker would make of a document of this name, as one JSON-able object: ``outcome`` and ``reason``, and if
    it is read ``kind``, ``library``, ``title``, ``language``, ``metadata``, ``members``, ``unread`` and ``chunks``."""
    from headwater.embedder import load_embedder
    from worker.sandboxes import ExtractionFailed, ExtractionRefused, SandboxPool
    from worker.tokens import ModelTokenizer

    embedder = load_embedder(settings)
    with tempfile.TemporaryDirectory(prefix="headwater-extract-") as homes:
        one = settings.model_copy(update={"sandboxes": 1})
        with contextlib.closing(SandboxPool.of(one, embedder, Path(homes) / "sandbox")) as pool:
            try:
                found = pool.extract(name, data)
            except ExtractionRefused as refusal:
                return {"outcome": "refused", "reason": str(refusal)}
            except ExtractionFailed as failure:
                return {"outcome": "failed", "reason": str(failure)}
    tokens = ModelTokenizer(embedder.tokenizer_json).counts([chunk.embedded for chunk in found.chunks])
    return {
        "outcome": "indexed" if found.partial is None else "partial",
        "reason": found.partial,
        "kind": found.kind,
        "library": found.libraries.get(found.kind),
        "title": found.title,
        "language": found.language,
        "metadata": dict(found.metadata),
        "members": [{**asdict(member), "library": found.libraries.get(member.kind)} for member in found.members],
        "unread": list(found.unread),
        "chunks": [
            {
                **{field: value for field, value in asdict(chunk).items() if field not in _INTERNAL},
                "path": member_path(name, None if chunk.member is None else found.members[chunk.member].name),
                "tokens": count,
            }
            for chunk, count in zip(found.chunks, tokens, strict=True)
        ],
    }


def _show(console: Console, file: Path, found: Mapping[str, Any], *, whole: bool) -> None:
    colour = {"indexed": "bold green", "partial": "bold yellow"}.get(found["outcome"], "bold red")
    console.print(f"{found['outcome']}  {file}", style=colour, soft_wrap=True)
    if found["reason"]:
        console.print(f"  {found['reason']}", soft_wrap=True)
    if "chunks" not in found:
        return
    _show_about(console, found)
    for member in found["members"]:
        console.print(f"\n{member_path(file.name, member['name'])}", style="bold", soft_wrap=True)
        _show_about(console, member)
    for reason in found["unread"]:
        console.print(f"  not read: {reason}", style="yellow", soft_wrap=True)
    for chunk in found["chunks"]:
        _show_chunk(console, chunk, whole=whole)


def _show_about(console: Console, found: Mapping[str, Any]) -> None:
    named = {name: found[name] for name in ("kind", "library", "title", "language")} | dict(found["metadata"])
    for name, value in named.items():
        if value not in (None, ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            console.print(f"  {name:10} {shown}", style="dim", soft_wrap=True)


def _show_chunk(console: Console, chunk: Mapping[str, Any], *, whole: bool) -> None:
    lines = f"lines {chunk['start_line']}-{chunk['end_line']}" if chunk["start_line"] else ""
    page = f"page {chunk['page']}" if chunk["page"] else ""
    place = ", ".join(filter(None, (page, lines, f"characters {chunk['start']}-{chunk['end']}")))
    console.print(
        f"\n{chunk['number']}  {chunk['path']}  {place}  {chunk['tokens']} tokens", style="bold", soft_wrap=True
    )
    if chunk["headings"]:
        console.print("  " + " > ".join(chunk["headings"]), style="dim", soft_wrap=True)
    if whole:
        console.print(chunk["text"], soft_wrap=True)
    else:
        console.print("  " + " ".join(chunk["text"].split())[:_MOST_SHOWN], soft_wrap=True)
