"""What the threads of the producer tell its loop, in the order in which they told it."""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

from producer.outcomes import Reported

__all__ = ["Inbox"]

_Message = TypeVar("_Message")
#: events that are noted in one transaction, beyond what one report brings
_MOST_TOGETHER = 1024


class Inbox(Generic[_Message]):
    """``put`` from any thread; one thread takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Message | Reported] = queue.SimpleQueue()  # its put may interrupt its get
        #: taken from the queue, and its turn is next
        self._following: _Message | Reported | None = None

    def put(self, message: _Message | Reported) -> None:
        self._queue.put(message)

    @property
    def is_empty(self) -> bool:
        return self._following is None and self._queue.empty()

    def take(self, timeout_s: float) -> _Message | Reported | None:
        """The next message, or None after so long. Reports that wait one behind the other come as one, and so cost one
        transaction."""
        found, self._following = self._following, None
        if found is None:
            found = self._get(timeout_s)
        while isinstance(found, Reported) and len(found.events) < _MOST_TOGETHER:
            following = self._get(0.0)
            if not isinstance(following, Reported):
                self._following = following
                break
            found = Reported((*found.events, *following.events), following.last_id)
        return found

    def _get(self, timeout_s: float) -> _Message | Reported | None:
        try:
            return self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None
