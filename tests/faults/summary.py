"""The table of results, in Markdown, between two markers of a page."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from registry import Fault

__all__ = ["write_summary"]

_GOOD = ("ok", "pass")


def write_summary(results: Path, faults: list[Fault], page: Path, mark: str = "results") -> None:
    """Replace what stands between the markers ``<!-- MARK -->`` and ``<!-- /MARK -->`` of ``page`` by one row for each
    fault of ``results`` and of the files beside it that are named after it (results-poison.jsonl, say)."""
    files = [results, *sorted(results.parent.glob(f"{results.stem}-*.jsonl"))]
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text("utf-8").splitlines()]
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, rest = page.read_text("utf-8").split(begin, 1)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}\n{_table(lines, faults)}\n{end}{after}", "utf-8")


def _table(lines: list[dict[str, Any]], faults: list[Fault]) -> str:
    head = "| group | fault | runs | of | violations | median s | worst s |\n|---|---|---:|---:|---:|---:|---:|"
    known = {(fault.group, fault.name): fault.runs for fault in faults}
    named = dict.fromkeys((line["group"], line["fault"]) for line in lines)
    rows = [_row(group, name, known.get((group, name)), lines) for group, name in {**known, **named}]
    return "\n".join([head, *rows])


def _row(group: str, name: str, wanted: int | None, all_lines: list[dict[str, Any]]) -> str:
    lines = [line for line in all_lines if (line["group"], line["fault"]) == (group, name)]
    runs = sum(line["runs"] for line in lines)
    bad = sum(line["verdict"] not in _GOOD for line in lines)
    times = [line["converge_s"] for line in lines if line["converge_s"] is not None]
    median, worst = (f"{statistics.median(times):.1f}", f"{max(times):.1f}") if times else ("", "")
    return f"| {group} | {name} | {runs} | {wanted or ''} | {bad} | {median} | {worst} |"
