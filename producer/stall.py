"""Tells that no worker takes hints: they lie in the queues, and for long nothing has come back."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Stall"]

#: seconds without any outcome; a worker that loads a large model may need as long
_QUIET_S = 60.0
#: seconds between two looks at the queues
_LOOK_S = 5.0
_SENTENCE = f"no worker takes hints: they lie in the queues, and none has reported for {_QUIET_S:.0f} s"


class Stall:
    """``hints_waiting`` looks how many hints nobody has taken. Times in seconds of the monotonic clock."""

    def __init__(self, hints_waiting: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._hints_waiting = hints_waiting
        self._clock = clock
        self._quiet_since = clock()
        self._look_at = 0.0
        self._reason: str | None = None

    def landed(self) -> None:
        """A worker was heard."""
        self._quiet_since = self._clock()
        self._reason = None

    def reason(self, on_their_way: bool) -> str | None:
        """Why nothing moves; None while something does, or nothing has to. Raises BrokerUnavailable."""
        now = self._clock()
        if not on_their_way:
            self.landed()
        if now - self._quiet_since < _QUIET_S:
            return None
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._reason = _SENTENCE if self._hints_waiting() else None
        return self._reason
