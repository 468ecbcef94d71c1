"""Reindex and rollback with a server: processes on many hosts follow the alias, and nobody who asks notices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driver import wait_until
from servers import QdrantServer, RedisServer
from word_embedder import word_environment

from headwater.broker import embedded_binary
from headwater.errors import HeadwaterError
from headwater.state import Layout, Service
from producer.status import read_status

pytestmark = pytest.mark.long

_COMMAND = [sys.executable, "-P", "-m", "headwater"]
_NOTES = 8
_TEXT = "the sentinel of this note"


@dataclass
class Hosts:
    """A producer, a worker and a query server, each with a state directory of its own."""

    root: Path
    common: dict[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def environment(self, host: str) -> dict[str, str]:
        return {**os.environ, **self.common, "HEADWATER_STATE_DIR": str(self.root / host)}

    def start(self, host: str, verb: str) -> None:
        with open(self.root / f"{host}.log", "a") as log:
            self.running[host] = subprocess.Popen(
                [*_COMMAND, verb], env=self.environment(host), stdout=log, stderr=log, text=True
            )

    def run(self, host: str, *arguments: str) -> str:
        done = subprocess.run(
            [*_COMMAND, *arguments], env=self.environment(host), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        logs = [*self.root.glob("*.log"), *self.root.glob("*/logs/*.log")]
        return "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def generation(self) -> int:
        return json.loads(self.run("producer", "status", "--json"))["generation"]  # type: ignore[no-any-return]  # JSON

    def in_step(self, generation: int) -> bool:
        with contextlib.suppress(HeadwaterError):  # the ledger is just being made
            return bool(read_status(Layout(self.root / "producer", generation), running=True)["in_step"])
        return False

    def ask(self, text: str = _TEXT, mode: str = "dense") -> dict[str, Any]:
        service = Service.read(Layout(self.root / "query"))
        assert service is not None, self.logs()
        body = json.dumps({"text": text, "limit": 2 * _NOTES, "mode": mode}).encode()
        answer: dict[str, Any] = json.loads(urllib.request.urlopen(f"{service.url}/v1/search", body, timeout=60).read())
        return answer

    def end(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(40)
            finally:
                process.kill()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    broker, qdrant = RedisServer(tmp_path / "broker", binary=embedded_binary()), QdrantServer(tmp_path / "qdrant")
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(_NOTES):
        (folder / f"{number}.md").write_text(f"# Note {number}\n\nThe sentinel of this note is w{number}w.\n")
    urls = {"CELERY_BROKER_URL": broker.url, "QDRANT_URL": qdrant.url, "HEADWATER_COLLECTION": "library"}
    often = {"HEADWATER_ALIAS_POLL_S": "0.3", "HEADWATER_SANDBOXES": "1", "HEADWATER_FOLDER": str(folder)}
    made = Hosts(tmp_path, {**word_environment(), **urls, **often})
    try:
        broker.start()
        qdrant.start()
        yield made
    finally:
        made.end()
        broker.stop()
        qdrant.stop()


@dataclass
class Asking:
    """Somebody who asks without a pause."""

    hosts: Hosts
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.wait(0.1):
            try:
                answer = self.hosts.ask()
                self.answers[answer["freshness"]["generation"]] += 1
                if len({hit["path"] for hit in answer["hits"]}) != _NOTES:
                    self.wrong.append(f"{len(answer['hits'])} hits")
            except Exception as error:  # whatever it is, a question was not answered
                self.wrong.append(repr(error))


@pytest.mark.timeout(300)
def test_every_host_follows_the_alias(hosts: Hosts) -> None:
    # Given a producer, a worker and a query server
    hosts.start("worker", "work")
    hosts.start("producer", "watch")
    wait_until(lambda: hosts.in_step(1), "in step")
    hosts.start("query", "serve")
    wait_until(lambda: Service.read(Layout(hosts.root / "query")) is not None, "the query server answers")
    pids = {host: process.pid for host, process in hosts.running.items()}
    asking = Asking(hosts)
    thread = threading.Thread(target=asking.run)
    thread.start()
    try:
        # When the producer's host reindexes
        said = hosts.run("producer", "reindex", "--set", "truncate_dim=16", "--json")
        compared = next(line for line in map(json.loads, said.splitlines()) if line.get("event") == "compared")
        wait_until(lambda: asking.answers[2] > 3, "answers from the new index")
        # Then all follow, in the processes that they were, and an edit comes in
        assert hosts.generation() == 2
        (hosts.root / "folder" / "0.md").write_text("# Note 0\n\nThe sentinel of this note is edited.\n")
        wait_until(lambda: hosts.ask("edited", "sparse")["hits"], "the edit", 60)
        # And back
        hosts.run("producer", "rollback")
        wait_until(lambda: hosts.ask()["freshness"]["generation"] == 1, "answers from the old index")
        (hosts.root / "folder" / "1.md").write_text("# Note 1\n\nThe sentinel of this note is changed.\n")
        wait_until(lambda: hosts.ask("changed", "sparse")["hits"], "the next edit", 60)
    finally:
        asking.ended.set()
        thread.join()
    assert not asking.wrong, asking.wrong[:5]
    assert compared["documents"] == {"old": _NOTES, "new": _NOTES}
    assert hosts.ask("edited", "sparse")["hits"], "the edit of the other index's time"
    assert {host: process.poll() for host, process in hosts.running.items()} == dict.fromkeys(pids), hosts.logs()
    # And what was left goes when it is told to
    assert json.loads(hosts.run("producer", "reindex", "--drop-old", "--json"))["dropped"] == [2]
