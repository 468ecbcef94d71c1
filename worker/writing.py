"""How readers write what they found as Markdown, and say what they could not read. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

__all__ = ["escaped", "joined", "table_lines", "unread"]


def joined(blocks: Sequence[str], pages: Sequence[int] = ()) -> tuple[str, tuple[int, ...]]:
    """Blocks with a blank line between, rows and list items without; and where the blocks `pages` start."""
    parts: list[str] = []
    starts = [0]
    for block, following in pairwise([*blocks, ""]):
        close = any(block.lstrip().startswith(m) and following.lstrip().startswith(m) for m in ("- ", "| "))
        parts += [block, "\n" if close else "\n\n"]
        starts.append(starts[-1] + len(block) + len(parts[-1]))
    text = "".join(parts).rstrip() + "\n" if parts else ""
    return text, tuple(min(starts[page], len(text)) for page in pages)


def table_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The rows of a table, the first of them as its head."""
    for number, cells in enumerate(rows):
        yield f"| {' | '.join(cells)} |"
        if not number:
            yield f"| {' | '.join(['---'] * len(cells))} |"


def escaped(line: str) -> str:
    """A line of a document that is to be no heading of ours."""
    return f"\\{line}" if line.startswith("#") else line


def unread(count: int, what: str = "part") -> str | None:
    """For people, that so many parts are missing; None if none is."""
    return f"{count} {what}{'s'[: count > 1]} could not be read" if count else None
