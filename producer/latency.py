"""How long a saved file took to be searchable, and which changes no event told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from headwater.document import Fingerprint
from headwater.messages import Outcome
from headwater.metrics import missed_events, saved_to_searchable
from producer.diff import Changes, Seen

__all__ = ["Latency"]

#: changes that are remembered until they are settled; of a larger storm only so many are measured
_MOST_PENDING = 100_000
#: a change this old has had its event, if there was one: debounce, queue and a look at its path included
_EVENT_S = 5.0


class Latency:
    """Of changes made since ``started``, in seconds since the epoch by the clock of the file system. Not thread-safe:
    the producer's loop owns it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._started = clock()
        self._saved: dict[bytes, float] = {}

    def noticed(self, changes: Changes, known: Mapping[bytes, Fingerprint | None], seen: Mapping[bytes, Seen]) -> None:
        """These changes are due from now on. A path whose fingerprint was only forgotten did not change now."""
        for path in _written(changes, known):
            self._note(path, seen[path].fingerprint.ctime_ns / 1e9)
        now = self._clock()
        for path in changes.deleted:
            self._note(path, now)

    def _note(self, path: bytes, saved: float) -> None:
        if saved >= self._started and (len(self._saved) < _MOST_PENDING or path in self._saved):
            self._saved[path] = saved

    def missed(self, changes: Changes, known: Mapping[bytes, Fingerprint | None], seen: Mapping[bytes, Seen]) -> None:
        """A scan found these: count those whose event should have been here before. (A deletion has no time.)"""
        until = self._clock() - _EVENT_S
        saved = (seen[path].fingerprint.ctime_ns / 1e9 for path in _written(changes, known))
        missed_events.inc(sum(self._started <= at < until for at in saved))

    def settled(self, outcome: Outcome) -> None:
        """The ledger has noted the outcome of the version that is wanted."""
        saved = self._saved.pop(outcome.path, None)
        if saved is not None and outcome.state in ("indexed", "partial", "deleted"):
            saved_to_searchable.observe(max(0.0, self._clock() - saved))


def _written(changes: Changes, known: Mapping[bytes, Fingerprint | None]) -> list[bytes]:
    there = [path for path in (*changes.created, *changes.changed) if known.get(path, True) is not None]
    return [*there, *(path for _, path in changes.moved)]
