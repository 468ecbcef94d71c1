"""What ``headwater status`` says, read from the ledger: also while no service runs."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from headwater.document import path_to_text
from headwater.errors import SettingsError
from headwater.state import Layout, Troubles, free_bytes
from producer.ledger import Counts, Ledger, Row
from producer.verdict import Cause, Facts, causes, health

__all__ = ["Observer", "Progress", "check_state", "forget_step", "read_status"]


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


def check_state(layout: Layout) -> None:
    """Raises SettingsError if the directory holds nothing of Headwater: its status would be that of a wrong name."""
    names = (layout.ledger, layout.manifest, layout.service, layout.token, *map(layout.lock, ("up", "worker")))
    if not any(path.exists() for path in names):
        raise SettingsError(
            f"{layout.root} holds no state of Headwater: run 'headwater up FOLDER' first, or name another directory "
            "with --state-dir"
        )


def read_status(layout: Layout, *, running: bool, least_free_bytes: int = 0) -> dict[str, Any]:
    """The status as one JSON-able object.

    ``in_step`` (bool), ``checked`` (bool: the index was compared with the ledger since the start, and agreed),
    ``documents`` (numbers by state), ``chunks``, ``embedded_texts_total`` and
    ``reused_texts_total`` (since the index was made), ``health`` (ok, degraded, failing), ``reasons`` (list of
    sentences), ``causes`` (the same with ``part``, ``health`` and ``next_step``, the worst first), ``running`` (bool),
    ``folder``, ``state_dir``. Writing stops when less than ``least_free_bytes`` are free.
    """
    if not layout.ledger.exists():
        return _empty(layout)
    ledger = Ledger(layout.ledger, read_only=True)
    try:
        return _status(ledger, layout, running=running, least_free_bytes=least_free_bytes)
    finally:
        ledger.close()


def _causes(ledger: Ledger, layout: Layout, counts: Counts, *, running: bool, least_free_bytes: int) -> list[Cause]:
    failed = next(iter(ledger.rows(state="failed", limit=1)), None) if counts.failed else None  # may be due by now
    return causes(
        Facts(
            troubles=json.loads(ledger.meta("troubles") or "{}") if running else {},
            processes=Troubles.read(layout).sentences if running else (),
            waiting=counts.waiting,
            failed=counts.failed,
            example=None if failed is None else f"{path_to_text(failed.path)}: {failed.reason}",
            free_bytes=free_bytes(layout.root),
            least_free_bytes=least_free_bytes,
        )
    )


def _status(ledger: Ledger, layout: Layout, *, running: bool, least_free_bytes: int = 0) -> dict[str, Any]:
    counts = ledger.counts()
    found = _causes(ledger, layout, counts, running=running, least_free_bytes=least_free_bytes)
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
        "health": health(found),
        "reasons": [cause.cause for cause in found],
        "causes": [cause.to_dict() for cause in found],
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
        "causes": [],
        "running": False,
        "folder": None,
        "state_dir": str(layout.root),
    }
