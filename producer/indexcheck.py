"""When a worker is asked for a census in brief, and whether it says that the index is not the one that we know: an
older snapshot, or points that somebody deleted. Pure.

What an index lacks or has too much of shows in two numbers. Seqs only grow: of two states of an index, one that holds a
version which the other lacks has another highest seq, and one that holds only a part of it has fewer points.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["IndexCheck"]

#: a failure of the service is a reason to look soon, so long after the last look
_SOON_S = 5.0

#: number of points, and the highest seq among them
Numbers = tuple[int, int]


@dataclass
class IndexCheck:
    """``every_s`` between two looks; an answer is waited for ``patience_s``. ``clock`` in seconds, monotonic."""

    every_s: float
    patience_s: float
    clock: Callable[[], float] = time.monotonic
    _asked_at: float = field(default=0.0, init=False)
    _waits: bool = field(default=False, init=False)
    _in_doubt: bool = field(default=False, init=False)
    _looked_into: tuple[Numbers, Numbers] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._asked_at = self.clock()

    def is_due(self) -> bool:
        """Whether to ask now."""
        pause = _SOON_S if self._in_doubt else self.every_s
        return self.clock() - self._asked_at >= (self.patience_s if self._waits else min(pause, self.every_s))

    def asked(self) -> None:
        self._asked_at, self._waits, self._in_doubt = self.clock(), True, False

    def answered(self) -> None:
        self._waits = False

    def doubt(self) -> None:
        """Something failed, or is over: look soon, for an answer may have been lost with it."""
        self._in_doubt, self._waits = True, False

    def differs(self, held: Numbers, known: Numbers) -> bool:
        """Whether a whole census is to be taken; not twice for the same difference."""
        if held == known:
            self._looked_into = None
            return False
        again = self._looked_into == (held, known)
        self._looked_into = held, known
        return not again
