"""Where reading of what is due goes on. Of a folder that waits for its first index, or of ten thousand documents on
their way, only those are read for which there is a hint to be made."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.messages import Lane
from producer.ledger import Due, Ledger, Place

__all__ = ["Front"]

#: rows that are read at once
_PAGE = 64
#: seconds after which all that is due is read once more: what changed without a word here is found then
_WHOLE_S = 30.0


class Front:
    """A place in each lane: whatever stands before it is on its way in that version, or may not be tried yet. New
    versions have higher seqs, so they stand behind it; what comes back before it is told (``landed``, ``begin_anew``)
    or found by its time. A place too far in front costs a few rows, and nothing else."""

    def __init__(self) -> None:
        self._places: dict[Lane, Place] = {}
        self._landed: set[bytes] = set()
        #: what may be tried from this time on was not due at the last look (seconds since the epoch)
        self._until = 0.0
        self._whole_at = 0.0

    def landed(self, path: bytes) -> None:
        """The document is not on its way any more, and may be due again."""
        self._landed.add(path)

    def begin_anew(self) -> None:
        """Anything may be due again: read from the first row."""
        self._places.clear()

    def look(self, ledger: Ledger, now: float, clock: float) -> None:
        """Before reading: go back to what is due again. ``now`` in seconds since the epoch, ``clock`` of the monotonic
        one."""
        if now < self._until or clock >= self._whole_at:  # the clock was set back, or it is time
            self.begin_anew()
            self._whole_at = clock + _WHOLE_S
        for path in self._landed if self._places else ():
            if (found := ledger.place(path)) is not None:
                self._go_back(*found)
        self._landed.clear()
        for lane in tuple(self._places):
            if (ripe := ledger.ripe(lane, self._until, now)) is not None:
                self._go_back(lane, ripe)
        self._until = now

    def _go_back(self, lane: Lane, to: Place) -> None:
        seq, path = to
        if lane in self._places:
            self._places[lane] = min(self._places[lane], (seq - 1, path))

    def read(self, ledger: Ledger, lane: Lane, attempts: int) -> Iterator[Due]:
        """What is due behind the place, row by row; ``look`` was called."""
        after = self._places.get(lane, (0, b""))
        while True:
            page = ledger.due(_PAGE, attempts, until=self._until, lane=lane, after=after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].item.seq, page[-1].item.path

    def pass_by(self, lane: Lane, due: Due) -> None:
        """This row, the first behind the place, is on its way now."""
        self._places[lane] = due.item.seq, due.item.path
