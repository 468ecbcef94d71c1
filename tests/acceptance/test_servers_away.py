"""An index server or a broker that is held still, emptied, or not there yet, while all parts run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driver import wait_until
from hosts import FolderHosts as Hosts
from hosts import Pair
from qdrant_client import models as m
from server_mode import Servers, raw_points
from servers import QdrantServer, RedisServer

pytestmark = pytest.mark.long


_NOTES = 12


@dataclass
class Site:
    """Servers, and the hosts that use them."""

    redis: RedisServer
    qdrant: QdrantServer
    hosts: Hosts

    @contextmanager
    def held_still(self, server: RedisServer | QdrantServer) -> Iterator[None]:
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server.process.pid, signal.SIGCONT)

    def points(self) -> list[dict[str, Any]]:
        return raw_points(Servers(self.redis.url, self.qdrant.url), "library")

    def serve(self) -> str:
        """A query server on a host without a folder; its address."""
        self.hosts.start("query", "serve")
        told = self.hosts.root / "query.log"
        wait_until(lambda: "\nhttp" in f"\n{told.read_text()}", "the query server is there", 60)
        return next(line for line in told.read_text().splitlines() if line.startswith("http"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    given = {"HEADWATER_SANDBOXES": "1", "HEADWATER_INDEX_CHECK_S": "3"}
    with Pair.started(tmp_path) as pair, Hosts.of(tmp_path, pair, "library", **given) as hosts:
        hosts.fill("notes", _NOTES)
        yield Site(pair.broker, pair.qdrant, hosts)


_SEARCH = ("search", {"mode": "sparse", "text": "sentinel"})
_SIMILAR = ("similar", {"path": "notes/00.md"})


def ask(url: str, question: tuple[str, dict[str, str]] = _SEARCH) -> tuple[int, dict[str, Any], float]:
    """Status, answer and seconds of one question."""
    asked = urllib.request.Request(f"{url}/v1/{question[0]}", json.dumps(question[1]).encode())
    started = time.monotonic()
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer), time.monotonic() - started
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), time.monotonic() - started


def test_a_stalled_index_is_told_within_seconds_by_search_and_status(site: Site) -> None:
    # Given an index with a producer, a worker and a query server that work
    hosts = site.hosts
    hosts.start("worker", "work", "--serve", **hosts.own("notes"))
    hosts.watch("notes")
    urls = site.serve(), hosts.url("worker")
    for url in urls:
        wait_until(lambda url=url: ask(url)[0] == ask(url, _SIMILAR)[0] == 200, "it answers", 60)
    # When Qdrant is held still
    with site.held_still(site.qdrant):
        began = time.monotonic()
        # Then a question gets one clear error soon, whatever and whoever is asked, and from the command
        for url in urls:
            for question in (_SEARCH, _SIMILAR):
                status, answer, took = ask(url, question)
                assert status == 503 and took < 15, (url, question, status, took)
                assert "gives no answer in time" in answer["error"]["message"]
        alone = hosts.run("query", "search", "sentinel")
        assert alone.returncode == 75 and len(alone.stderr.strip().splitlines()) == 1, alone.stderr
        # And the producer, which never asks Qdrant, says so
        wait_until(lambda: "qdrant" in hosts.parts("notes"), f"the status says so: {hosts.log('worker')}", 30)
        print(f"status after {time.monotonic() - began:.1f} s, search after {took:.1f} s")
        checked = hosts.run("notes", "status", "--check", **hosts.own("notes"))
        assert checked.returncode == 1 and "failing: qdrant: " in checked.stdout and "next: " in checked.stdout
        # And so does the query server's own host
        own = hosts.run("query", "status", "--check", "--json")
        assert own.returncode == 1 and json.loads(own.stdout)["causes"][0]["part"] == "qdrant", own.stdout
    # When it goes on, Then all is well again by itself
    for url in urls:
        wait_until(lambda url=url: ask(url)[0] == 200, "it answers again", 60)
    wait_until(lambda: hosts.status("notes")["health"] == "ok", "all is well", 40)
    assert hosts.run("query", "status", "--check").returncode == 0


def test_a_stalled_broker_is_told_within_seconds_and_search_goes_on(site: Site) -> None:
    hosts = site.hosts
    hosts.start("worker", "work", **hosts.own("notes"))
    hosts.watch("notes")
    url = site.serve()
    wait_until(lambda: ask(url)[0] == 200, "it answers", 60)
    with site.held_still(site.redis):
        took = wait_until(lambda: "broker" in hosts.parts("notes"), "the status says so", 30)
        print(f"status after {took:.1f} s")
        assert took < 12
        assert ask(url)[0] == 200
        (hosts.folder("notes") / "new.md").write_text("The sentinel is new.\n")
        wait_until(lambda: hosts.status("notes")["health"] == "failing", "what is due is not done", 30)
        checked = hosts.run("notes", "status", "--check", **hosts.own("notes"))
        assert checked.returncode == 1 and "failing: broker: " in checked.stdout
    wait_until(lambda: hosts.in_step("notes") and hosts.status("notes")["health"] == "ok", "all is well", 60)


def test_a_query_server_waits_for_the_index_and_says_why(site: Site) -> None:
    # Given a query server before anything else, even before Qdrant
    site.qdrant.stop()
    url = site.serve()
    status, answer, _ = ask(url)
    assert status == 503 and "Qdrant at" in answer["error"]["message"], answer
    assert ready(url) == 503
    # When Qdrant is there but no worker has made the collection, Then that is the reason
    site.qdrant.start()
    wait_until(lambda: "there is no collection" in str(ask(url)[1]), "the reason is another one", 30)
    shown = site.hosts.run("query", "status", "--json")
    assert json.loads(shown.stdout)["health"] == "failing" and "there is no collection" in shown.stdout
    # When a worker makes it, Then questions are answered by the same process
    site.hosts.start("worker", "work", **site.hosts.own("notes"))
    site.hosts.watch("notes")
    wait_until(lambda: ask(url)[0] == 200 and ask(url)[1]["hits"], "it answers", 60)
    assert ready(url) == 200 and site.hosts.running["query"].poll() is None
    assert "Traceback" not in (site.hosts.root / "query.log").read_text()


def ready(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_key_that_is_wrong_or_may_only_read_is_told_in_one_sentence_and_costs_no_document(site: Site) -> None:
    # Given a server with a key that may write, one that may read, and no collection
    hosts = site.hosts
    site.qdrant.stop()
    site.qdrant.api_key, site.qdrant.read_key = "may-write", "may-read"
    site.qdrant.start()
    for key in ("wrong", "may-read"):
        ended = hosts.start(key, "work", **hosts.own("notes"), QDRANT_API_KEY=key)
        assert ended.wait(60) == 75
        log = (hosts.root / f"{key}.log").read_text()
        last = log.strip().splitlines()[-1]
        assert last.startswith("headwater: Qdrant at") and "403" in last and "QDRANT_API_KEY" in last, log
        assert key not in last and "Traceback" not in log
    # When the key of a running worker may only read from now on, Then it writes nothing, and status says why
    hosts.start("reading", "work", **hosts.own("notes"), QDRANT_API_KEY="may-write")
    hosts.watch("notes")
    site.qdrant.stop()
    site.qdrant.api_key, site.qdrant.read_key = "new-key", "may-write"
    site.qdrant.start()
    (hosts.folder("notes") / "00.md").write_text("# Note\n\nThe sentinel is newer.\n")
    wait_until(lambda: "QDRANT_API_KEY" in hosts.parts("notes").get("service", ""), "the status says why", 60)
    assert hosts.status("notes")["documents"]["failed"] == 0 and hosts.status("notes")["health"] == "failing"
    # And one that may write does the work, with the other still there
    hosts.start("writing", "work", **hosts.own("notes"), QDRANT_API_KEY="new-key")
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('writing')}", 60)
    assert "Traceback" not in (hosts.root / "reading.log").read_text()


def _drop(site: Site) -> None:
    with Servers(site.redis.url, site.qdrant.url).qdrant() as client:
        client.delete_collection("library.g1")


def _empty(site: Site) -> None:
    with Servers(site.redis.url, site.qdrant.url).qdrant() as client:
        client.delete("library", m.FilterSelector(filter=m.Filter()), wait=True)


def _older(site: Site) -> None:
    """What is there now was written after the snapshot: one document goes back to what it was."""
    (site.hosts.folder("notes") / "00.md").write_text("# Note 0\n\nThe sentinel is newer.\n")
    wait_until(lambda: any("newer" in str(p["payload"].get("text")) for p in site.points()), "it is in", 30)
    wait_until(lambda: site.hosts.in_step("notes"), "in step", 30)
    site.qdrant.stop()
    shutil.rmtree(site.qdrant.directory / "storage")
    shutil.copytree(site.qdrant.directory / "snapshot", site.qdrant.directory / "storage")
    site.qdrant.start()


@pytest.mark.parametrize("become", [_drop, _empty, _older])
def test_an_index_that_becomes_another_one_is_noticed_and_made_right_while_all_parts_run(
    site: Site, become: Any
) -> None:
    # Given an index at rest
    hosts = site.hosts
    hosts.start("worker", "work", **hosts.own("notes"))
    hosts.watch("notes")
    if become is _older:
        site.qdrant.stop(signal.SIGTERM)
        shutil.copytree(site.qdrant.directory / "storage", site.qdrant.directory / "snapshot")
        site.qdrant.start()
    # When it is dropped, emptied, or an older snapshot is put in its place
    become(site)
    wanted = "newer" if become is _older else "w0w"

    def right() -> bool:
        try:
            found = site.points()
        except Exception:  # the client's own, while there is no collection
            return False
        texts = [str(point["payload"].get("text")) for point in found]
        return len(found) == 2 * _NOTES and any(wanted in text for text in texts)

    # Then it is right again within seconds, and nothing was started anew
    took = wait_until(right, f"it is right again: {hosts.log('worker')}{hosts.log('notes')}", 60)
    print(f"{become.__name__}: right after {took:.1f} s")
    wait_until(lambda: hosts.in_step("notes") and hosts.status("notes")["health"] == "ok", "all is well", 60)
    done = hosts.run("notes", "verify", "--json", **hosts.own("notes"))
    assert done.returncode == 0 and json.loads(done.stdout)["ok"], done.stdout
    said = "not the one that it was" if become is _drop else "which is not what the ledger says"
    assert said in (hosts.root / "worker.log").read_text() + (hosts.root / "notes.log").read_text()
    assert hosts.running["worker"].poll() is None
    assert "Traceback" not in (hosts.root / "worker.log").read_text()
