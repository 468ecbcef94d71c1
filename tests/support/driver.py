"""Drives Headwater as a person would: real processes, a real folder, the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from server_mode import SERVER_SETTINGS, Servers, collection_of, raw_points, servers_named

if TYPE_CHECKING:
    from headwater import Index

_COMMAND = [sys.executable, "-P", "-m", "headwater"]
_DEADLINE_S = 120.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = _DEADLINE_S) -> float:
    """Poll a condition; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - started


def pids_with(text: str) -> dict[int, str]:
    """Processes whose command line or environment names a text (a state directory, say)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            environment = (entry / "environ").read_bytes().decode("utf-8", "replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z" and text in command + environment:
            found[int(entry.name)] = command
    return found


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass
class Headwater:
    """One folder with its state directory."""

    folder: Path
    state: Path
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    #: a broker and a Qdrant server to use instead of the embedded ones; None: no such
    servers: Servers | None = field(default_factory=servers_named)

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        done = subprocess.run(
            [*_COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, env=self.full_environment()
        )
        assert not check or done.returncode == 0, f"{arguments} failed: {done.stdout}{done.stderr}{self.logs()}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def once(self) -> subprocess.CompletedProcess[str]:
        return self.run("up", str(self.folder), "--once", "--json")

    def up(self, *, in_step: bool = True) -> None:
        """Start the service in the background; by default wait until it is in step."""
        with open(self.state.with_suffix(".out"), "w") as log:
            self.process = subprocess.Popen(
                [*_COMMAND, "up", str(self.folder), "--json"],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.full_environment(),
            )
        if in_step:
            self.wait_in_step()
            wait_until(self.ready, "the query API is ready")

    def wait_in_step(self) -> None:
        wait_until(lambda: self.alive() and self.peek()["in_step"], "in step")

    def alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.state.with_suffix(".out").read_text() + self.logs()
        return True

    def ready(self) -> bool:
        """Whether the query API answers, with the model loaded."""
        url = self.peek()["api"]
        if url is None:
            return False
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz") as answer:
            return bool(answer.status == 200)
        return False

    def stop(self, number: int = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def peek(self) -> dict[str, Any]:
        """The status read in this process: for polling, where a command each time would cost a core."""
        from headwater.errors import HeadwaterError
        from headwater.state import Layout, Service
        from producer.status import read_status

        layout = Layout(self.state)
        service = Service.read(layout)
        try:
            return {**read_status(layout, running=True), "api": None if service is None else service.url}
        except HeadwaterError:  # the ledger is just being made
            return self.status()

    def search(self, text: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("search", text, "--json", *arguments).stdout)
        return found

    def open_index(self, **flags: Any) -> Index:
        """The library in this process, as a program of one's own uses it."""
        from headwater import Index

        if self.servers is None or self.servers.qdrant_url is None:
            return Index.open(state_dir=self.state, **flags)
        of_servers = {
            "qdrant_url": self.servers.qdrant_url,
            "qdrant_api_key": self.servers.api_key,
            "qdrant_ca_file": self.servers.authority,
        }
        return Index.open(state_dir=self.state, collection=collection_of(self.state), **of_servers, **flags)

    def children(self, verb: str) -> list[int]:
        """Pids of the parts of this service: "watch", "work", "valkey-server", "worker.sandbox"."""
        return [pid for pid, command in pids_with(str(self.state)).items() if verb in command]

    def points(self, generation: int = 1) -> list[dict[str, Any]]:
        """Every point, raw, from the server or a copy of the shard (which another process may hold open)."""
        if self.servers is not None and self.servers.qdrant_url is not None:
            return raw_points(self.servers, collection_of(self.state))
        import qdrant_edge as edge

        copy = self.state.with_name(f"{self.state.name}-copy")
        shutil.rmtree(copy, ignore_errors=True)
        with self._held_still():
            home = self.state if generation == 1 else self.state / "generations" / str(generation)
            shutil.copytree(home / "index", copy)
        shard = edge.EdgeShard.load(str(copy))
        found: list[dict[str, Any]] = []
        offset = None
        while True:
            page, offset = shard.scroll(
                edge.ScrollRequest(offset=offset, limit=500, with_payload=True, with_vector=True)
            )
            found += [{"id": str(p.id), "payload": p.payload or {}, "vector": p.vector or {}} for p in page]
            if offset is None:
                break
        shard.close()
        shutil.rmtree(copy)
        return found

    @contextlib.contextmanager
    def _held_still(self) -> Iterator[None]:
        """Nobody changes the index meanwhile: a copy is then what a crash would leave."""
        held = [*self.children("headwater work"), *self.children("headwater.engine")]
        _signal(held, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(held, signal.SIGCONT)

    def logs(self) -> str:
        return "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in (self.state / "logs").glob("*.log"))

    def full_environment(self) -> dict[str, str]:
        """Of its processes, for those that a test starts by itself."""
        servers = {} if self.servers is None else self.servers.environment(collection_of(self.state))
        others = {name: value for name, value in os.environ.items() if name not in SERVER_SETTINGS}
        return {**others, "HEADWATER_STATE_DIR": str(self.state), "COLUMNS": "120", **servers, **self.environment}

    def kill(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in pids_with(str(self.state)):
            os.kill(pid, signal.SIGKILL)
        if self.servers is not None:
            self.servers.drop(collection_of(self.state))
