"""Processes on pretended hosts that share a broker and a Qdrant server; each has a state directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from driver import wait_until
from servers import QdrantServer, RedisServer
from word_embedder import word_environment

from headwater.broker import embedded_binary
from headwater.errors import HeadwaterError
from headwater.state import Layout, Service
from producer.status import read_status

__all__ = ["FOLDERS", "FolderHosts", "Hosts", "Pair", "ask", "asking"]

FOLDERS = ("manuals", "notes")
_COMMAND = [sys.executable, "-P", "-m", "headwater"]


@dataclass
class Pair:
    """A broker and a Qdrant server."""

    broker: RedisServer
    qdrant: QdrantServer

    @classmethod
    @contextlib.contextmanager
    def started(cls, directory: Path) -> Iterator[Self]:
        made = cls(RedisServer(directory / "broker", binary=embedded_binary()), QdrantServer(directory / "qdrant"))
        try:
            made.broker.start()
            made.qdrant.start()
            yield made
        finally:
            made.broker.stop()
            made.qdrant.stop()


@dataclass
class Hosts:
    """``common`` is the environment of all of them."""

    root: Path
    common: dict[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def of(cls, root: Path, pair: Pair, collection: str, **common: str) -> Iterator[Self]:
        urls = {"CELERY_BROKER_URL": pair.broker.url, "QDRANT_URL": pair.qdrant.url}
        made = cls(root, {**word_environment(), **urls, "HEADWATER_COLLECTION": collection, **common})
        root.mkdir(exist_ok=True)
        try:
            yield made
        finally:
            made.end()

    def state(self, host: str) -> Path:
        return self.root / "state" / host

    def environment(self, host: str, **more: str) -> dict[str, str]:
        return {**os.environ, **self.common, "HEADWATER_STATE_DIR": str(self.state(host)), **more}

    def start(self, host: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A process that goes on; ``more`` is its environment."""
        with open(self.root / f"{host}.log", "a") as log:
            started = subprocess.Popen(
                [*_COMMAND, *arguments], env=self.environment(host, **more), stdout=log, stderr=log, text=True
            )
        self.running[host] = started
        return started

    def kill(self, host: str) -> None:
        process = self.running.pop(host)
        process.kill()
        process.wait(30)

    def stop(self, host: str) -> int:
        """In order; its exit status."""
        self.running[host].send_signal(signal.SIGTERM)
        return self.running.pop(host).wait(40)

    def run(self, host: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever that is."""
        environment = self.environment(host, **more)
        done = subprocess.run([*_COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=200)
        assert "Traceback" not in done.stderr, done.stderr + self.logs()
        return done

    def said(self, host: str, *arguments: str, **more: str) -> str:
        """What a command prints that must succeed."""
        done = self.run(host, *arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def in_step(self, host: str, generation: int = 1, *, checked: bool = False) -> bool:
        status = self.status(host, generation)
        return bool(status["in_step"] and (status["checked"] or not checked))

    def status(self, host: str, generation: int = 1) -> dict[str, Any]:
        """As the ledger of its producer says."""
        try:
            return read_status(Layout(self.state(host), generation), running=True)
        except HeadwaterError:  # the ledger is just being made
            return {"in_step": False, "checked": False, "health": "ok", "causes": [], "documents": {}}

    def parts(self, host: str) -> dict[str, str]:
        """What is wrong, by part."""
        return {cause["part"]: cause["cause"] for cause in self.status(host)["causes"]}

    def url(self, host: str) -> str:
        """Of the query API of a host."""
        wait_until(lambda: Service.read(Layout(self.state(host))) is not None, f"{host} answers {self.log(host)}")
        service = Service.read(Layout(self.state(host)))
        assert service is not None, self.logs()
        return service.url

    def log(self, host: str) -> str:
        path = self.root / f"{host}.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def logs(self) -> str:
        logs = [*self.root.glob("*.log"), *self.root.glob("state/*/logs/*.log")]
        return "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(40)
            finally:
                process.kill()


class FolderHosts(Hosts):
    """A host for each folder, and others that see both."""

    def folder(self, source: str) -> Path:
        return self.root / "documents" / source

    def fill(self, source: str, number: int) -> None:
        """So many notes, each with a word of its own."""
        self.folder(source).mkdir(parents=True)
        for at in range(number):
            (self.folder(source) / f"{at:02}.md").write_text(f"# Note {at}\n\nThe sentinel is w{at}w.\n")

    def own(self, source: str) -> dict[str, str]:
        """What a process of one folder is told."""
        return {"HEADWATER_FOLDER": str(self.folder(source)), "HEADWATER_SOURCE": source}

    def all(self) -> dict[str, str]:
        return {"HEADWATER_SOURCES": json.dumps({name: str(self.folder(name)) for name in FOLDERS})}

    def watch(self, source: str) -> None:
        self.start(source, "watch", **self.own(source))
        wait_until(lambda: self.in_step(source), f"{source} is in step: {self.log(source)}{self.log('worker')}")

    def in_step(self, host: str, generation: int = 1, *, checked: bool = True) -> bool:
        return super().in_step(host, generation, checked=checked)


def asking(url: str) -> Callable[..., dict[str, Any]]:
    """What asks this query API."""
    return partial(ask, url)


def ask(url: str, **question: Any) -> dict[str, Any]:
    """The answer of a query API."""
    body = json.dumps(question).encode()
    with urllib.request.urlopen(f"{url}/v1/search", body, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
