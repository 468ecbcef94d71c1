"""Whether a producer has caught up with the folder once, read from its ledger while edits go on."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import closing

from headwater.state import Layout
from producer.ledger import Ledger

__all__ = ["CatchUp"]


class CatchUp:
    """Reached when the folder was scanned, whatever was wanted by then is applied, and so is a first version of
    whatever was changed meanwhile. So edits without end do not put it off, and no document is missing then."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        #: the last seq that was given out when the folder had been scanned
        self._mark: int | None = None
        #: changed since, and never applied
        self._late: Collection[bytes] | None = None

    def reached(self) -> bool:
        """Asked again and again. Raises HeadwaterError if the ledger cannot be read."""
        if not self._layout.ledger.exists():
            return False
        with closing(Ledger(self._layout.ledger, read_only=True)) as ledger:
            if ledger.meta("scanned") != "1" or not self._is_the_index(ledger):
                return False
            return self._is_in(ledger)

    def _is_in(self, ledger: Ledger) -> bool:
        if self._mark is None:
            self._mark = int(ledger.meta("last_seq") or 0)
        if self._late is None:
            if ledger.waits_from_before(self._mark + 1):
                return False
            self._late = ledger.never_applied()
        if self._late:
            self._late = set(self._late) & ledger.never_applied()
        return not self._late

    def _is_the_index(self, ledger: Ledger) -> bool:
        """Whether a worker has said hello with the embedded index that is there."""
        known = ledger.meta("index_id")
        try:
            return bool(known) and json.loads(self._layout.manifest.read_text("utf-8"))["index_id"] == known
        except FileNotFoundError:
            return bool(known)  # a server's
        except (OSError, ValueError, LookupError):
            return False
