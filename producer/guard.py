"""Holds deletions back that look like a folder that went away, and not like documents that were deleted. Pure.

An unmounted disk, an empty directory in place of the folder, a share that dropped out: each looks like a deletion of
everything. What is held stays in the index until the folder is back or a person accepts it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["DeletionGuard", "Identity"]

#: fewer deletions than this at once are never held for their share alone: small folders do change as a whole
_FEW = 100
#: deletions within this many seconds count as one
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Which directory the folder is: device and inode of stat(2)."""

    device: int
    inode: int

    @classmethod
    def parse(cls, text: str) -> Identity | None:
        """The inverse of ``str``; None for an empty text."""
        device, _, inode = text.partition(":")
        return cls(int(device), int(inode)) if device and inode else None

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}"


@dataclass
class DeletionGuard:
    """``share`` of the documents (0 to 1) that may vanish within a minute; 1 never holds for the share alone."""

    share: float
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def reason(
        self, deleted: int, known: int, before: Identity | None, now: Identity, accepted: int, clock_s: float
    ) -> str | None:
        """Why these deletions must be held; None if they may go on.

        ``known`` documents were there before, the folder was ``before`` and is ``now``; a person has ``accepted`` so
        many deletions. ``clock_s`` is a monotonic clock in seconds.
        """
        while self._recent and self._recent[0][0] < clock_s - _WINDOW_S:
            self._recent.popleft()
        if not deleted or deleted <= accepted:
            return None
        lately = sum(number for _, number in self._recent)
        vanished, of = deleted + lately, known + lately
        replaced = before is not None and before != now
        if replaced and deleted > of * self.share / 2:
            what = "is on another device" if before is not None and before.device != now.device else "was replaced"
            return f"the folder {what}, and {deleted} of {known} documents are not in it"
        if vanished >= _FEW and vanished > of * self.share:
            return f"{vanished} of {of} documents vanished at once"
        return None

    def passed(self, deleted: int, clock_s: float) -> None:
        """So many deletions went on."""
        if deleted:
            self._recent.append((clock_s, deleted))
