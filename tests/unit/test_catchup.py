"""When an index has caught up with the folder, while edits go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.document import Fingerprint
from headwater.messages import Outcome
from headwater.state import Layout
from producer.catchup import CatchUp
from producer.diff import Changes, Seen
from producer.ledger import Ledger


class Run:
    """A ledger as a producer writes it."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root).create()
        self.ledger = Ledger(self.layout.ledger)
        self.ledger.set_metas({"scanned": "0", "index_id": "i"})
        self.catch_up = CatchUp(self.layout)

    def want(self, *paths: bytes) -> None:
        seen = {path: Seen(Fingerprint(1, 2, 3, 4), None) for path in paths}
        known = self.ledger.known()
        created = tuple(path for path in paths if path not in known)
        changed = tuple(path for path in paths if path in known)
        self.ledger.want(Changes(created=created, changed=changed, deleted=(), moved=()), seen, "live")

    def apply(self, *paths: bytes) -> None:
        for path in paths:
            self.ledger.applied(Outcome(path, self.ledger.wanted_seq(path), "indexed", chunks=1), 3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_not_before_the_folder_was_scanned(run: Run) -> None:
    assert not CatchUp(Layout(run.layout.root / "none")).reached()
    assert not run.catch_up.reached()
    run.ledger.set_meta("scanned", "1")
    assert run.catch_up.reached()


def test_not_before_all_that_the_scan_found_is_in(run: Run) -> None:
    run.want(b"a", b"b")
    run.ledger.set_meta("scanned", "1")
    assert not run.catch_up.reached()
    run.apply(b"a")
    assert not run.catch_up.reached()
    run.apply(b"b")
    assert run.catch_up.reached()


def test_edits_without_end_do_not_put_it_off(run: Run) -> None:
    run.want(b"a", b"b")
    run.ledger.set_meta("scanned", "1")
    assert not run.catch_up.reached()
    run.apply(b"a", b"b")
    run.want(b"a")
    assert run.catch_up.reached()


def test_a_first_version_of_each_is_in_though_it_was_edited_before(run: Run) -> None:
    run.want(b"a", b"b")
    run.ledger.set_meta("scanned", "1")
    assert not run.catch_up.reached()
    run.want(b"b")  # its first version is never seen by a worker
    run.apply(b"a")
    assert not run.catch_up.reached()
    run.want(b"c")  # one that comes later is not waited for
    run.apply(b"b")
    assert run.catch_up.reached()


@pytest.mark.parametrize("again", ["renewed", "tried again"])
def test_what_was_due_and_gets_another_seq_is_waited_for(run: Run, again: str) -> None:
    # Given a document of which an older version is in the index
    run.want(b"a", b"b")
    run.apply(b"a", b"b")
    run.want(b"a")
    run.ledger.set_meta("scanned", "1")
    assert not run.catch_up.reached()
    # When its hint is given up, or its first try fails
    if again == "renewed":
        run.ledger.renew()
    else:
        failed = Outcome(b"a", run.ledger.wanted_seq(b"a"), "failed", "no", retryable=True)
        assert not run.ledger.applied(failed, 3)
    # Then it is no edit that came later, while such an edit is
    assert not run.catch_up.reached()
    run.apply(b"a")
    run.want(b"a")
    assert run.catch_up.reached()


def test_not_with_an_index_that_no_worker_has_told_of(run: Run) -> None:
    run.ledger.set_meta("scanned", "1")
    run.layout.manifest.write_text('{"index_id": "another"}')
    assert not run.catch_up.reached()
    run.layout.manifest.write_text('{"index_id": "i"}')
    assert run.catch_up.reached()
