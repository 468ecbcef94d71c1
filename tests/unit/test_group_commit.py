"""Many callers, few commits: each returns after one that began later, and none takes a failure for success."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from driver import wait_until

from headwater.group_commit import GroupCommit


class SlowCommit:
    """A commit that waits until it is let go, and then may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.count = 0
        self._fails = fails

    def __call__(self) -> None:
        self.count += 1
        self.begun.release()
        assert self.let_go.wait(10)
        if self._fails:
            raise OSError("No space left on device")


@pytest.mark.parametrize(("fails", "commits"), [(False, 2), (True, 4)])
def test_who_comes_while_a_commit_runs_waits_for_one_that_begins_later(fails: bool, commits: int) -> None:
    group, commit = GroupCommit(), SlowCommit(fails=fails)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(group.run, commit)
        assert commit.begun.acquire(timeout=10)
        others = [threads.submit(group.run, commit) for _ in range(3)]
        wait_until(lambda: len(group._changed._waiters) == 3, "three wait", timeout_s=10)  # type: ignore[attr-defined]
        commit.let_go.set()
        errors = [one.exception(timeout=20) for one in (first, *others)]
    assert commit.count == commits, "one for the first, and one for all others unless it fails"
    assert [type(error) for error in errors] == [OSError if fails else type(None)] * 4
