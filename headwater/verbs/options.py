"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Folder", "Generation", "StateDir"]

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Directory of ledger, broker and index (default: one per folder)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Folder = Annotated[Path | None, typer.Option(help="The folder of documents that is meant.")]
Generation = Annotated[
    int | None,
    typer.Option(min=1, help="Of which generation of the index (default: the current one; docs/reindex.md)."),
]
