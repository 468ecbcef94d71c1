"""Where the progress of an evaluation is shown."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Stage"]


class Stage(Protocol):
    """One stage at a time. No method blocks."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; ``total`` steps of it are known, or not yet."""

    def update(self, done: int, total: int) -> None:
        """So many steps of it are done."""

    def note(self, text: str) -> None:
        """A sentence that a person should see now."""
