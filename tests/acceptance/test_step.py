"""In step whatever happens to the folder as a whole, and whatever happened to the index or the ledger meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Headwater, wait_until
from server_mode import embedded_only

_MANY = 150


@pytest.fixture
def run(headwater: Headwater) -> Headwater:
    return headwater


def _fill(folder: Path, number: int = _MANY) -> None:
    for n in range(number):
        (folder / f"{n:03}.md").write_text(f"# Note {n}\n\nThe sentinel of this note is w{n}w.\n")


def _paths(run: Headwater) -> set[str]:
    return {point["payload"]["path"] for point in run.points()}


def _degraded(run: Headwater, *words: str) -> bool:
    status = run.peek()
    return status["health"] != "ok" and all(any(word in reason for reason in status["reasons"]) for word in words)


# -- deletions that are held ------------------------------------------------------------------------------


def test_a_folder_that_is_moved_away_and_back_loses_nothing(run: Headwater, tmp_path: Path) -> None:
    # Given a folder that is followed
    _fill(run.folder, 5)
    run.up()
    before = run.status()
    # When it goes, and an empty directory takes its place
    run.folder.rename(tmp_path / "away")
    wait_until(lambda: _degraded(run, "cannot be read"), "the missing folder is noticed")
    run.folder.mkdir()
    wait_until(lambda: _degraded(run, "was replaced", "held"), "the empty folder is noticed")
    # Then nothing is deleted, and search goes on
    assert run.search("sentinel", "--mode", "sparse", "--limit", "9")[0]["path"].endswith(".md")
    assert not run.status()["in_step"]
    # And when it is back, all is well by itself, and nothing is embedded again
    run.folder.rmdir()
    (tmp_path / "away").rename(run.folder)
    wait_until(lambda: run.peek()["in_step"] and run.peek()["health"] == "ok", "in step again")
    after = run.status()
    assert after["documents"] == before["documents"]
    assert after["embedded_texts_total"] == before["embedded_texts_total"]
    # And it is still followed
    (run.folder / "000.md").unlink()
    wait_until(lambda: run.peek()["documents"]["indexed"] == 4 and run.peek()["in_step"], "a deletion")


@pytest.fixture
def mount(run: Headwater) -> Iterator[Path]:
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(run.folder)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield run.folder
    subprocess.run(["umount", "-l", str(run.folder)], capture_output=True)


def test_a_disk_that_is_not_mounted_deletes_nothing(run: Headwater, mount: Path, tmp_path: Path) -> None:
    # Given an index of a mounted disk, which is then unmounted while the service runs
    _fill(run.folder, 5)
    kept = tmp_path / "kept"
    shutil.copytree(run.folder, kept)
    run.up()
    subprocess.run(["umount", "-l", str(mount)], check=True)
    wait_until(lambda: _degraded(run, "another device", "held"), "the missing disk is noticed")
    assert run.stop() == 0
    assert len(_paths(run)) == 5
    # When a run begins without it
    done = run.run("up", str(run.folder), "--once", check=False)
    # Then that is one sentence, and nothing is deleted
    assert done.returncode == 78
    assert "another device" in done.stderr and "accept-deletions" in done.stderr
    assert len(_paths(run)) == 5
    # And with the disk again, nothing is embedded
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(run.folder)], check=True)
    shutil.copytree(kept, run.folder, dirs_exist_ok=True)
    before = run.status()["embedded_texts_total"]
    run.once()
    assert run.status()["embedded_texts_total"] == before


def test_most_of_a_large_folder_is_held_until_a_person_accepts(run: Headwater, tmp_path: Path) -> None:
    _fill(run.folder)
    (run.folder / "rest").mkdir()
    for n in range(50, _MANY):
        (run.folder / f"{n:03}.md").rename(run.folder / f"rest/{n:03}.md")
    run.up()
    # When a third goes, it goes
    for n in range(50):
        (run.folder / f"{n:03}.md").unlink()
    wait_until(lambda: run.peek()["documents"]["indexed"] == 100 and run.peek()["in_step"], "a third is gone")
    # But the rest at once is held
    (run.folder / "rest").rename(tmp_path / "gone")
    wait_until(lambda: _degraded(run, "vanished at once", "accept-deletions"), "the deletions are held")
    assert run.peek()["documents"]["indexed"] == 100
    planned = json.loads(run.run("plan", "--json").stdout)["deletions"]
    assert planned == {"documents": 100, "share": 1.0, "held_because": "100 of 100 documents vanished at once"}
    # Until a person says that they are meant
    assert json.loads(run.run("accept-deletions", "--json").stdout) == {"accepted": 100, "running": True}
    wait_until(lambda: run.peek()["documents"]["indexed"] == 0 and run.peek()["in_step"], "all are gone")
    assert run.status()["health"] == "ok"
    assert run.run("accept-deletions").stdout == "no deletions are held\n"
    run.stop()
    assert _paths(run) == set()


# -- an index or a ledger that is not the one it was ------------------------------------------------------


def _edit_index(run: Headwater, seqs: list[int] | None, *, forget: str | None = None) -> None:
    """Take points out of the shard behind everybody's back."""
    from headwater.document import document_id, point_id
    from headwater.index_edge import EdgeIndex

    index = EdgeIndex(run.state / "index", run.state / "index.json")
    index.open_existing()
    if seqs:
        index.sweep(seqs)
    if forget:
        import uuid

        import qdrant_edge as edge

        lost = uuid.UUID(point_id(document_id(forget.encode()), 0))
        index._update(edge.UpdateOperation.delete_points([lost]))
    index.close()


@embedded_only("it damages or removes the files of the embedded index")
def test_points_that_went_missing_are_found_at_the_next_start_and_brought_back(run: Headwater) -> None:
    # Given an index that lost a point of one document and all of another
    _fill(run.folder, 5)
    run.once()
    expected = {point["id"]: point for point in run.points()}
    [seq] = {p["payload"]["seq"] for p in expected.values() if p["payload"]["path"] == "001.md"}
    _edit_index(run, [seq], forget="003.md")
    # When it starts again
    run.once()
    # Then exactly these two were read again
    points = {point["id"]: point for point in run.points()}
    assert points.keys() == expected.keys()
    changed = {p["payload"]["path"] for i, p in points.items() if p["payload"]["seq"] != expected[i]["payload"]["seq"]}
    assert changed == {"001.md", "003.md"}


def test_documents_that_left_while_the_ledger_was_lost_are_swept(run: Headwater) -> None:
    # Given an index whose ledger is lost, and a document that went meanwhile
    _fill(run.folder, 5)
    run.once()
    for file in run.state.glob("ledger.sqlite3*"):
        file.unlink()
    (run.folder / "002.md").unlink()
    # When it starts again
    run.once()
    # Then nothing is left over and nothing embedded again
    assert _paths(run) == {"000.md", "001.md", "003.md", "004.md"}
    assert run.status()["checked"]


@embedded_only("it damages or removes the files of the embedded index")
@pytest.mark.parametrize("restored", ["index", "ledger"])
def test_an_older_copy_of_the_index_or_the_ledger_is_brought_up_to_date(run: Headwater, restored: str) -> None:
    # Given a copy of an earlier state
    _fill(run.folder, 5)
    run.once()
    copy = run.state.with_name("copy")
    shutil.copytree(run.state, copy)
    # When the folder goes on, and then one part is restored from the copy
    (run.folder / "000.md").write_text("# Changed\n\nAnother sentinel.\n")
    (run.folder / "001.md").unlink()
    (run.folder / "new.md").write_text("A new note.\n")
    os.rename(run.folder / "002.md", run.folder / "moved.md")
    run.once()
    expected = {(p["id"], p["payload"].get("text"), p["payload"]["content_hash"]) for p in run.points()}
    (run.folder / "late.md").write_text("It came and went between.\n")
    run.once()
    (run.folder / "late.md").unlink()
    if restored == "index":
        shutil.rmtree(run.state / "index")
        shutil.copytree(copy / "index", run.state / "index")
    else:
        for file in run.state.glob("ledger.sqlite3*"):
            file.unlink()
        for file in copy.glob("ledger.sqlite3*"):
            shutil.copy2(file, run.state)
    run.once()
    # Then the index is that of the folder
    assert {(p["id"], p["payload"].get("text"), p["payload"]["content_hash"]) for p in run.points()} == expected


# -- a document that kills the worker ---------------------------------------------------------------------


def test_a_document_that_kills_the_worker_each_time_fails_alone(run: Headwater) -> None:
    # Given a document at which the worker dies, among good ones
    _fill(run.folder, 12)
    (run.folder / "007-poison.md").write_text("It kills.\n")
    run.environment["HEADWATER_FAILPOINTS"] = "worker:extracted=kill~poison"
    # When the folder is followed
    run.up(in_step=False)
    wait_until(lambda: run.peek()["documents"]["indexed"] == 12, "all good documents are indexed")
    wait_until(lambda: run.peek()["in_step"], "in step")
    # Then it alone has failed, with its reason, and the service goes on
    status = run.status()
    assert status["documents"] == {"indexed": 12, "partial": 0, "refused": 0, "failed": 1, "waiting": 0}
    assert any("the worker died at 4 tries" in reason for reason in status["reasons"])
    (run.folder / "later.md").write_text("A later sentinel.\n")
    wait_until(lambda: run.peek()["documents"]["indexed"] == 13, "a later document")
    assert run.stop() == 0


# -- files of the shard that are damaged ------------------------------------------------------------------


def _shard_file(run: Headwater, name: str) -> Path:
    """The largest of the shard's files with this name."""
    return max((run.state / "index").rglob(name), key=lambda path: path.stat().st_size)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in range(0, min(len(data), 20_000), 97):
        data[at] ^= 0xFF
    file.write_bytes(data)


@embedded_only("it damages or removes the files of the embedded index")
@pytest.mark.parametrize("name", ["segment.json", "mutable_id_tracker.mappings", "tracker.dat"])
def test_a_shard_with_damaged_files_is_made_anew_by_itself(run: Headwater, name: str) -> None:
    # Given an index with a damaged file: it fails to load, or ends the process that loads or reads it
    _fill(run.folder, 5)
    run.once()
    expected = {(p["id"], p["payload"].get("text"), p["payload"]["content_hash"]) for p in run.points()}
    _flip(_shard_file(run, name))
    # When the service starts on it, and is asked
    run.up(in_step=False)
    wait_until(run.ready, "a worker that has loaded the index")
    wait_until(lambda: run.peek()["in_step"] and run.peek()["checked"], "in step again")
    for n in range(5):
        assert run.search(f"w{n}w", "--mode", "sparse")[0]["path"] == f"{n:03}.md"
    wait_until(lambda: run.peek()["in_step"] and run.peek()["checked"], "in step after the questions")
    # Then the index is whole
    assert run.stop() == 0
    assert {(p["id"], p["payload"].get("text"), p["payload"]["content_hash"]) for p in run.points()} == expected


# -- another file for a moment ----------------------------------------------------------------------------


def _held(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


@pytest.mark.parametrize("other", ["document", "link"])
def test_a_file_that_was_another_while_it_was_read_is_read_again(run: Headwater, tmp_path: Path, other: str) -> None:
    # Given a worker that holds still before and after it reads this document
    tokens = [tmp_path / "before", tmp_path / "after"]
    points = ("worker:taken", "worker:applied")
    run.environment["HEADWATER_FAILPOINTS"] = ";".join(
        f"{point}=stop@{token}" for point, token in zip(points, tokens, strict=True)
    )
    for name in ("here", "there"):
        (run.folder / name).mkdir()
        (run.folder / name / "a.md").write_text(f"This one is from {name}.")
    if other == "link":
        (run.folder / "there/a.md").unlink()
        (run.folder / "there/a.md").symlink_to("../here")
    run.up()
    [worker], [producer] = run.children("headwater work"), run.children("headwater watch")
    for token in tokens:
        token.touch()
    (run.folder / "here/a.md").write_text("This one is from here, and it is new.")
    wait_until(lambda: _held(worker), "the worker has the hint")
    # When a directory stands in another one's place just while it is read, and the producer sees it only afterwards
    os.kill(producer, signal.SIGSTOP)
    (run.folder / "here").rename(run.folder / "aside")
    (run.folder / "there").rename(run.folder / "here")
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: not tokens[1].exists() and _held(worker), "the other one is read")
    (run.folder / "here").rename(run.folder / "there")
    (run.folder / "aside").rename(run.folder / "here")
    os.kill(producer, signal.SIGCONT)
    (run.folder / "last.md").write_text("Written last.")
    wait_until(lambda: run.peek()["documents"]["waiting"] > 1, "all changes are seen")
    time.sleep(1.5)  # and the second look at new directories is over
    os.kill(worker, signal.SIGCONT)
    # Then the index holds what is there now
    wait_until(lambda: run.peek()["documents"]["waiting"] == 0, "at rest")
    run.stop()
    texts = {point["payload"]["path"]: point["payload"]["text"] for point in run.points() if "text" in point["payload"]}
    assert texts["here/a.md"] == "This one is from here, and it is new."
    assert set(texts) == {"here/a.md", "last.md"} | ({"there/a.md"} if other == "document" else set())
