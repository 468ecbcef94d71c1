"""Named places in the pipeline at which a fault test may kill, stop, delay or fail a process, or a benchmark takes the
time.

Inert unless ``HEADWATER_FAILPOINTS`` is set when the process starts, to entries separated by semicolons:

    NAME=ACTION[:NTH][@TOKEN][~MARK]

``ACTION`` is ``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP), ``error`` (raises OSError, EIO) or ``sleep<seconds>``;
``time`` appends "NAME seconds" of the monotonic clock, the same for all processes, to the file TOKEN at every pass.
``NTH`` fires at that pass only (default 1). With ``TOKEN``, a file, passes count only while it exists, a number in it
goes before ``NTH``, and it fires only if it can delete it, so once over all restarts; a new file arms it again. With
``MARK``, only passes whose subject (a path) contains it count. A name may have several entries. The one reader of the
environment besides settings.py: a test or a benchmark arms it, never a person.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from dataclasses import dataclass, field

__all__ = ["MOVING", "NAMES", "reach"]

#: in the order in which one document passes them, then those of a compaction of the index
NAMES = (
    "producer:scanned",  # the folder was compared, nothing noted yet
    "producer:wanted",  # noted in the ledger, nobody was told
    "producer:published",  # a hint is out
    "worker:taken",  # a hint has arrived, nothing done yet
    "worker:reading",  # the file is open, no byte of it read
    "worker:read",  # bytes are read and hashed
    "sandbox:asked",  # the extraction child has the bytes
    "worker:extracted",  # chunks are known
    "worker:embedded",  # vectors are known, nothing written yet
    "worker:staged",  # some chunks of a long document are written
    "worker:upserted",  # the new version is written, the old one not removed
    "worker:applied",  # the old version is removed, nothing flushed
    "worker:flushed",  # durable, the producer was not told
    "worker:reported",  # the producer was told, the hint not acknowledged
    "producer:heard",  # an outcome arrived, not noted yet
    "producer:noted",  # noted in the ledger
    "index:copied",  # a compaction has its copy of the index
    "index:optimized",  # the copy is compacted, what was written meanwhile is missing in it
    "index:caught-up",  # the copy holds what the index holds, the two are not swapped
    "index:swapping",  # the old index has left its place, the new one is not there
    "index:swapped",  # the new index is in its place, the old one still beside it
)
#: in the order in which the move of an index to another generation passes them (docs/reindex.md)
MOVING = (
    "reindex:noted",  # what is to be made is noted, nothing more
    "reindex:pinned",  # each generation has its settings, nothing is filled
    "reindex:told",  # on a server: the new collection is there, and both tell their settings
    "reindex:filled",  # the new generation has caught up, nothing is compared
    "reindex:checked",  # the comparison was passed, the pointer stands as before
    "move:alias",  # on a server: the alias names the other generation, the pointer does not
    "move:pointer",  # the pointer names it as well
    "reindex:moved",  # all of the move is made, the note of the reindex is still there
    "rollback:noted",  # where the way back leads is noted, nothing more
    "rollback:filled",  # the generation before has caught up, the pointer stands as before
    "rollback:moved",  # all of the move is made, the note of the way back is still there
    "follow:anew",  # a part follows the move: it has let go of all, and begins anew
    "work:anew",  # a worker that answers begins anew, and a stand-in answers for it
    "up:beside",  # the parts of the new generation run beside those of the old one
    "up:caught-up",  # they have caught up, and answer nobody yet
    "up:called",  # it is their turn to answer
    "up:answering",  # they do, and the old parts run as well
)


@dataclass
class _Failpoint:
    name: str
    action: str
    nth: int
    token: str | None
    mark: str
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fire(self) -> None:
        if self.action == "time":
            self._take_time()
            return
        with self.lock:
            if not self._counts():
                return
        if self.token is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.token)
                self._act()
            return
        self._act()

    def _counts(self) -> bool:
        """Count a pass; whether it is the one."""
        nth = self.nth if self.token is None else _number_in(self.token, self.nth)
        self.passes = 0 if nth is None else self.passes + 1
        return self.passes == nth

    def _take_time(self) -> None:
        assert self.token is not None, "time needs a file"
        with open(self.token, "a", encoding="ascii") as file:
            file.write(f"{self.name} {time.monotonic():.6f}\n")

    def _act(self) -> None:
        here = threading.get_ident()  # sent to the process, another thread would take it and this one would run on
        if self.action == "kill":
            signal.pthread_kill(here, signal.SIGKILL)
        elif self.action == "stop":
            signal.pthread_kill(here, signal.SIGSTOP)
        elif self.action == "error":
            raise OSError(errno.EIO, "a failpoint")
        elif self.action.startswith("sleep"):
            time.sleep(float(self.action.removeprefix("sleep")))


def _number_in(token: str, otherwise: int) -> int | None:
    """The number in a token; None if there is no such file."""
    try:
        with open(token, encoding="ascii") as file:
            return int(file.read().strip() or otherwise)
    except FileNotFoundError:
        return None


def _parse(text: str) -> dict[str, list[_Failpoint]]:
    armed: dict[str, list[_Failpoint]] = {}
    for entry in filter(None, text.split(";")):
        name, _, rest = entry.partition("=")
        rest, _, mark = rest.partition("~")
        rest, _, token = rest.partition("@")
        action, _, nth = rest.partition(":")
        assert name in NAMES + MOVING, f"no failpoint {name}"
        assert action in ("kill", "stop", "error", "time") or action.startswith("sleep"), f"no action {action}"
        armed.setdefault(name, []).append(_Failpoint(name, action, int(nth or 1), token or None, mark))
    return armed


_ARMED = _parse(os.environ.get("HEADWATER_FAILPOINTS", ""))


def reach(name: str, subject: str = "") -> None:
    """This place in the pipeline is reached, by this document if it is one."""
    if _ARMED:
        for failpoint in _ARMED.get(name, ()):
            if failpoint.mark in subject:
                failpoint.fire()
