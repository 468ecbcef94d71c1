"""What keeps workers from their work, as they tell, and what they do not find: for the status. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headwater.document import path_to_text
from headwater.messages import Hindered, HinderedPart

__all__ = ["Hindrances"]

#: seconds after which a worker that tells no more of it is forgotten; it tells every five
_FORGET_S = 15.0
#: pauses before a document is asked for again that a worker did not find and the producer sees: doubled, up to the last
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 60.0


@dataclass
class Hindrances:
    """``clock`` in seconds, monotonic."""

    clock: Callable[[], float] = time.monotonic
    _told: dict[tuple[HinderedPart, str], tuple[str, float]] = field(default_factory=dict)
    _unseen: dict[bytes, tuple[int, str]] = field(default_factory=dict)

    def hear(self, event: Hindered) -> None:
        """A worker tells what keeps it, or that nothing does any more."""
        self._told.pop((event.part, event.worker), None)
        if event.reason is not None:
            self._told[event.part, event.worker] = event.reason, self.clock()

    def unseen(self, path: bytes, where: str) -> float:
        """A worker did not find what the producer sees; ``where`` it looked. Seconds until the next try."""
        times = self._unseen.get(path, (0, ""))[0]
        self._unseen[path] = times + 1, where
        pause: float = min(_FIRST_PAUSE_S * 2 ** min(times, 10), _LAST_PAUSE_S)
        return pause

    def landed(self, path: bytes) -> None:
        """Something else came of the document, or it is not wanted any more."""
        self._unseen.pop(path, None)

    def sentence(self, part: HinderedPart) -> str | None:
        """What is wrong; of several workers one, and how many there are."""
        now = self.clock()
        self._told = {key: told for key, told in self._told.items() if now - told[1] < _FORGET_S}
        found = [reason for (of, _), (reason, _) in sorted(self._told.items()) if of == part]
        if found:
            return found[0] + (f" (and {len(found) - 1} more workers)" if len(found) > 1 else "")
        return self._unseen_sentence() if part == "host" else None

    def _unseen_sentence(self) -> str | None:
        if not self._unseen:
            return None
        path, (_, where) = next(iter(self._unseen.items()))
        return (
            f"{len(self._unseen)} documents that the producer sees are not found by a worker, such as "
            f"{path_to_text(path)} on {where}: they are asked for again until one finds them"
        )
