"""The worker's side of the extraction children: a pool of long-lived processes, one document at a time each."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from headwater.failpoints import reach
from headwater.index import Chunk
from worker.frames import read_frame, write_frame

__all__ = ["Extraction", "ExtractionFailed", "ExtractionRefused", "SandboxPool"]

log = logging.getLogger(__name__)

#: a child gets this long beyond its own limits before it is killed
_GRACE_S = 3.0
_START_TIMEOUT_S = 60.0
_SIGNALS = {
    signal.SIGKILL: "was killed, most likely for want of memory",
    signal.SIGXCPU: "used more processor time than it is allowed",
    signal.SIGALRM: "took longer than it is allowed",
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGABRT: "crashed (abort)",
    signal.SIGBUS: "crashed (bus error)",
}


class ExtractionRefused(Exception):
    """The document is not for us, and will not be with the same content."""


class ExtractionFailed(Exception):
    """The child died or gave up on this document: worth another try within the budget."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a child read in a document."""

    chunks: tuple[Chunk, ...]
    kind: str
    title: str | None
    metadata: Mapping[str, object]
    partial: str | None


@dataclass(frozen=True, slots=True)
class _Setup:
    tokenizer_json: str
    max_tokens: int
    timeout_s: float
    memory_bytes: int


class _Child:
    """One process. Any error on its pipe ends it; the pool then starts another."""

    def __init__(self, setup: _Setup, home: Path) -> None:
        self._timeout_s = setup.timeout_s
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700, parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_environment(), "TMPDIR": str(home), "HOME": str(home)},
            cwd=home,
            start_new_session=True,
        )
        header = {
            "max_tokens": setup.max_tokens,
            "timeout_s": setup.timeout_s,
            "memory_bytes": setup.memory_bytes,
        }
        write_frame(self._stdin, header, setup.tokenizer_json.encode())
        self._read(_START_TIMEOUT_S)

    @property
    def _stdin(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdout)

    def ask(self, name: str, data: bytes) -> dict[str, Any]:
        """Raises ExtractionFailed, and the child is then dead."""
        try:
            write_frame(self._stdin, {"name": name}, data)
        except OSError:
            raise ExtractionFailed(self._obituary()) from None
        reach("sandbox:asked")
        return self._read(self._timeout_s + _GRACE_S)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        ready, _, _ = select.select([self._stdout], [], [], timeout_s)
        if not ready:
            self.kill()
            raise ExtractionFailed(f"the extraction took longer than {self._timeout_s:.0f} s")
        frame = read_frame(self._stdout)
        if frame is None:
            raise ExtractionFailed(self._obituary())
        return frame[0]

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GRACE_S)
        code = self._process.returncode
        if code is None or code >= 0:
            self.kill()
            return f"the extraction ended by itself (status {code})"
        return f"the extraction {_SIGNALS.get(signal.Signals(-code), f'died by signal {-code}')}"

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _environment() -> dict[str, str]:
    """Nothing of ours (keys, addresses) but what Python needs to start."""
    kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    return {**given, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(slots=True)
class _Slot:
    """A place for one child, and the private directory that is its home and temporary directory."""

    home: Path
    child: _Child | None = None


class SandboxPool:
    """Lends children to threads; one that died is replaced at its next use. ``homes`` holds their directories:
    the PDF engine unpacks itself there at its first use, out of reach of other users."""

    def __init__(
        self,
        tokenizer_json: str,
        *,
        homes: Path,
        max_tokens: int,
        timeout_s: float,
        memory_bytes: int,
        size: int = 0,
    ) -> None:
        self._setup = _Setup(tokenizer_json, max_tokens, timeout_s, memory_bytes)
        self._homes = homes
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        for number in range(size or os.cpu_count() or 1):
            self._free.put(_Slot(homes / str(number)))

    def extract(self, name: str, data: bytes) -> Extraction:
        """Text and chunks of a document. Blocks until a child is free.

        Raises ExtractionRefused or ExtractionFailed with a reason for people.
        """
        with self._lent() as child:
            answer = child.ask(name, data)
        if "refused" in answer:
            raise ExtractionRefused(answer["refused"])
        if "failed" in answer:
            raise ExtractionFailed(answer["failed"])
        return _extraction(answer)

    @contextlib.contextmanager
    def _lent(self) -> Iterator[_Child]:
        slot = self._free.get()
        try:
            slot.child = slot.child or self._start(slot.home)
            yield slot.child
        except BaseException:
            if slot.child is not None:
                self._bury(slot.child)
                slot.child = None
            raise
        finally:
            self._free.put(slot)

    def _start(self, home: Path) -> _Child:
        started = time.monotonic()
        child = _Child(self._setup, home)
        with self._lock:
            self._all.add(child)
        log.info("an extraction child started in %.1f s", time.monotonic() - started)
        return child

    def _bury(self, child: _Child) -> None:
        child.kill()
        with self._lock:
            self._all.discard(child)

    def close(self) -> None:
        """End all children."""
        with self._lock:
            children = list(self._all)
            self._all.clear()
        for child in children:
            child.kill()
        shutil.rmtree(self._homes, ignore_errors=True)


def _extraction(answer: dict[str, Any]) -> Extraction:
    pieces = (Chunk(**{**raw, "headings": tuple(raw["headings"])}) for raw in answer["chunks"])
    return Extraction(tuple(pieces), answer["kind"], answer["title"], answer["metadata"], answer["partial"])
