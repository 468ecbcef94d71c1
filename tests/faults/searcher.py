"""Asks the service a few times a second while faults happen: it must answer, or say plainly that it cannot."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path

from session import Session

__all__ = ["Searcher"]

_PAUSE_S = 0.3
#: longer than a search waits for an index on a server that is silent (HEADWATER_QDRANT_SEARCH_TIMEOUT_S)
_TIMEOUT_S = 8.0
#: errors by which the API says that it is not ready
_PLAIN_ERRORS = (503,)


class Searcher(threading.Thread):
    """``violations`` holds every answer that was neither hits nor plain."""

    def __init__(self, session: Session) -> None:
        super().__init__(name="searcher", daemon=True)
        self._session = session
        self._ending = threading.Event()
        self.answers: Counter[str] = Counter()
        self.violations: list[str] = []

    def end(self) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        while not self._ending.wait(_PAUSE_S):
            self._ask()

    def _ask(self, *, again: bool = False) -> None:
        asked_at = time.monotonic()
        try:
            status, answer = self._session.request("/v1/search", {"text": "river stone paper"}, _TIMEOUT_S)
        except TimeoutError:
            if again and asked_at >= self._session.went_on_at:
                self._silent("timeout")
            elif again:  # all went on while it was asked: the next question must be answered
                self.answers["late"] += 1
            else:  # it may have been asked while the worker was held still
                self.answers["late"] += 1
                self._ask(again=True)
        except (OSError, ValueError, HTTPException) as error:
            self._silent(f"{type(error).__name__}: {error}")
        else:
            self._judge(status, answer, time.monotonic() - asked_at)

    def _judge(self, status: int, answer: object, took_s: float) -> None:
        if status == 200 and isinstance(answer, dict) and isinstance(answer.get("hits"), list):
            self.answers["hits"] += 1
        elif status in _PLAIN_ERRORS and isinstance(answer, dict) and answer.get("error", {}).get("message"):
            self.answers["plain error"] += 1
        else:
            self.violations.append(f"a search was answered with {status} after {took_s:.1f} s: {str(answer)[:200]}")

    def _silent(self, how: str) -> None:
        """Nobody answered: allowed if the service is not up, if status says so, or while the worker is held still."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if not self._session.alive() or self._held_still() or self._said_so():
                self.answers["no service"] += 1
                return
            time.sleep(0.1)
        api = self._session.layout.service
        known = api.read_text() if api.exists() else "none"
        self.violations.append(f"a search got no answer ({how}) while status tells of no trouble (service: {known})")

    def _said_so(self) -> bool:
        """By status, or by /readyz, for a question waits while the model is loaded."""
        status = self._session.status()
        if not status or status["api"] is None or status["health"] != "ok":
            return True
        with contextlib.suppress(OSError, ValueError, HTTPException):
            return self._session.request("/readyz", timeout_s=1.0)[0] == 503
        return False

    def _held_still(self) -> bool:
        """Whether a worker is stopped by a signal: it cannot say anything."""
        for pid in self._session.pids("headwater work"):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
                    return True
        return False
