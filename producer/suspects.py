"""Finds the document that kills the worker. Pure.

A worker that dies takes all documents that it works on with it, and says nothing. Those that were on their way at two
deaths in a row are suspects and go alone, one after the other, with nothing beside them; one that was alone at a death
for the second time (or more, by the number of tries) is the one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["Suspects"]

#: deaths in a row after which a document goes alone
_SUSPICIOUS = 2


@dataclass
class Suspects:
    """What is remembered from one death of the worker to the next. A document that comes through is cleared."""

    #: the suspect that is on its way with nothing beside it
    alone: bytes | None = None
    _deaths: dict[bytes, int] = field(default_factory=dict)
    _deaths_alone: int = 0

    def worker_died(self, on_their_way: Collection[bytes], attempts: int) -> tuple[bytes, int] | None:
        """Note a death with these documents on their way. Returns the document that has killed the worker for the
        last time, if that is clear, and how often it was there."""
        self._deaths = {path: self._deaths.get(path, 0) + 1 for path in on_their_way}
        if self.alone is None or self.alone not in self._deaths:
            return None
        self._deaths_alone += 1
        if self._deaths_alone < max(1, attempts - 1):
            return None
        killer, self.alone, self._deaths_alone = self.alone, None, 0
        return killer, self._deaths.pop(killer)

    def send_alone(self, path: bytes) -> None:
        """This suspect goes out by itself."""
        if path != self.alone:
            self.alone, self._deaths_alone = path, 0

    def landed(self, path: bytes) -> None:
        """The document came through."""
        self._deaths.pop(path, None)
        if path == self.alone:
            self.alone, self._deaths_alone = None, 0

    def drop_all_but(self, due: Collection[bytes]) -> None:
        """Forget what is not due any more."""
        self._deaths = {path: deaths for path, deaths in self._deaths.items() if path in due}

    def __contains__(self, path: bytes) -> bool:
        return self._deaths.get(path, 0) >= _SUSPICIOUS

    def __bool__(self) -> bool:
        return any(deaths >= _SUSPICIOUS for deaths in self._deaths.values())
