"""Gathers what is known of one path: rules, disk and ledger, read only. Also while no service ever ran here."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.settings import Settings
from headwater.state import Layout
from producer.answer import Answer, Evidence, answer, answer_directory
from producer.entries import Entries, Entry
from producer.rules import Rules
from producer.scanner import Scanner

__all__ = ["Examiner"]


@dataclass
class Examiner:
    """Looks at single paths of the folder ``root``, whose state lies in ``layout``."""

    root: bytes
    settings: Settings
    layout: Layout
    running: bool

    def __post_init__(self) -> None:
        settings = self.settings
        denied = frozenset({os.fsencode(self.layout.root)})
        self._rules = Rules(self.root, settings.include, settings.exclude, denied)
        self._scanner = Scanner(self.root, self._rules)

    def knows(self, path: bytes) -> bool:
        """Whether something is at the path, or was."""
        if os.path.lexists(os.path.join(self.root, path)):
            return True
        return bool(self._rows(path, whole_tree=False))

    def examine(self, path: bytes) -> Answer:
        """The answer for a path relative to the folder."""
        rows = self._rows(path, whole_tree=True)
        own = next((row for row in rows if row.path == path), None)
        if self._is_directory(path) or (own is None and rows):
            verdict = self._rules.explain(path, is_directory=True)
            return answer_directory(path, verdict, self._link(path), self._scanner.look(path), rows)
        return answer(self._evidence(path, own))

    def _evidence(self, path: bytes, entry: Entry | None) -> Evidence:
        seen = self._scanner.look(path)
        return Evidence(
            path=path,
            verdict=self._rules.explain(path),
            seen=seen.get(path),
            entry=entry,
            running=self.running,
            now=time.time(),
            reasons=self._reasons(),
            attempts=self.settings.attempts,
            link=self._link(path),
            closed=os.path.dirname(path) in self._scanner.closed,
        )

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(os.path.join(self.root, path)).st_mode)
        except OSError:
            return False

    def _link(self, path: bytes) -> bytes | None:
        """The highest directory above a path that is a symbolic link."""
        parts = path.split(b"/")
        above = (b"/".join(parts[:depth]) for depth in range(1, len(parts)))
        return next((each for each in above if os.path.islink(os.path.join(self.root, each))), None)

    def _rows(self, path: bytes, *, whole_tree: bool) -> Sequence[Entry]:
        if not self.layout.ledger.exists():
            return ()
        with Entries(self.layout.ledger) as entries:
            if whole_tree:
                return entries.below(path)
            own = entries.one(path)
            return () if own is None else (own,)

    def _reasons(self) -> tuple[str, ...]:
        """What ails the service that runs."""
        if not self.running or not self.layout.ledger.exists():
            return ()
        with Entries(self.layout.ledger) as entries:
            return tuple(json.loads(entries.meta("reasons") or "[]"))
