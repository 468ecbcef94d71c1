"""What ``headwater status`` says, read from the ledger: also while no service runs."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from headwater.document import path_to_text
from headwater.state import Layout, Troubles
from producer.ledger import Ledger, Row

__all__ = ["Observer", "Progress", "forget_step", "read_status"]


def forget_step(layout: Layout) -> None:
    """A service begins: it is not in step before it has looked. Raises HeadwaterError if the ledger is unusable."""
    ledger = Ledger(layout.ledger)
    try:
        ledger.set_metas({"scanned": "0", "checked": "0"})
    finally:
        ledger.close()


class Observer:
    """Reads a running service's progress from its ledger, which other processes write."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ledger = Ledger(layout.ledger, read_only=True)
        self._since = time.time()

    def status(self) -> dict[str, Any]:
        """As ``read_status``."""
        return _status(self._ledger, self._layout, running=True)

    def changes(self) -> list[Row]:
        """Documents that were settled since the last call."""
        rows = self._ledger.rows(since=self._since)
        if rows:
            self._since = rows[-1].applied_at
        return rows

    def close(self) -> None:
        self._ledger.close()


class Progress:
    """How far the producer is, in one cheap look at its ledger. Safe to use from several threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ledger: Ledger | None = None
        self._inode = 0
        self._lock = threading.Lock()

    def read(self) -> tuple[int, bool]:
        """Paths that were noticed and are not searchable yet, and whether the index is in step."""
        with self._lock:
            ledger = self._current()
            if ledger is None:
                return 0, False
            waiting = ledger.waiting()
            return waiting, waiting == 0 and ledger.meta("scanned") == "1"

    def _current(self) -> Ledger | None:
        """The ledger that is there now: a producer may have made a new one."""
        try:
            inode = self._layout.ledger.stat().st_ino
        except FileNotFoundError:
            return None
        if self._ledger is None or inode != self._inode:
            if self._ledger is not None:
                self._ledger.close()
            self._ledger, self._inode = Ledger(self._layout.ledger, read_only=True), inode
        return self._ledger


def read_status(layout: Layout, *, running: bool) -> dict[str, Any]:
    """The status as one JSON-able object.

    ``in_step`` (bool), ``checked`` (bool: the index was compared with the ledger since the start, and agreed),
    ``documents`` (numbers by state), ``chunks``, ``embedded_texts_total`` and
    ``reused_texts_total`` (since the index was made), ``health`` (ok, degraded, failing), ``reasons`` (list of
    sentences), ``running`` (bool), ``folder``, ``state_dir``.
    """
    if not layout.ledger.exists():
        return _empty(layout)
    ledger = Ledger(layout.ledger, read_only=True)
    try:
        return _status(ledger, layout, running=running)
    finally:
        ledger.close()


def _status(ledger: Ledger, layout: Layout, *, running: bool) -> dict[str, Any]:
    counts = ledger.counts()
    reasons = [*json.loads(ledger.meta("reasons") or "[]"), *Troubles.read(layout).sentences] if running else []
    failing = bool(reasons)
    if counts.failed:
        first = next(iter(ledger.rows(state="failed", limit=1)), None)  # it may be due again by now
        example = "" if first is None else f", such as {path_to_text(first.path)}: {first.reason}"
        reasons.append(f"{counts.failed} documents failed{example}")
    return {
        "in_step": ledger.meta("scanned") == "1" and counts.waiting == 0 and not ledger.waiting(),
        "checked": ledger.meta("checked") == "1",
        "documents": {
            "indexed": counts.indexed,
            "partial": counts.partial,
            "refused": counts.refused,
            "failed": counts.failed,
            "waiting": counts.waiting,
        },
        "chunks": counts.chunks,
        "embedded_texts_total": int(ledger.meta("embedded_total") or 0),
        "reused_texts_total": int(ledger.meta("reused_total") or 0),
        "health": "failing" if failing and counts.waiting else "degraded" if reasons else "ok",
        "reasons": reasons,
        "running": running,
        "folder": ledger.meta("folder"),
        "state_dir": str(layout.root),
    }


def _empty(layout: Layout) -> dict[str, Any]:
    documents = dict.fromkeys(("indexed", "partial", "refused", "failed", "waiting"), 0)
    return {
        "in_step": False,
        "checked": False,
        "documents": documents,
        "chunks": 0,
        "embedded_texts_total": 0,
        "reused_texts_total": 0,
        "health": "ok",
        "reasons": ["nothing is indexed yet: run 'headwater up FOLDER'"],
        "running": False,
        "folder": None,
        "state_dir": str(layout.root),
    }
