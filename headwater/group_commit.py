"""Group commit: many callers wait for one costly step (Gray and Reuter, Transaction Processing, 1992, chapter 9)."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["GroupCommit"]


class GroupCommit:
    """Whoever comes while a commit runs waits for the next one, together with all others who came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._started = 0
        self._done = 0
        self._is_running = False

    def run(self, commit: Callable[[], object]) -> None:
        """Return when a commit has ended that began after this call. What ``commit`` raises, its caller gets."""
        with self._changed:
            mine = self._started + 1
            while self._is_running and self._done < mine:
                self._changed.wait()
            if self._done >= mine:
                return
            self._is_running = True
            self._started += 1
        done = False
        try:
            commit()
            done = True
        finally:
            with self._changed:
                self._is_running = False
                if done:
                    self._done = self._started
                self._changed.notify_all()
