"""The users of docs/many-machines.md are enough for the whole service; what one lacks is told in one sentence, and a
right that is granted is used at once."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from driver import wait_until
from hosts import FolderHosts as Hosts
from servers import QdrantServer, RedisServer
from word_embedder import word_environment

from headwater.broker import embedded_binary

pytestmark = pytest.mark.long


_MANUAL = Path(__file__).resolve().parents[2] / "docs" / "many-machines.md"
_NOTES = 8


def documented() -> list[str]:
    """The lines of the access list, with a password."""
    found = re.findall(r"^    (user headwater-\w+ on .+)$", _MANUAL.read_text("utf-8"), re.MULTILINE)
    assert len(found) == 2
    return [line.replace(">SECRET", ">own-secret") for line in found]


@dataclass
class Site:
    redis: RedisServer
    hosts: Hosts

    def own(self, part: str) -> dict[str, str]:
        """What a process of a part is told: its own user."""
        url = f"redis://headwater-{part}:{quote('own-secret')}@127.0.0.1:{self.redis.port}/0"
        return {**self.hosts.own("notes"), "CELERY_BROKER_URL": url}

    def change(self, part: str, *rules: str) -> None:
        """Grant or take rights, of connections that are open as well."""
        with self.redis.client() as client:
            client.execute_command("ACL", "SETUSER", f"headwater-{part}", *rules)

    def refusals(self) -> list[object]:
        """What the server logs of commands and keys that it refused."""
        with self.redis.client() as client:
            found: list[object] = client.execute_command("ACL", "LOG")
            return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    broker = RedisServer(tmp_path / "broker", others=documented())
    qdrant = QdrantServer(tmp_path / "qdrant")
    common = {**word_environment(), "QDRANT_URL": qdrant.url, "HEADWATER_COLLECTION": "headwater"}
    made = Site(broker, Hosts(tmp_path, {**common, "HEADWATER_SANDBOXES": "1", "HEADWATER_INDEX_CHECK_S": "2"}))
    made.hosts.folder("notes").mkdir(parents=True)
    for number in range(_NOTES):
        (made.hosts.folder("notes") / f"{number}.md").write_text(f"# Note {number}\n\nThe sentinel is w{number}w.\n")
    if not Path(broker.binary).exists():  # Debian's is not installed
        broker.binary = embedded_binary()
    try:
        broker.start()
        qdrant.start()
        yield made
    finally:
        made.hosts.end()
        qdrant.stop()
        broker.stop()


def test_the_documented_rights_are_enough_for_the_whole_service(site: Site) -> None:
    hosts = site.hosts
    hosts.start("worker", "work", **site.own("worker"))
    hosts.start("notes", "watch", **site.own("producer"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('notes')}{hosts.log('worker')}", 60)
    # When files change, a worker is killed and another takes its place, and all end in order
    (hosts.folder("notes") / "0.md").write_text("# Note\n\nThe sentinel is newer.\n")
    (hosts.folder("notes") / "1.md").unlink()
    hosts.running["worker"].send_signal(signal.SIGKILL)
    hosts.start("second", "work", **site.own("worker"))
    wait_until(lambda: "takes hints" in (hosts.root / "second.log").read_text(), "it is there", 60)
    (hosts.folder("notes") / "2.md").rename(hosts.folder("notes") / "3b.md")
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('second')}", 90)
    wait_until(lambda: hosts.status("notes")["health"] == "ok", "all is well", 40)
    assert hosts.stop("notes") == 0 and hosts.stop("second") == 0
    # Then nothing was refused
    assert site.refusals() == []


@pytest.mark.parametrize(
    ("rule", "said"), [("-xadd", "xadd"), ("-brpop", "brpop"), ("resetkeys", "on the key"), ("-evalsha", "evalsha")]
)
def test_a_worker_without_a_right_ends_with_one_sentence_and_starts_when_it_has_it(
    site: Site, rule: str, said: str
) -> None:
    site.change("worker", rule)
    worker = site.hosts.start("worker", "work", **site.own("worker"))
    assert worker.wait(60) == 75
    log = (site.hosts.root / "worker.log").read_text()
    last = log.strip().splitlines()[-1]
    assert last.startswith("headwater: the broker does not let this worker's user") and said in last, log
    assert "docs/many-machines.md" in last and "Traceback" not in log


def test_a_producer_without_a_right_says_so_and_goes_on_when_it_has_it(site: Site) -> None:
    hosts = site.hosts
    site.change("producer", "-xread", "-lpush")
    hosts.start("worker", "work", **site.own("worker"))
    hosts.start("notes", "watch", **site.own("producer"))
    wait_until(lambda: "xread" in hosts.parts("notes").get("broker", ""), f"it says so: {hosts.log('notes')}", 40)
    assert "lpush" in hosts.parts("notes")["broker"] and hosts.status("notes")["health"] == "failing"
    # When the rights are granted, Then all goes on without a start
    site.change("producer", "+xread", "+lpush")
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('notes')}", 60)
    wait_until(lambda: hosts.status("notes")["health"] == "ok", "all is well", 40)
    assert "Traceback" not in (hosts.root / "notes.log").read_text()


def test_a_right_that_is_taken_from_a_running_worker_is_waited_for(site: Site) -> None:
    hosts = site.hosts
    worker = hosts.start("worker", "work", **site.own("worker"))
    hosts.start("notes", "watch", **site.own("producer"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('worker')}", 60)
    site.change("worker", "-brpop")
    wait_until(lambda: "brpop" in hosts.parts("notes").get("worker", ""), f"it is told: {hosts.log('worker')}", 60)
    (hosts.folder("notes") / "0.md").write_text("# Note\n\nThe sentinel is newer.\n")
    site.change("worker", "+brpop")
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('worker')}", 60)
    assert worker.poll() is None and "Traceback" not in (hosts.root / "worker.log").read_text()
