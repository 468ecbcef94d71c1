"""A hit as other libraries know it: a passage with an identity and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.hit import Hit
from headwater.query import Index

__all__ = ["metadata", "opened", "passage_id"]

#: fields of a hit that go with its text
_METADATA = (
    "path", "start", "end", "start_line", "end_line", "page", "headings", "title", "score", "seq", "language", "stale",
)  # fmt: skip


def passage_id(hit: Hit) -> str:
    """The same for the same chunk number of the same path, whatever its text is at the time."""
    return f"{hit.path}#{hit.chunk}"


def metadata(hit: Hit) -> dict[str, Any]:
    """Where a passage stands and how fresh it is: fields of the hit as JSON has them, with its units."""
    fields = hit.to_dict()
    return {name: fields[name] for name in _METADATA}


def opened(folder: str | Path | None, state_dir: str | Path | None) -> Index:
    """The index of a folder or a state directory; without either, as ``Index.open`` finds it. Raises as it does."""
    return Index.open(folder=folder, state_dir=state_dir)
