"""What ``headwater verify`` keeps on disk, and what people see of it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console

from headwater.errors import DiskFull
from headwater.state import Layout
from headwater.verbs.audit import Totals
from headwater.verbs.report import Report
from headwater.verbs.scratch import Scratch
from headwater.verbs.verifying import scratch_directory
from headwater.verification import Finding


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def shown(scratch: Scratch, waiting: int = 0) -> list[str]:
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as captured:
        Report(Totals(3, 9, waiting), scratch).print(console)
    return captured.get().splitlines()


def test_the_scratch_directory_goes_and_so_do_those_of_dead_processes(tmp_path: Path) -> None:
    dead, own = tmp_path / "verify-999999999-x", tmp_path / f"verify-{os.getpid()}-x"
    dead.mkdir()
    own.mkdir()
    with scratch_directory(Layout(tmp_path)) as directory:
        assert directory.parent == tmp_path
        assert not dead.exists()
    assert list(tmp_path.iterdir()) == [own]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="free some space"), scratch_directory(Layout(tmp_path)):
        raise sqlite3.OperationalError("database or disk is full")
    with pytest.raises(DiskFull, match="free some space"), scratch_directory(Layout(tmp_path / "nowhere")):
        pass


def test_all_is_well_in_one_line(scratch: Scratch) -> None:
    assert shown(scratch) == ["3 documents and 9 chunks compared, all is well"]
    assert Report(Totals(3, 9, 0), scratch).status == 0


def test_waiting_documents_are_not_all_is_well(scratch: Scratch) -> None:
    assert shown(scratch, waiting=2) == [
        "3 documents and 9 chunks compared, nothing wrong, but 2 documents wait to be indexed"
    ]
    assert Report(Totals(3, 9, 2), scratch).status == 75


def test_findings_name_kind_path_and_chunks(scratch: Scratch) -> None:
    scratch.add_findings(
        [
            Finding("unreadable", "z.md", "no", known=True),
            Finding("stale", "[a].md", "differs", (0, 1, 2, 5, 7, 8)),
            Finding("orphan", "", "names none"),
            Finding("missing", "b.md", "not in the index", (3,)),
        ]
    )
    assert shown(scratch) == [
        "orphan       names none",
        "stale        [a].md  chunks 0-2, 5, 7-8: differs",
        "missing      b.md  chunk 3: not in the index",
        "unreadable   z.md  no (the ledger says so too)",
        "3 documents and 9 chunks compared, 1 missing, 1 stale, 1 orphan, 1 unreadable: "
        "'headwater verify --repair' puts it right",
    ]
    assert Report(Totals(3, 9, 0), scratch).status == 1


def test_people_are_shown_fifty_and_told_of_the_rest(scratch: Scratch) -> None:
    scratch.add_findings(Finding("missing", f"{n}.md", "gone") for n in range(73))
    lines = shown(scratch)
    assert len(lines) == 52
    assert lines[50] == "... and 23 more: --json has them all"


def test_what_the_ledger_knows_is_no_defect(scratch: Scratch) -> None:
    scratch.add_findings([Finding("unreadable", "z.md", "no", known=True)])
    assert Report(Totals(3, 9, 0), scratch).status == 0
    assert shown(scratch)[-1] == "3 documents and 9 chunks compared, all is well"
