"""``headwater context`` and ``headwater ask``: passages for a prompt, and an answer made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headwater.context import Context
from headwater.settings import Settings
from headwater.verbs.options import AsJson, StateDir

if TYPE_CHECKING:
    from headwater.ask import Cited

__all__ = ["ask", "context"]

Question = Annotated[str, typer.Argument(help="The question.")]
Tokens = Annotated[int, typer.Option(help="Most tokens of all passages together.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(help="Whose tokens: a tokenizer.json, its directory or name (default: the embedding model)."),
]
Where = Annotated[str | None, typer.Option(help="Filters, as in 'ext:md -lang:de after:30d'.")]
Folder = Annotated[Path | None, typer.Option(help="The folder whose index is asked.")]


def context(
    question: Question,
    max_tokens: Tokens = 2000,
    tokenizer: Tokenizer = None,
    where: Where = None,
    as_prompt: Annotated[bool, typer.Option("--prompt", help="Print the whole prompt.")] = False,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """The passages that answer a question, for a prompt: within a budget of tokens, each with its place."""
    found = _context(Settings.load(folder=folder, state_dir=state_dir), question, max_tokens, tokenizer, where)
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        print(found.prompt if as_prompt else found.text or "nothing found")


def ask(
    question: Question,
    max_tokens: Tokens = 2000,
    tokenizer: Tokenizer = None,
    where: Where = None,
    folder: Folder = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """An answer from the language model that is configured, with the passages that it cites."""
    from headwater.ask import HOW_TO_CONFIGURE, ChatEndpoint, answer

    settings = Settings.load(folder=folder, state_dir=state_dir)
    endpoint = ChatEndpoint.of(settings) if settings.llm_url and settings.llm_model else None
    found = _context(settings, question, max_tokens, tokenizer, where)
    if endpoint is None:
        _without_model(found, HOW_TO_CONFIGURE, as_json=as_json)
    elif as_json:
        _tell_programs(list(answer(found, endpoint)), found)
    else:
        _show(answer(found, endpoint))


def _context(settings: Settings, question: str, max_tokens: int, tokenizer: str | None, where: str | None) -> Context:
    from headwater.query import Index

    with Index.open(settings) as index:
        return index.context(question, max_tokens, tokenizer=tokenizer, where=where)


def _without_model(found: Context, sentence: str, *, as_json: bool) -> None:
    if as_json:
        answer: dict[str, Any] = {"answer": None, "reason": sentence, "citations": [], "context": found.to_dict()}
        print(json.dumps(answer))
        return
    print(found.text or "nothing found")
    print()
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(
        f"{sentence}; these are the passages", soft_wrap=True
    )


def _tell_programs(parts: Sequence[str | Cited], found: Context) -> None:
    text = "".join(part for part in parts if isinstance(part, str))
    cited = [{"number": part.number, **asdict(part.passage.citation)} for part in parts if not isinstance(part, str)]
    print(json.dumps({"answer": text, "citations": cited, "context": found.to_dict()}))


def _show(parts: Iterable[str | Cited]) -> None:
    """The answer as it comes, and then the places that it cites."""
    used: list[Cited] = []
    try:
        for part in parts:
            if isinstance(part, str):
                print(part, end="", flush=True)
            else:
                used.append(part)
    finally:
        print(flush=True)  # what comes next begins a line, also if the answer broke off
    console = Console(highlight=False, markup=False, emoji=False)
    for number, passage in used:
        changed = "" if passage.citation.verified is not False else "  (the file has changed since)"
        console.print(f"[{number}] {passage.citation.place}{changed}", style="dim", soft_wrap=True)
