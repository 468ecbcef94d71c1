"""A share of the processors for a process and its descendants, by a control group: as on a small host of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["possible", "share_of_cores"]

#: of the first version the tree of its own (cgroups(7)), of the second the one tree of all
_FIRST, _SECOND = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
#: over which a share is kept; short, so that nobody stands still for long
_PERIOD_US = 20_000


def possible() -> bool:
    """Whether this process may make such groups: as root, and not in most containers."""
    return _root() is not None


def _root() -> Path | None:
    for root, limit in ((_FIRST, "cpu.cfs_quota_us"), (_SECOND, "cpu.max")):
        made = root / f"headwater-probe-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        found = (made / limit).exists()
        made.rmdir()
        if found:
            return root
    return None


@contextmanager
def share_of_cores(cores: float, name: str) -> Iterator[Path]:
    """A group that gets so many cores at most: the file that takes its pids, all of which must end before it does."""
    root = _root()
    assert root is not None, "there are no control groups: ask possible() first"
    group = root / f"headwater-bench-{os.getpid()}-{name}"
    group.mkdir()
    quota = round(cores * _PERIOD_US)
    if root == _FIRST:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
    try:
        yield group / "cgroup.procs"
    finally:
        for _ in range(50):  # the last descendants may be ending
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)
