"""Hosts that are set up otherwise than the producer's: they take no documents, say why, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import wait_until
from hosts import FolderHosts as Hosts
from hosts import Pair
from server_mode import Servers, raw_points

pytestmark = pytest.mark.long


_NOTES = 30


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Pair.started(tmp_path) as pair, Hosts.of(tmp_path, pair, "library", HEADWATER_SANDBOXES="1") as made:
        made.fill("notes", _NOTES)
        yield made


def work(hosts: Hosts, name: str, folder: Path, **more: str) -> subprocess.Popen[str]:
    own = {"HEADWATER_FOLDER": str(folder), "HEADWATER_SOURCE": "notes", **more}
    return hosts.start(name, "work", **own)


def points(hosts: Hosts) -> list[dict[str, Any]]:
    servers = Servers(hosts.common["CELERY_BROKER_URL"], hosts.common["QDRANT_URL"])
    return [point["payload"] for point in raw_points(servers, "library")]


def documents(hosts: Hosts) -> dict[str, int]:
    found: dict[str, int] = hosts.status("notes")["documents"]
    return found


def _empty(hosts: Hosts) -> Path:
    made = hosts.root / "empty"
    made.mkdir()
    return made


def _stale(hosts: Hosts) -> Path:
    """An older copy of the folder."""
    made = hosts.root / "copy"
    shutil.copytree(hosts.folder("notes"), made)
    for path in made.iterdir():
        path.write_text("# Old\n\nThe sentinel is an old one.\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return made


def _missing(hosts: Hosts) -> Path:
    return hosts.root / "not-mounted"


@pytest.mark.parametrize("place", [_empty, _stale, _missing])
def test_a_host_that_sees_another_folder_leaves_the_documents_to_others(hosts: Hosts, place: Any) -> None:
    # Given a worker whose mount is wrong, and nobody else
    wrong = place(hosts)
    work(hosts, "wrong", wrong)
    hosts.start("notes", "watch", **hosts.own("notes"))
    wait_until(lambda: "worker" in hosts.parts("notes"), "the status says why nothing moves", 40)
    # Then the status names the host and the path, and nothing fails
    assert str(wrong) in hosts.parts("notes")["worker"] and os.uname().nodename in hosts.parts("notes")["worker"]
    assert documents(hosts)["failed"] == 0 and documents(hosts)["waiting"] == _NOTES
    # When one with the right mount joins, Then it does all the work
    work(hosts, "right", hosts.folder("notes"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('wrong')}{hosts.log('right')}", 60)
    assert documents(hosts)["indexed"] == _NOTES and documents(hosts)["failed"] == 0
    wait_until(lambda: set(hosts.parts("notes")) == {"host"}, "the status tells of that host alone", 10)
    assert hosts.status("notes")["health"] == "degraded"
    # And edits are not held up by the other
    for number in range(5):
        (hosts.folder("notes") / f"{number:02}.md").write_text(f"# Note\n\nThe sentinel is now v{number}v.\n")
    wait_until(lambda: sum("now v" in str(point.get("text")) for point in points(hosts)) == 5, "they are found", 30)
    assert not any("old one" in str(point.get("text")) for point in points(hosts))
    # When the mount is mended, Then that worker is heard to fit again
    shutil.rmtree(wrong, ignore_errors=True)
    wrong.symlink_to(hosts.folder("notes"))
    wait_until(lambda: hosts.status("notes")["health"] == "ok", f"all is well: {hosts.log('wrong')}", 30)
    assert "Traceback" not in (hosts.root / "wrong.log").read_text()


def test_a_mount_that_is_lost_while_the_worker_runs_loses_no_document(hosts: Hosts) -> None:
    # Given a folder that is indexed by a worker on a mount
    mount = hosts.root / "mount"
    shutil.copytree(hosts.folder("notes"), mount)
    work(hosts, "worker", mount)
    hosts.watch("notes")
    # When the mount is gone, and files change
    shutil.rmtree(mount)
    mount.mkdir()
    for number in range(_NOTES):
        (hosts.folder("notes") / f"{number:02}.md").write_text(f"# Note\n\nThe sentinel is now v{number}v.\n")
    wait_until(lambda: "worker" in hosts.parts("notes"), "the status says so", 40)
    assert documents(hosts)["failed"] == 0
    # Then they are indexed when it is back
    mount.rmdir()
    mount.symlink_to(hosts.folder("notes"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('worker')}", 60)
    assert sum("now v" in str(point.get("text")) for point in points(hosts)) == _NOTES


def test_a_file_that_one_host_does_not_see_is_never_given_up(hosts: Hosts) -> None:
    # Given a host that lacks one directory of the folder
    (hosts.folder("notes") / "deep").mkdir()
    (hosts.folder("notes") / "deep" / "a.md").write_text("The sentinel is deep.\n")
    part = hosts.root / "part"
    shutil.copytree(hosts.folder("notes"), part)
    shutil.rmtree(part / "deep")
    work(hosts, "partial", part, HEADWATER_ATTEMPTS="1")
    hosts.start("notes", "watch", **hosts.own("notes"), HEADWATER_ATTEMPTS="1")
    # Then the status says which one and where, and it does not fail
    wait_until(lambda: "deep/a.md" in hosts.parts("notes").get("host", ""), "the status says so", 40)
    assert str(part) in hosts.parts("notes")["host"] and documents(hosts)["failed"] == 0
    wait_until(lambda: documents(hosts)["indexed"] == _NOTES, "the others are in", 40)
    # When it is there, Then all is well
    shutil.copytree(hosts.folder("notes") / "deep", part / "deep")
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('partial')}", 90)
    assert documents(hosts)["indexed"] == _NOTES + 1 and hosts.status("notes")["health"] == "ok"


def test_a_worker_with_other_settings_writes_nothing(hosts: Hosts) -> None:
    # Given a worker that would cut documents otherwise
    work(hosts, "other", hosts.folder("notes"), HEADWATER_CHUNK_TOKENS="64")
    hosts.start("notes", "watch", **hosts.own("notes"))
    wait_until(lambda: "worker" in hosts.parts("notes"), "the status says why nothing moves", 40)
    # Then the status names the setting, both values and the worker
    sentence = hosts.parts("notes")["worker"]
    assert "chunk_tokens is 250 there and 64 here" in sentence and os.uname().nodename in sentence
    # When one like the producer joins, Then all is written by it
    work(hosts, "alike", hosts.folder("notes"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('other')}{hosts.log('alike')}", 60)
    assert hosts.status("notes")["health"] == "degraded"
    verified = hosts.run("notes", "verify", "--json", **hosts.own("notes"))
    assert verified.returncode == 0 and json.loads(verified.stdout)["ok"], verified.stdout
    # When the producer gets the settings of the other (an upgrade, workers first), Then the roles change by themselves
    hosts.stop("notes")
    own = {**hosts.own("notes"), "HEADWATER_CHUNK_TOKENS": "64"}
    hosts.start("notes", "watch", **own)
    wait_until(lambda: "250 here" in hosts.parts("notes").get("host", ""), "the other is the odd one now", 40)
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('other')}", 60)
    done = hosts.run("notes", "verify", "--json", **own)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"], done.stdout


def test_a_worker_with_another_model_does_not_make_the_collection(hosts: Hosts) -> None:
    hosts.start("notes", "watch", **hosts.own("notes"))
    wait_until(lambda: hosts.status("notes")["documents"].get("waiting") == _NOTES, "the producer is there", 30)
    other = work(hosts, "other", hosts.folder("notes"), HEADWATER_MODEL="python:word_embedder:small")
    wait_until(lambda: other.poll() is not None, "it ends", 60)
    last = hosts.log("other").strip().splitlines()[-1]
    assert other.returncode == 75 and last.startswith("headwater: the collection is not made") and "model" in last
    work(hosts, "right", hosts.folder("notes"))
    wait_until(lambda: hosts.in_step("notes"), f"in step: {hosts.log('right')}", 60)
