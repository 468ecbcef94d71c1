"""The table of results, in Markdown, between two markers of a page."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from registry import Fault

__all__ = ["write_summary"]

_BEGIN, _END = "<!-- results -->", "<!-- /results -->"


def write_summary(results: Path, faults: list[Fault], page: Path) -> None:
    """Replace what stands between the markers of ``page`` by one row for each fault."""
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []
    text = page.read_text("utf-8")
    before, rest = text.split(_BEGIN, 1)
    _, after = rest.split(_END, 1)
    page.write_text(f"{before}{_BEGIN}\n{_table(lines, faults)}\n{_END}{after}", "utf-8")


def _table(lines: list[dict[str, Any]], faults: list[Fault]) -> str:
    head = "| group | fault | runs | of | violations | median s | worst s |\n|---|---|---:|---:|---:|---:|---:|"
    return "\n".join([head, *(_row(fault, lines) for fault in faults)])


def _row(fault: Fault, all_lines: list[dict[str, Any]]) -> str:
    lines = [line for line in all_lines if (line["group"], line["fault"]) == (fault.group, fault.name)]
    runs = sum(line["runs"] for line in lines)
    bad = sum(line["verdict"] != "ok" for line in lines)
    times = [line["converge_s"] for line in lines if line["converge_s"] is not None]
    median, worst = (f"{statistics.median(times):.1f}", f"{max(times):.1f}") if times else ("", "")
    return f"| {fault.group} | {fault.name} | {runs} | {fault.runs} | {bad} | {median} | {worst} |"
