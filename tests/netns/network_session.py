"""The parts of the service on six hosts, under the interface of the fault harness's ``Session``.

One producer, three workers, one query server, and a host with Redis and Qdrant, both over TLS and with credentials;
each host sees the folder elsewhere. Everything is started through the command line, with the environment alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checker
import redis
from server_mode import Servers, raw_points
from servers import REDIS, QdrantServer, RedisServer, make_certificate
from session import Session
from topology import ROOT, Network
from word_embedder import word_environment

from headwater.state import Layout, Service

__all__ = ["WORKERS", "NetworkSession"]

WORKERS = ("worker1", "worker2", "worker3")
_CARETAKER = Path(__file__).with_name("caretaker.py")
_REDIS_PORT, _QDRANT_PORT, _API_PORT = 6380, 6333, 8321
_COLLECTION = "headwater"
#: a question that was asked while its index was away is given up so much later, twice the searcher's time-out
_LATE_S = 17.0
#: what a part is called on one machine -> here
_NAMES = {"valkey-server": "redis-server"}


@dataclass
class NetworkSession(Session):
    """``state`` holds a state directory for each host; the ledger is the producer's."""

    #: hosts that are cut off now
    cut_off: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        places = {name: self.work / "hosts" / name / "documents" for name in (*WORKERS, "producer", "query")}
        self.network = Network(self.folder, {**places, "services": None})
        services = self.network.hosts["services"].address
        tls = make_certificate(self.work / "tls", services)
        kept = self.state / "services"
        self.redis = RedisServer(kept / "redis", services, _REDIS_PORT, tls=tls, binary=REDIS or "redis-server")
        self.qdrant = QdrantServer(kept / "qdrant", services, _QDRANT_PORT, api_key="qdrant-secret", tls=tls)
        self.servers = Servers(self.redis.url, self.qdrant.url, self.qdrant.api_key, authority=tls[0])
        self.layout = Layout(self.state / "producer")
        self._excused_until = 0.0
        self._entered = contextlib.ExitStack()
        self._entered.enter_context(self.network.entered())
        (self.state / "logs").mkdir(parents=True)

    # -- start and end ---------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        own = {
            "HEADWATER_SANDBOXES": "1",
            "HEADWATER_ALLOWED_HOSTS": self.network.hosts["query"].address,
            **self.servers.environment(_COLLECTION),
        }
        embedder = word_environment()
        found = f"{ROOT}{os.pathsep}{embedder['PYTHONPATH']}"
        return {**super()._environment(), **own, **embedder, "PYTHONPATH": found}

    def up(self, *prefix: str) -> None:
        plan = self.work / "plan.json"
        plan.write_text(json.dumps(list(self._parts())))
        with open(self.state.with_suffix(".out"), "w") as log:
            self.headwater.process = subprocess.Popen(
                [*prefix, sys.executable, str(_CARETAKER), str(plan)], stdout=log, stderr=subprocess.STDOUT, text=True
            )

    def _parts(self) -> Iterator[dict[str, Any]]:
        """In the order of their end."""
        yield self._part("producer", "watch", str(self.network.hosts["producer"].folder))
        for worker in WORKERS:
            yield self._part(worker, "work")
        address = self.network.hosts["query"].address
        yield self._part("query", "serve", "--host", address, "--port", str(_API_PORT))
        for name, server in (("redis", self.redis), ("qdrant", self.qdrant)):
            command = self.network.hosts["services"].inside(*server.command())
            yield {"name": name, "command": command, "environment": dict(os.environ), "log": self._log(name)}

    def _part(self, name: str, *arguments: str) -> dict[str, Any]:
        host = self.network.hosts[name]
        state = self.state / name
        temporary = state / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        own = {"HEADWATER_STATE_DIR": str(state), "HEADWATER_FOLDER": str(host.folder), "TMPDIR": str(temporary)}
        return {
            "name": name,
            "command": host.inside(sys.executable, "-P", "-m", "headwater", *arguments),
            "environment": {**os.environ, **self.headwater.environment, **own},
            "log": self._log(name),
        }

    def _log(self, name: str) -> str:
        return str(self.state / "logs" / f"{name}.log")

    def discard(self) -> None:
        self.kill()
        self._entered.close()
        self.network.end()
        super().discard()

    # -- what is seen from outside ---------------------------------------------------------------------------

    def pids(self, part: str) -> list[int]:
        return super().pids(_NAMES.get(part, part))

    def pid_on(self, host: str, part: str) -> int:
        """The process of a part on one host."""
        state = f"HEADWATER_STATE_DIR={self.state / host}\0".encode()
        [found] = [pid for pid in self.pids(part) if state in Path(f"/proc/{pid}/environ").read_bytes()]
        return found

    def api(self) -> str | None:
        """None also while nobody can reach it."""
        service = Service.read(Layout(self.state / "query"))
        reachable = service is not None and not self.cut_off & {"query"}
        return f"http://{self.network.hosts['query'].address}:{_API_PORT}" if reachable else None

    def status(self) -> dict[str, Any]:
        """The producer's word, and that of the one who pulled the plug."""
        found = super().status()
        return {**found, "health": "cut off"} if found and time.monotonic() < self._excused_until else found

    def broker(self) -> redis.Redis:
        return self.servers.broker()

    def request(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = 20.0) -> tuple[int, Any]:
        token = Layout(self.state / "query").read_token()
        return self._ask(self.api(), token, path, body, timeout_s)

    def check(self) -> list[str]:
        wrong = self._queues() + self._growth() if self.alive() else []
        points = raw_points(self.servers, _COLLECTION)
        return wrong + checker.check(self.folder, self.layout.root, points=points, facts=True)

    def end(self) -> list[str]:
        """As on one machine, but the index is looked at before its server ends."""
        wrong = []
        if self.alive():
            wrong += self.check()
            wrong += self.stop()
        self.discard()
        return wrong

    # -- faults of the network -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def without(self, *hosts: str, quiet: bool) -> Iterator[None]:
        """The hosts are cut off meanwhile."""
        unanswered = contextlib.nullcontext() if set(hosts) <= {"producer", *WORKERS} else self.unanswered()
        with unanswered:
            for host in hosts:
                self.cut_off.add(host)
                self.network.cut(host, quiet=quiet)
            try:
                yield
            finally:
                for host in hosts:
                    self.network.mend(host)
                    self.cut_off.discard(host)

    @contextlib.contextmanager
    def unanswered(self) -> Iterator[None]:
        """Questions may get no answer meanwhile: a query server that hears nothing from the index waits for it as long
        as its client does (5 s), and nobody can ask one that is cut off."""
        self._excused_until = math.inf
        try:
            yield
        finally:
            self._excused_until = time.monotonic() + _LATE_S

    def stopped_worker(self) -> tuple[str, int]:
        """The host and the process of the worker that a failpoint holds still."""
        for host in WORKERS:
            pid = self.pid_on(host, "headwater work")
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
                return host, pid
        raise AssertionError("no worker is held still")

    @staticmethod
    def go_on(pid: int) -> None:
        os.kill(pid, signal.SIGCONT)
