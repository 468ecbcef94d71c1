"""Several folders in one collection on a server: a producer for each, one worker and one query API for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts as support
import pytest
from driver import wait_until
from hosts import FOLDERS
from hosts import FolderHosts as Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with support.Pair.started(tmp_path) as pair, Hosts.of(tmp_path, pair, "library") as made:
        for source in FOLDERS:
            made.folder(source).mkdir(parents=True)
        yield made


def ask(url: str, **question: Any) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = support.ask(url, mode="sparse", **question)["hits"]
    return hits


def test_two_folders_share_a_collection_and_stay_apart(hosts: Hosts) -> None:
    # Given two folders with a file of the same name, and one worker that sees both
    (hosts.folder("manuals") / "a.md").write_text("# Pumps\n\nThe impeller of a pump turns.\n")
    (hosts.folder("notes") / "a.md").write_text("# Notes\n\nThe impeller was replaced.\n")
    (hosts.folder("notes") / "b.md").write_text("# Other\n\nNothing of that kind.\n")
    hosts.start("worker", "work", **hosts.all())
    for source in FOLDERS:
        hosts.watch(source)
    # When a query API that sees both is asked
    hosts.start("query", "serve", **hosts.all())
    wait_until(lambda: hosts.log("query").startswith("http"), "the query API is there")
    url = hosts.log("query").splitlines()[0]
    # Then hits say whose they are, and can be limited to one folder
    assert {(hit["path"], hit["source"], hit["stale"]) for hit in ask(url, text="impeller")} == {
        ("manuals/a.md", "manuals", False),
        ("notes/a.md", "notes", False),
    }
    only = ask(url, text="impeller", filters={"source": "notes"})
    assert [hit["path"] for hit in only] == ["notes/a.md"]
    # And each folder is compared by itself
    for source in FOLDERS:
        done = hosts.run(source, "verify", "--json", **hosts.own(source))
        assert done.returncode == 0, done.stdout + done.stderr
        assert hosts.run(source, "why", "a.md", **hosts.own(source)).returncode == 0
    # When a file of one goes, Then that of the other stays
    (hosts.folder("notes") / "a.md").unlink()
    wait_until(lambda: [hit["path"] for hit in ask(url, text="impeller")] == ["manuals/a.md"], "it is gone")


def test_a_second_producer_of_a_folder_is_refused_and_the_first_goes_on(hosts: Hosts) -> None:
    (hosts.folder("notes") / "a.md").write_text("The impeller was replaced.\n")
    hosts.start("worker", "work", **hosts.all())
    hosts.watch("notes")
    done = hosts.run("another", "watch", **hosts.own("notes"))
    assert done.returncode == 78
    last = done.stderr.strip().splitlines()[-1]
    assert "another producer follows this folder already" in last and str(hosts.folder("notes")) in last
    assert "Traceback" not in done.stderr
    (hosts.folder("notes") / "b.md").write_text("And the seal as well.\n")
    wait_until(lambda: hosts.running["notes"].poll() is None and hosts.in_step("notes"), "the first goes on")


def test_a_folder_without_a_name_cannot_join_named_ones(hosts: Hosts) -> None:
    (hosts.folder("notes") / "a.md").write_text("The impeller was replaced.\n")
    hosts.start("worker", "work", **hosts.all())
    hosts.watch("notes")
    done = hosts.run("other", "work", HEADWATER_FOLDER=str(hosts.folder("manuals")))
    assert done.returncode == 78 and len(done.stderr.strip().splitlines()[-1]) < 300
    assert "HEADWATER_SOURCE" in done.stderr.strip().splitlines()[-1]
