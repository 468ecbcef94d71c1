"""Who may use the embedded engine now: one call at a time, searches first; and writes may be held as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Gate", "Turns"]


#: turns that those who come first may take while another waits
_MOST_AHEAD = 4


class Turns:
    """A lock with two queues: who comes with ``first`` goes before those who came without, of whom one gets its turn
    after every few: searches without end must not keep a write waiting without end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False
        self._first_waiting = 0
        self._others_waiting = 0
        self._went_ahead = 0

    @contextmanager
    def taken(self, *, first: bool) -> Iterator[None]:
        with self._changed:
            self._first_waiting += first
            self._others_waiting += not first
            try:
                self._changed.wait_for(lambda: not self._is_taken and self._may_go(first))
            finally:
                self._first_waiting -= first
                self._others_waiting -= not first
            self._is_taken = True
            self._went_ahead = self._went_ahead + 1 if first and self._others_waiting else 0
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()

    def _may_go(self, first: bool) -> bool:
        overdue = self._others_waiting > 0 and self._went_ahead >= _MOST_AHEAD
        return not overdue if first else overdue or not self._first_waiting


class Gate:
    """Many may pass at once, until one holds it: then nobody is inside, and the others wait before it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_held = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held)
            self._is_held = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._is_held = False
                self._changed.notify_all()
