"""``headwater search``, ``similar``, ``similarity`` and ``duplicates``: questions to the index."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headwater.hit import Hits
from headwater.verbs.options import AsJson, StateDir

__all__ = ["duplicates", "search", "similar", "similarity"]

Folder = Annotated[Path | None, typer.Option(help="The folder whose index is asked.")]
Limit = Annotated[int, typer.Option(help="Most hits, 1 to 1000.")]


def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Limit = 10,
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    path: Annotated[str | None, typer.Option(help="Only paths that match this glob.")] = None,
    where: Annotated[str | None, typer.Option(help="Filters, as in 'ext:md -lang:de after:30d'.")] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Only hits with at least this score.")] = None,
    offset: Annotated[int, typer.Option(help="Leave out so many of the best hits.")] = 0,
    by_document: Annotated[bool, typer.Option("--by-document", help="Only the best hit of each document.")] = False,
    diversity: Annotated[float | None, typer.Option(help="0 to 1: prefer hits that do not repeat each other.")] = None,
    rerank: Annotated[
        bool | None, typer.Option(help="Let the configured cross-encoder rank (default: if any).")
    ] = None,
    wait_for: Annotated[
        str | None, typer.Option(help="First wait until this path is searchable, or 'in-step'.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Most seconds to wait for that.")] = 10.0,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the index: the running service if there is one, else the index itself."""
    from headwater.query import Index

    with Index.open(folder=folder, state_dir=state_dir) as index:
        hits = index.search(
            text,
            limit,
            mode,  # type: ignore[arg-type]  # checked by search
            path,
            score_threshold=score_threshold,
            where=where,
            offset=offset,
            group_by="document" if by_document else None,
            diversity=diversity,
            rerank=rerank,
            wait_for=wait_for,
            timeout=timeout,
        )
    _show(hits, as_json=as_json)


def similar(
    path: Annotated[str | None, typer.Argument(help="A document of the index, by its path in the folder.")] = None,
    text: Annotated[str | None, typer.Option(help="Instead of a document: a text.")] = None,
    limit: Limit = 10,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """What is nearest in meaning to a document, or to a text."""
    from headwater.query import Index

    with Index.open(folder=folder, state_dir=state_dir) as index:
        _show(index.similar(path, limit, text=text), as_json=as_json)


def similarity(
    a: Annotated[str, typer.Argument(help="A text.")],
    b: Annotated[str, typer.Argument(help="Another text.")],
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Cosine similarity of two texts, -1 to 1, by the model of the index."""
    from headwater.query import Index

    with Index.open(folder=folder, state_dir=state_dir) as index:
        found = index.similarity(a, b)
    print(json.dumps({"similarity": found}) if as_json else f"{found:.4f}")


def duplicates(
    threshold: Annotated[float, typer.Option(help="Least cosine similarity, above 0 and up to 1.")] = 0.95,
    limit: Annotated[int, typer.Option(help="Most pairs, 1 to 1000.")] = 100,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Pairs of documents that say nearly the same."""
    from headwater.query import Index

    with Index.open(folder=folder, state_dir=state_dir) as index:
        pairs = index.near_duplicates(threshold, limit)
    if as_json:
        print(json.dumps([asdict(pair) for pair in pairs]))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    for pair in pairs:
        console.print(f"{pair.similarity:.4f}  {pair.shared:4.0%} of the text  {pair.a}  {pair.b}", soft_wrap=True)
    if not pairs:
        console.print("nothing found")


def _show(hits: Hits, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([hit.to_dict() for hit in hits]))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    for hit in hits:
        where = (
            f"{hit.path}:{hit.start_line}" if hit.start_line else f"{hit.path} p. {hit.page}" if hit.page else hit.path
        )
        changed = "  (changed since)" if hit.stale else ""
        console.print(f"{hit.score:.4f}  {where}{changed}", style="bold")
        if hit.headings:
            console.print("  " + " > ".join(hit.headings), style="dim")
        console.print("  " + " ".join(hit.text.split())[:300])
    if not hits:
        console.print("nothing found")
    if hits.freshness.pending:
        console.print(f"{hits.freshness.pending} changed paths are not searchable yet", style="dim")
