"""``why``, ``plan`` and ``failures`` on a real folder, and the budget of tries that poison has."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from driver import Headwater, pids_with, wait_until
from server_mode import embedded_only

ATTEMPTS = 3


@pytest.fixture
def run(headwater: Headwater) -> Headwater:
    """An empty folder."""
    return headwater


def ask(run: Headwater, *arguments: str, status: int) -> dict[str, Any]:
    done = run.run(*arguments, "--json", "--folder", str(run.folder), check=False)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(run: Headwater, **files: str) -> None:
    for name, text in files.items():
        (run.folder / f"{name}.md").write_text(text)


def rows(run: Headwater) -> list[Any]:
    """Everything in the ledger."""
    with sqlite3.connect(f"file:{run.state / 'ledger.sqlite3'}?mode=ro", uri=True) as ledger:
        found = [*ledger.execute("SELECT * FROM documents"), *ledger.execute("SELECT * FROM meta")]
    ledger.close()
    return found


def points(run: Headwater) -> dict[str, Any]:
    """Payload and dense vector of every point."""
    return {point["id"]: (point["payload"], point["vector"].get("dense")) for point in run.points()}


# -- poison ----------------------------------------------------------------------------------------------------

#: 19 MB of text that nothing tokenises within the 3 s after which the child's alarm ends it (measured: 16 s)
_HEAVY = "".join(f"Word{number} of a line that goes on and on, {number * 7919}.\n\n" for number in range(350_000))


def tries(run: Headwater) -> int:
    """How often the worker has tried the poison, by its log."""
    return len(re.findall(r"poison\.md failed: ", (run.state / "logs" / "worker.log").read_text()))


def settle(run: Headwater, name: str) -> None:
    """Wait until a document that came later is indexed."""
    write(run, **{name: f"A quokka named {name}.\n"})
    wait_until(lambda: run.alive() and ("indexed" in state_of(run, f"{name}.md")), f"{name} is indexed")


def state_of(run: Headwater, name: str) -> tuple[Any, ...]:
    with sqlite3.connect(f"file:{run.state / 'ledger.sqlite3'}?mode=ro", uri=True, timeout=10) as ledger:
        found = ledger.execute(
            "SELECT CASE WHEN wanted_seq > applied_seq THEN 'waiting' ELSE state END, attempts, wanted_seq"
            " FROM documents WHERE path = ?",
            (name.encode(),),
        ).fetchone()
    ledger.close()
    return found or ("absent",)


def wait_failed(run: Headwater, after: int = 0) -> int:
    """Wait until the poison has failed in a version after this one; its seq."""
    wait_until(
        lambda: run.alive() and state_of(run, "poison.md")[0] == "failed" and state_of(run, "poison.md")[2] > after,
        "the poison has failed",
    )
    return int(state_of(run, "poison.md")[2])


@pytest.mark.timeout(300)
def test_poison_has_three_tries_for_one_content_and_no_more_by_itself(run: Headwater) -> None:
    # Given a document that ends the extraction child each time, and a running service
    run.environment |= {"HEADWATER_EXTRACT_TIMEOUT_S": "2"}
    write(run, good="A numbat.\n", poison=_HEAVY)
    run.up()
    seq = wait_failed(run)
    # Then it killed three children, is failed with its reason, and everything else is indexed
    settle(run, "first")
    assert tries(run) == ATTEMPTS
    [failed] = ask(run, "failures", status=1)["failures"]
    assert (failed["path"], failed["state"], failed["tries"]) == ("poison.md", "failed", ATTEMPTS)
    assert "took longer than it is allowed" in failed["reason"]
    why = ask(run, "why", "poison.md", status=1)
    assert why["state"] == "failed" and failed["reason"] in why["answer"] and "3 times" in why["answer"]
    assert ask(run, "why", "good.md", status=0)["kind"] == "markdown"
    # And a touch gives it no new try
    os.utime(run.folder / "poison.md")
    seq = wait_failed(run, after=seq)
    settle(run, "second")
    assert tries(run) == ATTEMPTS
    # Nor does a restart, with a touch while nothing ran
    assert run.stop(signal.SIGTERM) == 0
    os.utime(run.folder / "poison.md")
    run.up()
    seq = wait_failed(run, after=seq)
    settle(run, "third")
    assert tries(run) == ATTEMPTS
    assert ask(run, "failures", status=1)["failures"] == [{**failed, "at": pytest.approx(failed["at"], abs=300)}]
    # But a person may ask for all its tries again
    asked = ask(run, "failures", "--retry", status=0)
    assert (asked["retried"], asked["running"]) == (1, True)
    seq = wait_failed(run, after=seq)
    settle(run, "fourth")
    assert tries(run) == 2 * ATTEMPTS
    # And other content is tried at once
    write(run, poison="A cure.\n")
    wait_until(lambda: run.alive() and state_of(run, "poison.md")[0] == "indexed", "the cure is indexed")
    assert ask(run, "failures", status=0)["failures"] == []
    assert ask(run, "why", "poison.md", status=0)["chunks"] == 1


def test_a_retry_while_nothing_runs_waits_for_the_next_run(run: Headwater) -> None:
    # Given a document that failed because its extraction child could not be reached
    run.environment |= {"HEADWATER_FAILPOINTS": "sandbox:asked=error", "HEADWATER_ATTEMPTS": "1"}
    write(run, a="A numbat.\n")
    run.once()
    failed = ask(run, "why", "a.md", status=1)
    assert (failed["state"], failed["attempts"]) == ("failed", 1)
    # When a run comes that could read it, it is not tried again by itself
    del run.environment["HEADWATER_FAILPOINTS"]
    run.once()
    assert ask(run, "why", "a.md", status=1)["state"] == "failed"
    # But when a person asks for it, the next run does
    done = run.run("failures", "--retry", "a.md", "--folder", str(run.folder))
    assert "the next 'headwater up' tries" in done.stdout
    waiting = ask(run, "why", "a.md", status=1)
    assert waiting["state"] == "waiting" and any("no service runs" in note for note in waiting["notes"])
    run.once()
    assert ask(run, "why", "a.md", status=0)["chunks"] == 1
    assert run.run("failures", "--folder", str(run.folder)).stdout.strip() == "nothing failed"
    assert "nothing failed at a.md" in run.run("failures", "a.md", check=False).stderr


# -- why -------------------------------------------------------------------------------------------------------


def test_why_has_one_answer_for_every_kind_of_path(run: Headwater, tmp_path: Path) -> None:
    # Given a folder with a rule, a link, a refused file and good ones
    folder = run.folder
    (folder / "sub").mkdir()
    write(run, good="# A title\n\nA quokka.\n", draft="Not yet.\n")
    (folder / "sub" / "deep.md").write_text("A numbat.\n")
    (folder / "empty.txt").write_text("")
    (folder / ".gitignore").write_text("# rules\ndraft.md\n")
    (folder / "link").symlink_to(tmp_path)
    # Then before the first run all is new or excluded
    assert ask(run, "why", "good.md", status=1)["state"] == "new"
    assert ask(run, "why", "draft.md", status=1)["answer"] == "excluded by .gitignore:2: draft.md"
    assert not run.state.exists()
    # And after it each has its answer
    run.once()
    good = ask(run, "why", str(folder / "good.md"), status=0)
    assert (good["state"], good["title"], good["kind"], good["chunks"]) == ("indexed", "A title", "markdown", 1)
    assert good["model"].startswith("words@") and len(good["content_hash"]) == 64 and good["seq"] > 0
    assert ask(run, "why", "empty.txt", status=1)["answer"].endswith("an empty file")
    assert ask(run, "why", "link", status=1)["state"] == "refused"
    assert "symbolic link link" in ask(run, "why", "link/a.md", status=1)["answer"]
    assert ask(run, "why", ".env", status=1)["answer"] == "excluded by the default denials: .*"
    assert ask(run, "why", "nobody.md", status=1)["state"] == "absent"
    assert ask(run, "why", "sub", status=0)["documents"] == {"indexed": 1}
    assert ask(run, "why", ".", status=1)["documents"] == {"indexed": 2, "refused": 2}
    # And it follows what happens to the files
    (folder / "good.md").write_text("# Another title\n\nA quokka.\n")
    assert ask(run, "why", "good.md", status=1)["state"] == "waiting"
    (folder / "sub" / "deep.md").unlink()
    assert "to be removed" in ask(run, "why", "sub/deep.md", status=1)["answer"]
    run.once()
    assert ask(run, "why", "good.md", status=0)["title"] == "Another title"
    assert ask(run, "why", "sub/deep.md", status=1)["state"] == "deleted"


def test_why_asks_the_running_service_for_the_record(run: Headwater) -> None:
    write(run, good="# A title\n\nA quokka.\n")
    run.up()
    good = ask(run, "why", "good.md", status=0)
    assert (good["title"], good["notes"]) == ("A title", [])
    assert good["model"].startswith("words@")


def test_a_path_outside_of_the_folder_is_one_sentence(run: Headwater) -> None:
    write(run, good="A quokka.\n")
    done = run.run("why", "/etc/passwd", "--folder", str(run.folder), check=False)
    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1 and "does not lie in the folder" in done.stderr


# -- plan ------------------------------------------------------------------------------------------------------


def _change_much(folder: Path) -> None:
    (folder / "new.md").write_text("A text that is new.\n\n# Twice\n\nTwice the same.\n")
    (folder / "twice.md").write_text("Twice the same.\n")
    (folder / "copy.md").write_text((folder / "a0.md").read_text())
    (folder / "a1.md").write_text("Other words.\n")
    os.utime(folder / "a2.md")
    (folder / "a3.md").rename(folder / "moved.md")
    (folder / "a4.md").unlink()
    (folder / "empty.txt").write_text("")


@pytest.mark.parametrize("running", [False, True], ids=["while nothing runs", "beside a service"])
def test_a_plan_says_what_the_next_run_does_and_changes_nothing(run: Headwater, running: bool) -> None:
    # Given an index, and changes of every kind that no run has noticed
    write(run, **{f"a{number}": f"# Document {number}\n\nWords of number {number}.\n" for number in range(8)})
    first = ask(run, "plan", status=0)
    assert not run.state.exists()
    run.once()
    before, held = run.status(), points(run)
    assert first["files"] == {"new": 8, "unchanged": 0}
    assert (first["chunks"], first["texts"]["embedded"]) == (before["chunks"], before["embedded_texts_total"])
    if running:
        # the producer sleeps, so that it notices nothing
        run.up()
        for pid in run.children("headwater watch"):
            os.kill(pid, signal.SIGSTOP)
    _change_much(run.folder)
    ledger = rows(run)
    # When a plan is made
    plan = ask(run, "plan", status=0)
    # Then nothing has changed
    assert rows(run) == ledger
    assert points(run) == held
    assert plan["running"] is running
    # And each file is told
    assert plan["files"] == {"new": 3, "changed": 1, "touched": 1, "moved": 1, "refused": 1, "unchanged": 4}
    assert plan["reasons"]["refused"] == {"an empty file": 1}
    assert plan["deletions"] == {"documents": 1, "share": 0.125, "held_because": None}
    assert plan["notes"] == []
    assert plan["estimate"]["seconds"] > 0 and plan["estimate"]["texts_per_s"] > 0
    assert plan["tokens"] > plan["embedded_tokens"] > 0
    # And a run then does exactly that
    if running:
        for pid in run.children("headwater watch"):
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: (run.peek()["documents"]["indexed"], run.peek()["documents"]["waiting"]) == (10, 0), "done")
    else:
        run.once()
    after = run.status()
    assert after["embedded_texts_total"] - before["embedded_texts_total"] == plan["texts"]["embedded"]
    reused = after["reused_texts_total"] - before["reused_texts_total"]
    assert reused == plan["texts"]["reused"] + plan["texts"]["doubled"]
    # And afterwards there is nothing to do
    again = ask(run, "plan", status=0)
    assert (again["files"], again["chunks"], again["estimate"]["seconds"]) == ({"unchanged": 11}, 0, 0)


@embedded_only("it damages or removes the files of the embedded index")
def test_a_plan_without_an_index_reads_everything_again(run: Headwater) -> None:
    write(run, a="A quokka.\n", b="A numbat.\n")
    run.once()
    shutil.rmtree(run.state / "index")
    (run.state / "index.json").unlink()
    plan = ask(run, "plan", status=0)
    assert plan["files"] == {"again": 2, "unchanged": 0}
    assert plan["texts"] == {"embedded": 2, "reused": 0, "doubled": 0}
    assert plan["notes"] == ["2 documents are read again: the index is gone"]


def test_a_plan_leaves_no_process_and_no_file_behind(run: Headwater, tmp_path: Path) -> None:
    write(run, a="A quokka.\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run.environment["TMPDIR"] = str(scratch)
    ask(run, "plan", status=0)
    assert list(scratch.iterdir()) == []
    assert pids_with(str(scratch)) == {}
