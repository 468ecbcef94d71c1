"""``headwater up``: starts broker, producer and worker as children, restarts what dies, and ends them in order.

The children are tied to this process by the kernel: kill -9 of it leaves none behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal

from headwater.broker import embedded_binary, reachable
from headwater.errors import BrokerUnavailable, DiskFull, HeadwaterError, PermanentError, RetryableError
from headwater.listening import listen
from headwater.settings import Settings, generation_name, shown_url
from headwater.state import Layout, Troubles

__all__ = ["Supervisor"]

_TETHER = Path(__file__).with_name("tether.py")
#: a child that lived this long starts anew without delay
_STABLE_S = 20.0
_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: so many quick failures in a row that no later one may mend end the service
_MOST_FAILURES = 5
#: seconds that a child gets to end by itself: the producer has nothing to finish, the worker drains
_GRACE_S = {"producer": 10.0, "worker": 30.0, "broker": 5.0}
_BROKER_START_S = 15.0
_TICK_S = 0.1
#: prefix of the one sentence that a command prints before it fails
SENTENCE = "headwater: "


@dataclass
class _Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    log: Path
    environment: dict[str, str]
    #: of a socket that it gets
    descriptors: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0
    #: why it was started anew, if that did not help at once
    trouble: str | None = None
    log_offset: int = 0

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.log_offset = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(_TETHER), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                pass_fds=self.descriptors,
                start_new_session=True,  # Ctrl-C of the terminal reaches us alone
            )
        self.started_at = time.monotonic()

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def last_sentence(self) -> str | None:
        """The sentence that it printed before it failed, from what it wrote since its start."""
        with open(self.log, "rb") as log:
            log.seek(self.log_offset)
            lines = log.read().decode("utf-8", "replace").splitlines()
        return next((line.removeprefix(SENTENCE) for line in reversed(lines) if line.startswith(SENTENCE)), None)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        if self.process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        return self.process.poll() is not None


@dataclass
class Supervisor:
    """Runs the parts of one folder on this machine. ``on_tick`` is called several times a second while
    they run, ``on_drain`` when a signal ends them. The API's socket is bound here, so that callers wait in line while
    the worker that answers is replaced. ``api``: how the worker answers, "shared" by turns with one of another
    generation, "private" for us alone, or "none"."""

    settings: Settings
    layout: Layout
    once: bool
    on_tick: Callable[[], None]
    on_drain: Callable[[], None]
    api: Literal["shared", "private", "none"] = "shared"
    listener: socket.socket | None = None
    #: whether a worker runs here
    worker: bool = True
    _children: list[_Child] = field(default_factory=list)
    _signals: int = 0
    _told: tuple[str, ...] = ()
    _reached: Callable[[], bool] | None = None

    def run(self) -> None:
        """Blocks until a signal, or with ``once`` until the producer says that the index is in step.

        Raises HeadwaterError with the sentence of the part that cannot go on.
        """
        with self._signals_counted():
            try:
                self.start()
                while not self._signals and not self._done():
                    time.sleep(_TICK_S)
                    self.revive()
                    self.on_tick()
                self.on_tick()
                if self._signals:
                    self.on_drain()
            finally:
                self.stop()
                if self.listener is not None:
                    self.listener.close()

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run."""
        return self._signals > 0

    def end_when(self, reached: Callable[[], bool]) -> None:
        """End the run as if all were done when this is true."""
        self._reached = reached

    def adopt(self, other: Supervisor) -> Supervisor:
        """Look after the parts of another one from now on; returns one with those that were ours, to be stopped."""
        ours = replace(self, _children=self._children)
        self.settings, self.layout, self._children = other.settings, other.layout, other._children
        return ours

    def pid(self, name: str) -> int | None:
        """The process of a part that runs now."""
        child = next((child for child in self._children if child.name == name), None)
        return None if child is None or child.process is None or child.exit_code() is not None else child.process.pid

    # -- start -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Raises HeadwaterError if the port of the API is taken, or the broker does not answer."""
        if self.api != "none" and self.listener is None:
            self.listener = listen(self.settings.host, self.settings.port)
        if self.settings.broker_url is None:
            self._add("broker", self._broker_command()).start()
        self._await_broker()
        once = ["--once"] if self.once else []
        parts = {"producer": ["watch", *once], "worker": ["work", *self._serve()]}
        for name, verb in parts.items():
            if name == "worker" and not self.worker:
                continue
            self._add(name, [sys.executable, "-P", "-m", "headwater", *verb]).start()

    def _serve(self) -> list[str]:
        if self.listener is None:
            return []
        place = ["--serve", "--api-fd", str(self.listener.fileno())]
        return [*place, "--private-api"] if self.api == "private" else place

    def _add(self, name: str, command: Sequence[str]) -> _Child:
        given = {
            "HEADWATER_STATE_DIR": str(self.layout.root),
            "HEADWATER_GENERATION": str(self.layout.generation),
        }
        if name == "producer":
            given["HEADWATER_METRICS_PORT"] = "0"  # the worker tells its numbers as well: one place to ask
        environment = {**os.environ, **self.settings.to_environment(), **given, "PYTHONUNBUFFERED": "1"}
        log = self.layout.logs / f"{generation_name(name, self.layout.generation)}.log"
        descriptors = [self.listener.fileno()] if name == "worker" and self.listener is not None else []
        child = _Child(name, command, log, environment, descriptors)
        self._children.append(child)
        return child

    def _broker_command(self) -> list[str]:
        return [
            embedded_binary(),
            *("--port", "0"),
            *("--unixsocket", str(self.layout.socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self.layout.broker)),
            *("--save", ""),
            *("--appendonly", "no"),  # a doorbell: what it forgets, the ledger rings for again
            *("--maxmemory", "256mb"),
            *("--maxmemory-policy", "noeviction"),
            *("--loglevel", "warning"),
        ]

    def _await_broker(self) -> None:
        deadline = time.monotonic() + _BROKER_START_S
        while not reachable(self.settings):
            if self._signals:
                return
            if time.monotonic() > deadline:
                raise BrokerUnavailable(self._no_broker())
            time.sleep(0.02)
            self.revive()

    def _no_broker(self) -> str:
        if self.settings.broker_url is not None:
            return f"the broker {shown_url(self.settings.broker_url)} does not answer: start it, or unset its URL"
        return f"the broker {self.layout.socket} does not answer: see {self.layout.logs / 'broker.log'}"

    # -- while they run --------------------------------------------------------------------------------------

    def _done(self) -> bool:
        if self._reached is not None:
            return self._reached()
        producer = next((child for child in self._children if child.name == "producer"), None)
        return self.once and producer is not None and producer.exit_code() == 0

    def revive(self) -> None:
        """Start anew what has ended. Raises HeadwaterError with the sentence of a part that cannot go on."""
        self._revive()
        self._tell_troubles()

    def _revive(self) -> None:
        now = time.monotonic()
        for child in self._children:
            code = child.exit_code()
            if code is None or (self.once and child.name == "producer" and code == 0):
                continue
            if child.restart_at == 0.0:
                self._plan_restart(child, code, now)
            elif now >= child.restart_at:
                child.restart_at = 0.0
                child.start()

    def _plan_restart(self, child: _Child, code: int, now: float) -> None:
        """Back-off for what may pass; an end for what will not."""
        sentence = child.last_sentence()
        if code == PermanentError.exit_code or (self.once and code > 0 and sentence):
            raise _Final(sentence or f"the {child.name} cannot start: see {child.log}", code)
        child.failures = 0 if now - child.started_at > _STABLE_S else child.failures + 1
        what = sentence or f"the {child.name} ended ({_ending(code)}): see {child.log}"
        if child.failures > _MOST_FAILURES and not _may_pass(code):
            raise _Final(what, 70)
        child.restart_at = now + _BACKOFF_S[min(max(0, child.failures - 1), len(_BACKOFF_S) - 1)]
        child.trouble = what if child.failures > 1 else None

    def _tell_troubles(self) -> None:
        """Let ``headwater status`` know which parts do not stay up."""
        now = time.monotonic()
        for child in self._children:
            if child.exit_code() is None and now - child.started_at > _STABLE_S:
                child.trouble = None
        troubles = tuple(child.trouble for child in self._children if child.trouble is not None)
        if troubles != self._told:
            self._told = troubles
            Troubles(troubles).write(self.layout)

    # -- end -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """In order: no new work, drain, then the broker. A second signal ends all at once."""
        for name in ("producer", "worker", "broker"):
            for child in self._children:
                if child.name == name:
                    self._end(child)
        for child in self._children:
            child.signal(signal.SIGKILL)
            child.wait(5.0)
        Troubles(()).write(self.layout)

    def _end(self, child: _Child) -> None:
        child.signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S[child.name]
        while not child.wait(0.05) and time.monotonic() < deadline and self._signals < 2:
            pass
        child.signal(signal.SIGKILL)

    @contextlib.contextmanager
    def _signals_counted(self) -> Iterator[None]:
        def count(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _may_pass(code: int) -> bool:
    """A full disk, an index that is held: these pass. So does a crash, if a document was the reason: it is found."""
    return code < 0 or code in (RetryableError.exit_code, DiskFull.exit_code)


def _ending(code: int) -> str:
    return f"status {code}" if code >= 0 else f"killed by signal {-code}"


class _Final(HeadwaterError):
    """A child that cannot go on: its sentence and its exit status."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
