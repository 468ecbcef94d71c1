"""The home of an extraction child: a private directory that is emptied after each document and may not grow large."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

__all__ = ["Home", "TooMuchWritten"]

#: an engine that unpacks itself takes 8 MiB; one file is bounded by RLIMIT_FSIZE, all of them by these two
MOST_BYTES = 256 * 1024 * 1024
MOST_ENTRIES = 10_000


class TooMuchWritten(Exception):
    """A child has written more than it may."""


class Home:
    """One directory, and what a process keeps of it on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """An empty directory that only we may enter, whatever was there."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700, parents=True)

    def check(self, pid: int) -> None:
        """Raises TooMuchWritten if what the process keeps here is too much, unlinked but open files counted in."""
        total = 0
        for number, found in enumerate(chain(_entries(str(self.path)), _unlinked(pid))):
            total += found.st_blocks * 512
            if total > MOST_BYTES or number >= MOST_ENTRIES:
                raise TooMuchWritten

    def tidy(self) -> None:
        """Empty it. Raises OSError if something cannot be removed."""
        for entry in list(os.scandir(self.path)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _entries(directory: str) -> Iterator[os.stat_result]:
    """What lies below a directory; no link is followed, and what vanishes meanwhile is nothing."""
    waiting = [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def _unlinked(pid: int) -> Iterator[os.stat_result]:
    """Regular files that a process holds open and that have no name (Linux)."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    yield found
