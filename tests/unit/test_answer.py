"""Why a path is found, or not: from evidence to one sentence."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from headwater.document import Fingerprint
from producer.answer import Evidence, answer, answer_directory
from producer.diff import Seen
from producer.entries import Entry, local_time
from producer.rules import Verdict

NOW = 1_800_000_000.0
MARK = Fingerprint(10, 2, 3, 4)
ADMITTED = Verdict(True, b"a.md")
SETTLED = Entry(
    path=b"a.md", operation="index", wanted_seq=int((NOW - 60) * 1e6), applied_seq=int((NOW - 60) * 1e6),
    state="indexed", fingerprint=MARK, content_hash="hash", chunks=3, attempts=0, reason=None, due_at=0.0,
    settled_at=NOW - 50,
)  # fmt: skip
DUE = replace(SETTLED, applied_seq=0, state="waiting", chunks=0, settled_at=0.0)
EVIDENCE = Evidence(b"a.md", ADMITTED, Seen(MARK), SETTLED, running=True, now=NOW)


def test_an_indexed_document_says_since_when_and_in_how_many_chunks() -> None:
    found = answer(EVIDENCE)
    assert (found.state, found.found, found.notes) == ("indexed", True, ())
    assert found.sentence == f"indexed at {local_time(NOW - 50)} in 3 chunks"
    assert (found.facts["seq"], found.facts["content_hash"]) == (SETTLED.applied_seq, "hash")


def test_a_partial_document_is_found_and_says_what_is_missing() -> None:
    found = answer(replace(EVIDENCE, entry=replace(SETTLED, state="partial", reason="1 part could not be read")))
    assert (found.state, found.found) == ("partial", True)
    assert "in part only: 1 part could not be read" in found.sentence


def test_an_excluded_path_names_the_rule_and_what_is_left_in_the_index() -> None:
    found = answer(replace(EVIDENCE, verdict=Verdict(False, b"a.md", ".gitignore:3: *.md"), seen=None))
    assert (found.state, found.found) == ("excluded", False)
    assert found.sentence == "excluded by .gitignore:3: *.md"
    assert "still in the index" in found.notes[0]
    below = Evidence(b"x/a.md", Verdict(False, b"x", "the default denials: x/"), None, None, running=True, now=NOW)
    assert answer(below).sentence == "below the directory x/, which is excluded by the default denials: x/"
    assert answer(below).notes == ()


def test_a_path_below_a_link_is_excluded() -> None:
    found = answer(replace(EVIDENCE, seen=None, entry=None, link=b"loop"))
    assert (found.state, "symbolic link loop" in found.sentence) == ("excluded", True)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (DUE, f"waiting since {local_time(NOW - 60)}"),
        (replace(DUE, wanted_seq=int((NOW + 60) * 1e6)), "waiting since a time that is not known"),
        (
            replace(DUE, attempts=1, reason="it crashed", due_at=NOW + 2),
            f"waiting: try 2 of 3 at {local_time(NOW + 2)}, after failure 1: it crashed",
        ),
        (replace(DUE, attempts=2, reason="it crashed"), "waiting: try 3 of 3 at now, after failure 2: it crashed"),
        (
            replace(DUE, attempts=3, reason="it crashed"),
            f"waiting since {local_time(NOW - 60)} to be looked at; its content failed 3 times: it crashed",
        ),
        (
            replace(DUE, reason="the disk is full", due_at=NOW + 4),
            f"waiting since {local_time(NOW - 60)}, next at {local_time(NOW + 4)}: the disk is full",
        ),
        (
            replace(SETTLED, operation="delete", applied_seq=0),
            f"waiting since {local_time(NOW - 60)} to be removed from the index",
        ),
    ],
)
def test_a_waiting_document_says_since_when_and_for_what(entry: Entry, sentence: str) -> None:
    found = answer(replace(EVIDENCE, entry=entry))
    assert (found.state, found.found, found.sentence) == ("waiting", False, sentence)


def test_what_waits_says_that_no_service_runs_and_what_is_found_meanwhile() -> None:
    found = answer(replace(EVIDENCE, entry=replace(SETTLED, applied_seq=1), running=False, reasons=("held",)))
    assert found.notes[0] == f"until then the version of {local_time(NOW - 50)} is found, in 3 chunks"
    assert found.notes[1:] == ("held", "no service runs: start it with 'headwater up'")


def test_a_failed_document_says_why_and_how_often_it_was_tried() -> None:
    failed = replace(SETTLED, state="failed", chunks=0, attempts=3, reason="it crashed")
    found = answer(replace(EVIDENCE, entry=failed))
    assert (found.state, found.found) == ("failed", False)
    assert found.sentence == f"failed at {local_time(NOW - 50)}, tried 3 times: it crashed"
    assert "failures --retry" in found.notes[0]
    assert "when its content changes" in found.notes[0]
    unread = answer(replace(EVIDENCE, entry=replace(failed, fingerprint=None, reason="Input/output error")))
    assert (unread.state, unread.sentence) == (
        "failed",
        f"failed at {local_time(NOW - 50)}, tried 3 times: Input/output error",
    )
    assert "at each scan" in unread.notes[0]
    refused = replace(failed, state="refused", attempts=0, reason="an empty file")
    assert answer(replace(EVIDENCE, entry=refused)).sentence == f"refused at {local_time(NOW - 50)}: an empty file"


def test_a_file_that_no_run_has_noticed_is_new_and_one_that_never_was_is_absent() -> None:
    assert answer(replace(EVIDENCE, entry=None)).state == "new"
    link = Seen(MARK, "symbolic link: not followed")
    assert "symbolic link: not followed" in answer(replace(EVIDENCE, entry=None, seen=link)).sentence
    assert answer(replace(EVIDENCE, entry=None, seen=None)).state == "absent"
    closed = answer(replace(EVIDENCE, entry=None, seen=None, closed=True))
    assert closed.state == "absent" and "cannot be looked into" in closed.sentence


def test_a_deleted_document_says_when_and_one_that_came_back_is_new() -> None:
    gone = replace(SETTLED, operation="delete", state="deleted", chunks=0)
    found = answer(replace(EVIDENCE, entry=gone, seen=None))
    assert (found.state, found.found) == ("deleted", False)
    assert local_time(NOW - 50) in found.sentence
    assert answer(replace(EVIDENCE, entry=gone)).state == "new"


def test_a_settled_document_whose_file_changed_or_went_away_waits() -> None:
    changed = answer(replace(EVIDENCE, seen=Seen(replace(MARK, mtime_ns=9))))
    assert (changed.state, "changed or touched" in changed.sentence) == ("waiting", True)
    gone = answer(replace(EVIDENCE, seen=None))
    assert (gone.state, "gone from the folder" in gone.sentence) == ("waiting", True)
    # But unseen is not gone
    assert answer(replace(EVIDENCE, seen=None, closed=True)).state == "indexed"


def test_a_directory_counts_its_documents_by_state() -> None:
    rows = [
        replace(SETTLED, path=b"d/a.md"),
        replace(SETTLED, path=b"d/b.md", state="failed"),
        replace(SETTLED, path=b"d/gone.md"),
        replace(SETTLED, path=b"d/old.md", operation="delete", state="deleted"),
    ]
    seen = {b"d/a.md": Seen(MARK), b"d/b.md": Seen(MARK), b"d/new.md": Seen(MARK)}
    found = answer_directory(b"d", Verdict(True, b"d"), None, seen, rows)
    assert (found.path, found.state, found.found) == ("d/", "mixed", False)
    assert found.facts["documents"] == {"indexed": 1, "failed": 1, "waiting": 1, "new": 1}
    assert found.sentence == "a directory with 4 documents: 1 failed, 1 indexed, 1 new, 1 waiting"


def test_a_directory_is_found_if_all_its_documents_are() -> None:
    rows = [replace(SETTLED, path=b"d/a.md"), replace(SETTLED, path=b"d/b.md", state="partial")]
    seen = {b"d/a.md": Seen(MARK), b"d/b.md": Seen(MARK)}
    assert answer_directory(b"d", Verdict(True, b"d"), None, seen, rows).found
    assert not answer_directory(b"d", Verdict(True, b"d"), None, {}, []).found
    assert answer_directory(b"d", Verdict(False, b"d", "the default denials: d/"), None, {}, []).state == "excluded"
    assert answer_directory(b"d", Verdict(True, b"d"), b"l", {}, []).state == "excluded"


def test_times_are_local_and_to_the_second() -> None:
    assert time.strptime(local_time(NOW), "%Y-%m-%d %H:%M:%S")
