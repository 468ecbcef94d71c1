"""One service on one folder, kept over several runs: started for real, edited, watched, checked and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from driver import Headwater, pids_with
from generator import Generator

from headwater.errors import HeadwaterError
from headwater.failpoints import NAMES
from headwater.state import Layout, Lock, Service
from producer.status import read_status

__all__ = ["PLAIN", "ROOT", "Profile", "Session"]

#: the code under test is that of this checkout
ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 5
#: in step for this long without a break counts as at rest: longer than the longest debounce
_REST_S = 1.5
_START_S = 90.0
#: descriptors that a process may gain while it runs: its threads' connections to the broker come one by one
_SLACK_DESCRIPTORS = 40
_SLACK_FILES = 8


def _nothing(session: Session) -> None:
    """For profiles that need no preparation."""


@dataclass(frozen=True)
class Profile:
    """How a service is started. ``environment`` goes on top of the common one; ``prepare`` and ``clean`` are called
    before its first start and after its end."""

    name: str
    environment: Callable[[Session], dict[str, str]] = lambda session: {}
    prepare: Callable[[Session], None] = _nothing
    clean: Callable[[Session], None] = _nothing


PLAIN = Profile("plain")
#: the index is compacted every few seconds
COMPACTING = Profile("compacting", environment=lambda session: {"HEADWATER_COMPACTION_POINTS": "20"})


@dataclass
class Session:
    """``work`` is its directory, with the folder, the state directory and the tokens of failpoints."""

    work: Path
    model: Path
    seed: int
    profile: Profile = PLAIN
    runs: int = 0
    descriptors: dict[int, int] = field(default_factory=dict)
    #: when the last processes went on that were held still (monotonic clock)
    went_on_at: float = 0.0

    def __post_init__(self) -> None:
        self.folder = self.work / "folder"
        self.state = self.work / "state"
        self.tokens = self.work / "tokens"
        for directory in (self.folder, self.tokens):
            directory.mkdir(parents=True)
        self.generator = Generator(self.folder, self.seed)
        self.headwater = Headwater(self.folder, self.state)
        self.layout = Layout(self.state)
        self._files = self._temporary_files()

    # -- start and end ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start on a folder with some documents, and wait until it is at rest."""
        self.profile.prepare(self)
        self.headwater.environment = self._environment()
        self.generator.steps(60)
        self.up()
        if (trouble := self.converge(_START_S)) and isinstance(trouble, str):
            raise RuntimeError(f"the service does not start: {trouble}{self.logs()}")

    def _environment(self) -> dict[str, str]:
        armed = [
            f"{name}={action}@{self.token(name, action)}" for name in NAMES for action in ("kill", "stop", "error")
        ]
        common = {
            "PYTHONPATH": str(ROOT),
            "HEADWATER_MODEL": str(self.model),
            "HEADWATER_LEASE_S": str(LEASE_S),
            "HEADWATER_RESCAN_S": "3600",  # nothing may be mended by the timer
            "HEADWATER_FAILPOINTS": ";".join(armed),
        }
        return {**common, **self.profile.environment(self)}

    def up(self, *prefix: str) -> None:
        """Start it in the background, by a command before its own if one is given."""
        command = [*prefix, sys.executable, "-P", "-m", "headwater", "up", str(self.folder), "--json"]
        environment = {**os.environ, "HEADWATER_STATE_DIR": str(self.state), **self.headwater.environment}
        with open(self.state.with_suffix(".out"), "w") as log:
            self.headwater.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
            )

    def alive(self) -> bool:
        process = self.headwater.process
        return process is not None and process.poll() is None

    @contextlib.contextmanager
    def at_rest(self, bound_s: float = 60.0) -> Iterator[None]:
        """Nobody edits, and it is at rest when this begins: for a fault that needs a start from order."""
        self.generator.stop()
        self.converge(bound_s)
        yield
        self.generator.start()

    def stop(self, number: int = signal.SIGINT) -> list[str]:
        """End it in order; what was wrong with that."""
        process = self.headwater.process
        if process is None:
            return []
        process.send_signal(number)
        try:
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            return ["the service did not end within 60 s of a signal"]
        self.headwater.process = None
        wrong = [] if code == 0 else [f"the service ended with status {code}: {self.sentence()}"]
        return wrong + self.strays()

    def strays(self, patience_s: float = 5.0) -> list[str]:
        """Processes that outlive the service."""
        deadline = time.monotonic() + patience_s
        while (left := pids_with(str(self.state))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [f"process {pid} outlives the service: {command[:150]}" for pid, command in left.items()]

    def kill(self) -> None:
        """Leave no process behind."""
        self.headwater.kill()
        self.headwater.process = None

    def end(self) -> list[str]:
        """The end of the session: stopped, checked once more on what lies on the disk, and removed."""
        wrong = []
        if self.alive():
            wrong += self.stop()
            wrong += self.check() if not wrong else []
        self.discard()
        return wrong

    def discard(self) -> None:
        self.kill()
        self.profile.clean(self)
        shutil.rmtree(self.work, ignore_errors=True)

    # -- what is seen from outside ---------------------------------------------------------------------------

    def pids(self, part: str) -> list[int]:
        """Processes of a part: "headwater watch", "headwater work", "valkey-server", "worker.sandbox"."""
        return self.headwater.children(part)

    def api(self) -> str | None:
        service = Service.read(self.layout)
        return None if service is None else service.url

    def status(self) -> dict[str, Any]:
        """What ``headwater status --json`` says; empty while that is an error."""
        try:
            running = any(Lock.is_held(self.layout, name) for name in ("up", "producer"))
            return {**read_status(self.layout, running=running), "api": self.api()}
        except (HeadwaterError, OSError):
            return {}

    def sentence(self) -> str:
        """The last line that ``up`` printed."""
        lines = self.state.with_suffix(".out").read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def logs(self) -> str:
        return f"\n== up\n{self.state.with_suffix('.out').read_text()[-1500:]}{self.headwater.logs()}"

    def request(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = 20.0) -> tuple[int, Any]:
        """Ask the API. Raises OSError if nobody answers."""
        return self._ask(self.api(), self.layout.read_token(), path, body, timeout_s)

    @staticmethod
    def _ask(url: str | None, token: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> tuple[int, Any]:
        if url is None:
            raise ConnectionRefusedError("no service is known")
        headers = {"Content-Type": "application/json"}
        if path == "/v1/flush":
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(url + path, data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    # -- at rest ---------------------------------------------------------------------------------------------

    def converge(self, bound_s: float) -> float | str:
        """Seconds until it was at rest, or a sentence that says why it is not."""
        started = time.monotonic()
        since: float | None = None
        while time.monotonic() - started < bound_s:
            if not self.alive():
                return f"the service ended by itself: {self.sentence()}"
            now = time.monotonic()
            since = (since or now) if self._in_step() else None
            if since is not None and now - since > _REST_S:
                return round(since - started, 2)
            time.sleep(0.05)
        status = self.status()
        told = {name: status.get(name) for name in ("in_step", "checked", "api", "documents", "reasons")}
        return f"not at rest after {bound_s:.0f} s: {json.dumps(told)}"

    def _in_step(self) -> bool:
        """Both parts are there and say so: the ledger alone would say what it said before they died."""
        status = self.status()
        if not (status.get("in_step") and status.get("checked") and Lock.is_held(self.layout, "producer")):
            return False
        with contextlib.suppress(OSError, redis.RedisError):
            return self.request("/readyz", timeout_s=2.0)[0] == 200 and not self._queues()
        return False

    def check(self) -> list[str]:
        """What the checker finds, in a process of its own: a damaged shard may end the process that loads it."""
        wrong = []
        if self.alive():
            wrong += self._flush() + self._queues() + self._growth()
        checker = Path(__file__).with_name("checker.py")
        command = [sys.executable, str(checker), str(self.folder), str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            return [*wrong, f"the checker failed (status {done.returncode}): {done.stderr[-500:]}"]
        found: list[str] = json.loads(done.stdout)
        return wrong + found

    def _flush(self) -> list[str]:
        status, answer = self.request("/v1/flush", {})
        return [] if status == 200 else [f"a flush at rest was answered with {status}: {answer}"]

    def broker(self) -> redis.Redis:
        """A client of the broker that the session uses."""
        url = self.headwater.environment.get("CELERY_BROKER_URL") or self.layout.broker_url
        return redis.Redis.from_url(url.replace("redis+socket://", "unix://", 1), socket_timeout=10)

    def _queues(self) -> list[str]:
        with self.broker() as client:
            left = {lane: client.llen(f"headwater.{lane}") for lane in ("live", "bulk")}
        return [f"{number} messages are left in the queue {lane}" for lane, number in left.items() if number]

    def _growth(self) -> list[str]:
        """Descriptors and temporary files, against those at the first check of the same process."""
        wrong = []
        for part in ("headwater work", "headwater watch"):
            for pid in self.pids(part):
                now = len(os.listdir(f"/proc/{pid}/fd"))
                if now > self.descriptors.setdefault(pid, now) + _SLACK_DESCRIPTORS:
                    wrong.append(f"{part} went from {self.descriptors[pid]} open descriptors to {now}")
        files = self._temporary_files()
        if len(files) > len(self._files) + _SLACK_FILES:
            wrong.append(f"temporary files grew from {len(self._files)} to {len(files)}, such as {files[-1]}")
        return wrong

    def _temporary_files(self) -> list[Path]:
        below = [path for path in (self.state / "sandbox").rglob("*") if path.is_file()]
        sockets = f"headwater-{os.getuid()}-"  # of services in long paths: this one's is not
        shared = [path for path in Path("/tmp").glob("headwater-*") if not path.name.startswith(sockets)]
        return sorted([*below, *shared])

    # -- failpoints ------------------------------------------------------------------------------------------

    def token(self, name: str, action: str) -> Path:
        return self.tokens / f"{name.replace(':', '-')}.{action}"

    def arm(self, name: str, action: str, nth: int = 1) -> Path:
        """Arm a failpoint for once; its token goes when it fires."""
        token = self.token(name, action)
        written = token.with_suffix(".new")
        written.write_text(str(nth))
        os.replace(written, token)
        return token
