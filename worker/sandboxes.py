"""The worker's side of the extraction children: a pool of long-lived processes, one document at a time each."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from headwater.errors import SandboxUnavailable
from headwater.failpoints import reach
from headwater.metrics import sandbox_deaths
from worker.answers import Answer, Extraction, Failure, Refusal, understand
from worker.exchange import Ended, Exchange, Garbled, Late
from worker.homes import Home, TooMuchWritten
from worker.language import Language
from worker.ocr import find_data

if TYPE_CHECKING:
    from headwater.embedder import Embedder
    from headwater.settings import Settings

__all__ = ["Extraction", "ExtractionFailed", "ExtractionRefused", "SandboxPool"]

log = logging.getLogger(__name__)

#: a child gets this long beyond its own limits before it is killed
_GRACE_S = 3.0
_START_TIMEOUT_S = 60.0
#: the files within a document have together this many times the time of one
_MOST_TIMES = 20
#: files within a document whose reading ends the child, before the document counts as failed
_MOST_SKIPPED = 3
_SIGNALS = {
    signal.SIGKILL: "was killed, most likely for want of memory",
    signal.SIGXCPU: "used more processor time than it is allowed",
    signal.SIGALRM: "took longer than it is allowed",
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGABRT: "crashed (abort)",
    signal.SIGBUS: "crashed (bus error)",
    signal.SIGSYS: "made a system call of another machine",
    signal.SIGXFSZ: "wrote a larger file than it is allowed",
}

_LABELS = {
    signal.SIGKILL: "memory",
    signal.SIGXCPU: "cpu",
    signal.SIGALRM: "timeout",
    signal.SIGXFSZ: "disk",
}


class ExtractionRefused(Exception):
    """The document is not for us, and will not be with the same content."""


class ExtractionFailed(Exception):
    """The child died or gave up on this document: worth another try within the budget. ``told`` is what a log may have
    of it: a reader's message may quote the document."""

    told = "the extraction failed: 'headwater failures' tells why"


@dataclass(frozen=True, slots=True)
class _Setup:
    tokenizer_json: str
    max_tokens: int
    timeout_s: float
    memory_bytes: int
    heading_context: bool
    ocr: str = ""
    tessdata: str = ""
    passwords: tuple[str, ...] = field(default=(), repr=False)
    limits: Mapping[str, int] = field(default_factory=dict)


class _Child:
    """One process. Any error on its pipes ends it; the pool then starts another."""

    def __init__(self, setup: _Setup, home: Path) -> None:
        """Raises SandboxUnavailable: no document is to blame for a child that does not start."""
        self._timeout_s = setup.timeout_s
        self._home = Home(home)
        self._numbers = count()
        #: the file within the document that it has begun to read
        self.member: str | None = None
        self._spent = False
        try:
            self._home.make()
            self._process = self._start()
        except OSError as error:
            raise SandboxUnavailable(f"an extraction child cannot start ({error}): free some memory or disk") from error
        self._exchange = Exchange(self._stdin.fileno(), self._stdout.fileno(), self._check_home)
        try:
            self._greet(setup)
        except (Late, Ended, Garbled, TooMuchWritten) as error:
            self.bury()
            raise SandboxUnavailable("an extraction child does not start: see the worker's log") from error
        except BaseException:
            self.bury()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_environment(), "TMPDIR": str(self._home.path), "HOME": str(self._home.path)},
            cwd=self._home.path,
            start_new_session=True,  # it and all that it may start are killed as one group
            bufsize=0,
        )

    def _greet(self, setup: _Setup) -> None:
        header = {
            "max_tokens": setup.max_tokens,
            "heading_context": setup.heading_context,
            "timeout_s": setup.timeout_s,
            "memory_bytes": setup.memory_bytes,
            "passwords": list(setup.passwords),
            "limits": dict(setup.limits),
            "ocr": setup.ocr,
            "tessdata": setup.tessdata,
        }
        deadline = time.monotonic() + _START_TIMEOUT_S
        self._exchange.send(header, setup.tokenizer_json.encode(), deadline)
        self._exchange.receive(deadline)

    @property
    def _stdin(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdout)

    def idle(self) -> bool:
        """Whether it waits for a document: it may have died since the last, or still be talking about it."""
        return not self._spent and self._exchange.silent()

    def ask(self, name: str, data: bytes, skipped: Mapping[str, str]) -> Answer:
        """What came of a document. ``skipped`` are files within it that are not looked into, with the reason. Raises
        _Dead, and the child then is of no use."""
        number = next(self._numbers)
        self.member = None
        try:
            self._exchange.send({"name": name, "id": number, "skipped": dict(skipped)}, data, self._deadline())
            reach("sandbox:asked")
            reply = self._receive(number)
            answer = understand(reply, number)
        except Late:
            raise _Dead("timeout", f"the extraction took longer than {self._timeout_s:.0f} s") from None
        except Ended:
            raise _Dead(*self._obituary()) from None
        except TooMuchWritten:
            raise _Dead("disk", "the extraction wrote more to the disk than it is allowed") from None
        except Garbled as error:
            raise _Dead("garbled", f"the extraction gave no proper answer: {error}") from None
        self._tidy()
        self._spent |= reply.get("last") is True  # it ends, which may not show yet
        self._spent |= isinstance(answer, Failure)  # whatever broke may be broken still: the next gets a new child
        return answer

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s + _GRACE_S

    def _receive(self, number: int) -> dict[str, Any]:
        """The answer. Each file within the document has the time of a document, and all together that of a few."""
        last = time.monotonic() + _MOST_TIMES * self._timeout_s
        while True:
            answer = self._exchange.receive(min(self._deadline(), last))
            if answer.get("id") != number or not isinstance(answer.get("member"), str):
                return answer
            self.member = answer["member"] or self.member

    def _check_home(self) -> None:
        self._home.check(self._process.pid)

    def _tidy(self) -> None:
        try:
            self._home.tidy()
        except OSError as error:
            log.warning("the home of an extraction child could not be emptied, so it ends: %s", error)
            self._spent = True

    def _obituary(self) -> tuple[str, str]:
        """Why it closed its pipes, as a label and a sentence: it has ended, or will be."""
        code = self._exit_code(time.monotonic() + _GRACE_S)
        if code is None:
            return "ended", "the extraction closed its pipes"
        if code >= 0:
            return "ended", f"the extraction ended by itself (status {code})"
        number = signal.Signals(-code)
        return _LABELS.get(number, "crash"), f"the extraction {_SIGNALS.get(number, f'died by signal {-code}')}"

    def _exit_code(self, deadline: float) -> int | None:
        """Its exit code (a signal's is negative), without letting go of its process id."""
        while time.monotonic() < deadline:
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            time.sleep(0.01)
        return None

    def kill(self) -> None:
        """Kill it and whatever it has started, from any thread; who holds it then finds it dead."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Leave nothing of it. The group is killed first: waiting lets go of its number."""
        self.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self._home.remove()


class _Dead(ExtractionFailed):
    """A failure after which the child cannot be used; ``label`` says of which sort."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.told = "the extraction gave no proper answer" if label == "garbled" else reason
        sandbox_deaths.labels(label).inc()


class _MemberFailed(ExtractionFailed):
    """The failure of a file within a document: the rest of it can still be read."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(reason)
        self.member = member


def _environment() -> dict[str, str]:
    """Nothing of ours (keys, addresses) but what Python needs to start."""
    kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    # one thread, also in numpy's library: what is there before the child confines itself stays outside, and a process
    # with two may not make a user namespace
    alone = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**given, **alone, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


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
        language: Language | None = None,
        heading_context: bool = False,
        passwords: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
        ocr: str = "off",
    ) -> None:
        """``language``: who tells the language of each document, if anybody is to. ``limits``: those of
        ``worker.members.Limits`` that are not to be the usual ones. ``ocr``: as in the settings.

        Raises SettingsError if the data for its languages is not there.
        """
        tessdata = find_data(ocr) or ""
        self._setup = _Setup(
            tokenizer_json,
            max_tokens,
            timeout_s,
            memory_bytes,
            heading_context,
            ocr if tessdata else "",
            tessdata,
            tuple(passwords),
            limits or {},
        )
        self._homes = homes
        self._language = language
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        for number in range(size or os.cpu_count() or 1):
            self._free.put(_Slot(homes / str(number)))

    @classmethod
    def of(cls, settings: Settings, embedder: Embedder, homes: Path) -> Self:
        """As the settings have it, for documents that this embedder is to read."""
        return cls(
            embedder.tokenizer_json,
            homes=homes,
            max_tokens=min(settings.chunk_tokens, embedder.window),
            timeout_s=settings.extract_timeout_s,
            memory_bytes=settings.sandbox_memory_bytes,
            size=settings.sandboxes,
            language=Language(settings.language),
            heading_context=settings.heading_context,
            passwords=settings.passwords(),
            limits={
                "depth": settings.archive_depth,
                "members": settings.archive_members,
                "member_bytes": settings.max_file_bytes,
                "total_bytes": settings.archive_bytes,
            },
            ocr=settings.ocr,
        )

    def start(self) -> None:
        """Start all children in the background, so that the first documents need not wait for that."""
        for _ in range(self._free.qsize()):
            threading.Thread(target=self._start_one, name="sandboxes", daemon=True).start()

    def _start_one(self) -> None:
        try:
            with self._lent():
                if self._closed:
                    raise SandboxUnavailable("the extraction children have ended")
        except SandboxUnavailable as error:
            log.info("no extraction child was started ahead of the first document: %s", error)

    def extract(self, name: str, data: bytes) -> Extraction:
        """Text and chunks of a document. Blocks until a child is free.

        Raises ExtractionRefused or ExtractionFailed with a reason for people, and SandboxUnavailable if no child
        can be had.
        """
        skipped: dict[str, str] = {}
        while True:
            try:
                return self._ask(name, data, skipped)
            except _MemberFailed as failed:
                if len(skipped) >= _MOST_SKIPPED or failed.member in skipped:
                    raise ExtractionFailed(f"{failed.member} within it: {failed}") from None
                skipped[failed.member] = str(failed)

    def _ask(self, name: str, data: bytes, skipped: Mapping[str, str]) -> Extraction:
        """One try, that leaves out files within the document that have failed before. Raises _MemberFailed too."""
        with self._lent() as child:
            try:
                answer = child.ask(name, data, skipped)
            except _Dead as dead:
                if child.member is None:
                    raise
                raise _MemberFailed(child.member, str(dead)) from None
        match answer:
            case Extraction():
                return self._with_language(answer)
            case Refusal(reason):
                raise ExtractionRefused(reason)
            case Failure(reason) if child.member is not None:
                raise _MemberFailed(child.member, reason)
            case Failure(reason):
                raise ExtractionFailed(reason)

    def _with_language(self, found: Extraction) -> Extraction:
        """That of the document, and of each file within it."""
        if self._language is None:
            return found
        texts: dict[int | None, list[str]] = {}
        for chunk in found.chunks:
            texts.setdefault(chunk.member, []).append(chunk.text)
        tell = self._language.of
        members = (
            replace(member, language=tell(member.kind, texts.get(at, ()), member.metadata))
            for at, member in enumerate(found.members)
        )
        language = tell(found.kind, texts.get(None, ()), found.metadata)
        return replace(found, language=language, members=tuple(members))

    @contextlib.contextmanager
    def _lent(self) -> Iterator[_Child]:
        slot = self._free.get()
        try:
            if slot.child is not None and not slot.child.idle():
                self._bury(slot.child)
                slot.child = None
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
            if self._closed:
                child.kill()
        log.info("an extraction child started in %.1f s", time.monotonic() - started)
        return child

    def _bury(self, child: _Child) -> None:
        child.bury()
        with self._lock:
            self._all.discard(child)

    def close(self) -> None:
        """End all children; a thread that waits for one hears that it was killed."""
        with self._lock:
            self._closed = True
            for child in self._all:
                child.kill()
        for slot in self._take_free():
            if slot.child is not None:
                self._bury(slot.child)
            self._free.put(_Slot(slot.home))
        shutil.rmtree(self._homes, ignore_errors=True)

    def _take_free(self) -> list[_Slot]:
        taken: list[_Slot] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._free.get_nowait())
        return taken
