"""What a run would find to do."""

from __future__ import annotations

from dataclasses import replace

from headwater.document import Fingerprint
from producer.diff import Seen
from producer.entries import Entry
from producer.prospect import ANOTHER_CUT, NO_INDEX, Prospect, prospect

ATTEMPTS = 3


def mark(inode: int, size: int = 10) -> Fingerprint:
    return Fingerprint(size, 2, 3, inode)


def row(path: bytes, inode: int, **changes: object) -> Entry:
    settled = Entry(path, "index", 5, 5, "indexed", mark(inode), f"hash {inode}", 1, 0, None, 0.0, 1.0)
    return replace(settled, **changes)  # type: ignore[arg-type]  # of a test's own values


def look(seen: dict[bytes, Seen], *rows: Entry, again: str | None = None) -> Prospect:
    return prospect(seen, {each.path: each for each in rows}, again, ATTEMPTS)


def test_without_a_ledger_everything_is_new() -> None:
    ahead = look({b"a": Seen(mark(1)), b"link": Seen(mark(2), "symbolic link: not followed")})
    assert ahead.read == (b"a",)
    assert ahead.refused == {b"link": "symbolic link: not followed"}
    assert (ahead.unchanged, ahead.known) == (0, 0)


def test_each_path_counts_once_and_the_rest_is_unchanged() -> None:
    seen = {
        b"same": Seen(mark(1)), b"changed": Seen(mark(2, 99)), b"to": Seen(mark(3)), b"new": Seen(mark(77, 1)),
        b"due": Seen(mark(5)),
    }  # fmt: skip
    rows = [
        row(b"same", 1), row(b"changed", 2), row(b"from", 3), row(b"gone", 4, fingerprint=mark(4, 44)),
        row(b"due", 5, applied_seq=0, state="waiting"), row(b"going", 6, operation="delete", applied_seq=0),
        row(b"long gone", 7, operation="delete", state="deleted"),
    ]  # fmt: skip
    ahead = look(seen, *rows)
    assert set(ahead.read) == {b"to", b"new", b"changed", b"due"}
    assert ahead.changes.moved == ((b"from", b"to"),)
    assert ahead.waiting == (b"due",)
    assert ahead.deleted == (b"gone", b"going")
    assert (ahead.known, ahead.unchanged) == (6, 1)
    assert ahead.content[b"from"] == "hash 3"


def test_a_document_that_is_due_and_has_changed_counts_as_changed() -> None:
    ahead = look({b"a": Seen(mark(1, 99))}, row(b"a", 1, applied_seq=0))
    assert (ahead.read, ahead.waiting, ahead.changes.changed) == ((b"a",), (), (b"a",))


def test_content_without_tries_left_is_not_read_again_unless_the_way_of_cutting_changed() -> None:
    failed = row(b"a", 1, state="failed", attempts=3, reason="it crashed", fingerprint=mark(1, 9))
    seen = {b"a": Seen(mark(1))}
    assert look(seen, failed).spent == {b"a": "it crashed"}
    assert look(seen, replace(failed, attempts=2)).spent == {}
    assert look(seen, replace(failed, content_hash=None)).spent == {}
    same = {b"a": Seen(mark(1, 9))}
    assert look(same, failed).read == ()
    assert look(same, failed, again=NO_INDEX).spent == {b"a": "it crashed"}
    assert look(same, failed, again=ANOTHER_CUT).spent == {}


def test_all_documents_are_read_again_for_a_reason() -> None:
    ahead = look({b"a": Seen(mark(1))}, row(b"a", 1), again=NO_INDEX)
    assert (ahead.again, ahead.read, ahead.unchanged) == ((b"a",), (b"a",), 0)
