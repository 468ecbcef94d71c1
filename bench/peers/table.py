"""The figures of the peers as a table for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def _cell(row: dict[str, Any] | None, *, live: bool | None = None) -> str:
    """Seconds (the part after loading in brackets), texts, whether it was right."""
    if row is None:
        return ""
    cell = f"{row['seconds']:.2f} s"
    if live is not None:
        cell += " live" if live else f" rerun ({row['after_loading_s']:.2f})"
    cell += f", {row['texts']} texts"
    if live is not None and row["characters"]:
        cell += f", {row['characters']} chars"
    if "needed" in row:
        cell += f" of {row['needed']}"
    return cell + {True: ", right", False: ", WRONG", None: ""}[row.get("right")]


_ROWS = {
    "cold": "cold ingest",
    "cold fp32": "cold ingest, fp32",
    "unchanged": "nothing changed",
    "killed": "kill -9 and resume",
    "middle": "edit in the middle",
    "top": "edit at the top",
    "rename": "rename",
    "copy": "copy",
    "delete": "delete",
}
_CHANGES = ("middle", "top", "rename", "copy", "delete")


def show(results: dict[str, Any], live: Mapping[str, bool]) -> None:
    """Print the table; ``live`` says which peers follow a folder by themselves."""
    table = Table(title=f"{results['files']} files of {results['corpus']}, {results['processor']}", show_lines=True)
    table.add_column("row")
    peers = results["peers"]
    for name in peers:
        table.add_column(name)
    for row, title in _ROWS.items():
        found = {name: peer.get("rows", {}).get(row) for name, peer in peers.items()}
        is_change = row in _CHANGES
        table.add_row(title, *(_cell(cell, live=live[name] if is_change else None) for name, cell in found.items()))
    done = [peer.get("rows") for peer in peers.values()]
    table.add_row("query, p50", *(f"{rows['query']['p50_ms']:.1f} ms" if rows else "" for rows in done))
    table.add_row("at the end as a fresh index", *(str(rows["as a fresh index"]) if rows else "" for rows in done))
    table.add_row("chunks", *(str(rows["chunks"]) if rows else "" for rows in done))
    table.add_row("failed", *(peer.get("failed", "") for peer in peers.values()))
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    for name, peer in peers.items():
        console.print(f"{name}: {', '.join(f'{package} {version}' for package, version in peer['versions'].items())}")
    console.print(f"Python {results['python']}")
