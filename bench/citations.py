"""Contexts for random questions, and every citation looked up in its file by other means than Headwater's."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.pack import retrieval_set

_ROOT = Path(__file__).resolve().parents[1]
_TOKENS = 1000


def run(work: Path, questions: int) -> dict[str, Any]:
    """Contexts of 1,000 tokens from SQuAD's articles: how many citations are not as their files are."""
    from headwater.query import Index

    place = retrieval_set("squad-articles")
    folder, state = place / "files", work / "state"
    command = [sys.executable, "-m", "headwater", "up", str(folder), "--once", "--json", "--state-dir", str(state)]
    subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    asked = [json.loads(line)["text"] for line in (place / "questions.jsonl").read_text("utf-8").splitlines()]
    results: dict[str, Any] = {"questions": questions, "passages": 0, "over_budget": 0, "wrong": []}
    with Index.open(folder=folder, state_dir=state) as index:
        for question in random.Random(1).sample(asked, questions):
            context = index.context(question, _TOKENS)
            results["over_budget"] += context.tokens > _TOKENS
            results["passages"] += len(context.passages)
            results["wrong"] += [
                {"question": question, "place": passage.citation.place, "why": why}
                for passage in context.passages
                if (why := _trouble(folder, passage)) is not None
            ]
    Console().print(
        f"{results['questions']} questions, {results['passages']} passages: {len(results['wrong'])} citations wrong, "
        f"{results['over_budget']} contexts over their {_TOKENS} tokens"
    )
    return results


def _trouble(folder: Path, passage: Any) -> str | None:
    """What of a passage is not in its file as it is told: the text at its characters, or within its lines."""
    citation = passage.citation
    text = (folder / citation.path).read_bytes().decode("utf-8")
    lines = text.splitlines(keepends=True)[citation.start_line - 1 : citation.end_line]
    if citation.verified is not True:
        return "it is not called verified"
    if text[citation.start : citation.end] != passage.text:
        return "its characters are others"
    return None if passage.text in "".join(lines) else "its lines are others"
