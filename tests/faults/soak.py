"""A service that nobody hurts, edited for as long as a soak lasts: its memory must not grow, and its index be right.

The faults of a soak happen to other services meanwhile, since what is killed cannot show a leak.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from session import Session

__all__ = ["Steady"]

_PARTS = {"worker": "headwater work", "producer": "headwater watch"}
#: what else is counted as the worker's memory; a compaction replaces it
_ENGINE = "headwater.engine"
#: share by which the memory may grow between the mark and the end
_GROWTH = 0.10
#: minutes after which the memory counts as that of a service at work
_MARK_MINUTES = 10.0
_RATE = 5.0
_EVERY_S = 20.0
#: a sample may fall into a compaction, so the median of as many is compared
_MEDIAN_OF = 9


def _memory_kb(pid: int) -> int:
    """Memory of its own (proc(5), Pss_Anon): libraries are shared with the services beside it, which come and go."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} tells of no memory")


class Steady(threading.Thread):
    """``start`` it, and ``line`` ends it and says what came of it."""

    def __init__(self, session: Session, minutes: float) -> None:
        super().__init__(name="steady", daemon=True)
        self._session = session
        self._mark_s = 60 * min(_MARK_MINUTES, minutes / 2)
        self._ending = threading.Event()
        self._samples: list[tuple[float, dict[str, int]]] = []
        self._pids: dict[str, list[int]] = {}

    def run(self) -> None:
        started = time.monotonic()
        self._session.generator.start(_RATE)
        self._pids = {name: self._session.pids(part) for name, part in _PARTS.items()}
        while not self._ending.wait(min(_EVERY_S, self._mark_s)):
            self._sample(time.monotonic() - started)

    def _sample(self, at_s: float) -> None:
        memory = {name: _memory_kb(pids[0]) for name, pids in self._pids.items()}
        for pid in self._session.pids(_ENGINE):
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                memory["worker"] += _memory_kb(pid)
        self._samples.append((at_s, memory))

    def line(self) -> dict[str, Any]:
        self._ending.set()
        self.join()
        session = self._session
        session.generator.stop()
        converged = session.converge(120.0)
        violations = [converged] if isinstance(converged, str) else session.check()
        violations += self._grown()
        if {name: session.pids(part) for name, part in _PARTS.items()} != self._pids:
            violations.append("a part was started anew though nobody hurt it")
        memory = [{"minute": round(at / 60), **kb} for at, kb in self._samples]
        line = {"group": "soak", "fault": "none: memory", "seed": session.seed, "runs": 1}
        line |= {"converge_s": None if isinstance(converged, str) else converged}
        line |= {"verdict": "violated" if violations else "ok", "violations": violations}
        session.discard()
        return {**line, "edits": session.generator.edits, "memory_kb": memory}

    def _grown(self) -> list[str]:
        """Memory at the end against that at the mark."""
        marked = [kb for at, kb in self._samples if at >= self._mark_s - 1]
        if len(marked) < 2:
            return ["the soak was too short to compare two samples of memory"]
        grown = []
        for name in _PARTS:
            first = statistics.median(kb[name] for kb in marked[:_MEDIAN_OF])
            last = statistics.median(kb[name] for kb in marked[-_MEDIAN_OF:])
            if last > first * (1 + _GROWTH):
                grown.append(f"the {name} went from {first:.0f} kB to {last:.0f} kB")
        return grown
