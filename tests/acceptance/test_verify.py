"""headwater verify: every kind of damage is named, and --repair leads back to the index that a fresh run makes."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Damage, damage, edit_ledger, seqs
from driver import Headwater, wait_until
from server_mode import embedded_only

from headwater.document import document_id, point_id, text_hash
from headwater.index import Sparse
from headwater.state import Layout, Lock

Make = Callable[[Path, Path], Headwater]
NAMES = [f"docs/{letter}.md" for letter in "abcdefghijklmnopqrstuv"]


@pytest.fixture
def indexed(headwater: Headwater) -> Headwater:
    """A small folder that is in step; nothing runs."""
    (headwater.folder / "docs").mkdir()
    for number, name in enumerate(NAMES):
        sections = (f"## Part {part}\n\nWords {number} of part {part} about herons." for part in range(3))
        (headwater.folder / name).write_text(f"# Title {number}\n\n" + "\n\n".join(sections) + "\n")
    (headwater.folder / "empty.txt").touch()
    (headwater.folder / "link.md").symlink_to("docs/a.md")
    headwater.once()
    return headwater


def verify(run: Headwater, *arguments: str, status: int) -> dict[str, Any]:
    done = run.run("verify", "--json", *arguments, check=False)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr, run.logs())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def named(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(finding["kind"], finding["path"]) for finding in found["findings"]}


def assert_as_fresh(run: Headwater, make_headwater: Make) -> None:
    """The points are those of an index that is made anew, but for their seq."""
    fresh = make_headwater(run.folder, run.state.with_name("fresh"))
    fresh.environment.update(run.environment)
    fresh.once()
    points, expected = ({point["id"]: point for point in one.points()} for one in (run, fresh))
    assert points.keys() == expected.keys()
    for identity, point in points.items():
        other = expected[identity]
        assert {**point["payload"], "seq": 0} == {**other["payload"], "seq": 0}
        assert point["vector"].keys() == other["vector"].keys()
        if "dense" in point["vector"]:
            assert np.abs(np.subtract(point["vector"]["dense"], other["vector"]["dense"])).max() < 1e-3
            assert terms(point) == pytest.approx(terms(other))


def terms(point: dict[str, Any]) -> dict[int, float]:
    sparse = point["vector"]["sparse"]
    return dict(zip(sparse.indices, sparse.values, strict=True))


def plant_in_index(shard: Damage) -> set[tuple[str, str]]:
    """Each kind of damage in a document of its own; what verify must name."""
    last = shard.chunks(NAMES[0]) - 1
    assert last >= 2
    shard.remove(shard.chunk("docs/a.md", 1))
    shard.remove(shard.record("docs/b.md"))
    shard.remove(shard.record("docs/c.md"), *(shard.chunk("docs/c.md", n) for n in range(last + 1)))
    shard.put(shard.chunk("docs/d.md", 0), text="old words")
    shard.put(shard.chunk("docs/e.md", 1), identity=str(uuid.uuid4()))
    beyond = point_id(document_id(b"docs/f.md"), last + 1)
    shard.put(shard.chunk("docs/f.md", last), identity=beyond, chunk=last + 1)
    shard.not_a_number(shard.chunk("docs/g.md", 0))
    shard.vectors(shard.chunk("docs/h.md", 0), np.zeros(32), shard.chunk("docs/h.md", 0).sparse)
    shard.vectors(shard.chunk("docs/i.md", 0), shard.chunk("docs/i.md", 0).dense, None)
    shard.vectors(shard.chunk("docs/j.md", 0), None, shard.chunk("docs/j.md", 0).sparse)
    shard.vectors(shard.chunk("docs/k.md", 0), shard.chunk("docs/k.md", 0).dense, Sparse([5], [float("nan")]))
    shard.put(shard.chunk("docs/l.md", 0), seq=shard.chunk("docs/l.md", 0).payload["seq"] + 10**9)
    shard.put(shard.chunk("docs/m.md", 0), text_hash=text_hash("something else"))
    plant_ghost(shard)
    shard.write(str(uuid.uuid4()), {}, shard.chunk("docs/a.md", 0).dense, None)
    return {
        *(("missing", f"docs/{letter}.md") for letter in "abc"),
        *(("stale", f"docs/{letter}.md") for letter in "dlm"),
        *(("duplicate", f"docs/{letter}.md") for letter in "ef"),
        *(("unsearchable", f"docs/{letter}.md") for letter in "ghijk"),
        ("orphan", "ghost.md"),
        ("orphan", ""),
    }


def plant_ghost(shard: Damage) -> None:
    """Points of a document that is not in the folder."""
    ghost = document_id(b"ghost.md")
    for number in range(2):
        model = shard.chunk("docs/a.md", number)
        payload = {**model.payload, "path": "ghost.md", "document_id": ghost}
        shard.write(point_id(ghost, number), payload, model.dense, model.sparse)


def plant_elsewhere(run: Headwater) -> set[tuple[str, str]]:
    """Damage of the ledger, and changes of the folder that nothing has noticed."""
    edit_ledger(run.state, "UPDATE documents SET content_hash = 'no' WHERE path = ?", b"docs/n.md")
    edit_ledger(run.state, "UPDATE documents SET state = 'refused', chunks = 0 WHERE path = ?", b"docs/o.md")
    edit_ledger(run.state, "DELETE FROM documents WHERE path = ?", b"docs/p.md")
    edit_ledger(run.state, "UPDATE documents SET chunks = 9 WHERE path = ?", b"docs/q.md")
    edit_ledger(
        run.state,
        "INSERT INTO documents (path, wanted_seq, applied_seq, state) VALUES (?, 5, 5, 'indexed')",
        b"docs/nowhere.md",
    )
    file = run.folder / "docs/r.md"
    before = file.stat()
    file.write_text(file.read_text().replace("herons", "storks"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    (run.folder / "docs/new.md").write_text("A new file.\n")
    (run.folder / "docs/s.md").unlink()
    stale = {("stale", f"docs/{name}.md") for name in ("n", "o", "p", "q", "r", "nowhere")}
    return {*stale, ("missing", "docs/new.md"), ("orphan", "docs/s.md")}


@embedded_only("it damages or removes the files of the embedded index")
@pytest.mark.timeout(300)
def test_all_damage_is_named_and_repaired_and_nothing_else_is_touched(indexed: Headwater, make_headwater: Make) -> None:
    # Given an index that is right
    found = verify(indexed, status=0)
    assert found["ok"] is True
    assert found["documents"] == len(NAMES) + 2
    assert found["findings"] == []
    assert set(found["counts"].values()) == {0}
    # When damage of every kind is planted
    with damage(indexed.state) as shard:
        planted = plant_in_index(shard)
    planted |= plant_elsewhere(indexed)
    before = seqs(indexed.state)
    # Then each is named with its kind and path, and nothing is changed by looking
    found = verify(indexed, status=1)
    assert named(found) == planted
    assert Counter(f["kind"] for f in found["findings"]) == Counter({k: n for k, n in found["counts"].items() if n})
    assert seqs(indexed.state) == before
    shown = indexed.run("verify", check=False)
    assert shown.returncode == 1
    assert "docs/g.md  chunk 0: its dense vector is not finite" in shown.stdout
    assert re.search(r"orphan +docs/s.md  \d points of a document that is not in the folder", shown.stdout)
    assert "'headwater verify --repair' puts it right" in shown.stdout
    # And a repair leads to the index that a fresh run makes
    (indexed.state / "verify-999999999-left").mkdir()  # of a process that was killed
    repaired = verify(indexed, "--repair", status=0)
    assert named(repaired["repaired"]) == planted
    assert verify(indexed, status=0)["ok"] is True
    untouched = [*(f"docs/{letter}.md" for letter in "tuv"), "empty.txt", "link.md"]
    after = seqs(indexed.state)
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert_as_fresh(indexed, make_headwater)
    assert list(indexed.state.glob("verify-*")) == []


@embedded_only("it damages or removes the files of the embedded index")
@pytest.mark.timeout(300)
def test_a_running_service_is_verified_and_repaired_through_its_api(indexed: Headwater, make_headwater: Make) -> None:
    # Given damage that the census at the start of a worker does not show
    with damage(indexed.state) as shard:
        shard.put(shard.chunk("docs/d.md", 0), text="old words")
        shard.not_a_number(shard.chunk("docs/g.md", 0))
    before = seqs(indexed.state)
    indexed.up()
    edit_ledger(indexed.state, "UPDATE documents SET content_hash = 'no' WHERE path = ?", b"docs/n.md")
    planted = {
        ("stale", "docs/d.md"),
        ("unsearchable", "docs/g.md"),
        ("stale", "docs/n.md"),
    }
    # When it is verified while it runs
    assert named(verify(indexed, status=1)) == planted
    # Then a repair goes through it, and the rest keeps its seq
    assert named(verify(indexed, "--repair", status=0)["repaired"]) == planted
    after = seqs(indexed.state)
    assert {name for name in before if after[name] != before[name]} == {f"docs/{letter}.md" for letter in "dgn"}
    assert indexed.stop() == 0
    assert_as_fresh(indexed, make_headwater)


def keep_editing(folder: Path, stop: threading.Event) -> None:
    """Two documents that change for ever, and some that come and go."""
    number = 0
    while not stop.wait(0.3):
        number += 1
        for name in ("docs/a.md", "docs/b.md"):
            (folder / name).write_text(f"# Edit {number}\n\nText of edit {number}.\n")
        (folder / f"docs/fleeting-{number % 5}.md").write_text(f"Fleeting {number}.\n")
        (folder / f"docs/fleeting-{(number + 2) % 5}.md").unlink(missing_ok=True)


@pytest.mark.timeout(300)
def test_documents_that_change_all_the_time_are_not_accused(indexed: Headwater) -> None:
    indexed.up()
    stop = threading.Event()
    writer = threading.Thread(target=keep_editing, args=(indexed.folder, stop))
    writer.start()
    try:
        done = indexed.run("verify", "--json", check=False)
    finally:
        stop.set()
        writer.join()
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert done.returncode == (75 if found["waiting"] else 0)
    (indexed.folder / "docs/last.md").write_text("The last edit.\n")  # in step after this one is after all of them
    wait_until(lambda: indexed.run("why", "docs/last.md", check=False).returncode == 0, "the last edit")
    indexed.wait_in_step()
    assert indexed.stop() == 0
    verify(indexed, status=0)


def test_what_cannot_be_verified_is_said_in_one_sentence(
    headwater: Headwater, indexed: Headwater, tmp_path: Path
) -> None:
    nowhere = headwater.run("verify", "--state-dir", str(tmp_path / "nothing"), check=False)
    assert nowhere.returncode == 78
    assert nowhere.stderr == (
        f"headwater: nothing is indexed yet in {tmp_path / 'nothing'}: run 'headwater up FOLDER' first\n"
    )
    indexed.environment["HEADWATER_CHUNK_TOKENS"] = "100"
    other = indexed.run("verify", check=False)
    assert other.returncode == 78
    assert "was made with another model, chunk_tokens" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    del indexed.environment["HEADWATER_CHUNK_TOKENS"]
    lock = Lock(Layout(indexed.state), "repair").acquire()
    second = indexed.run("verify", "--repair", check=False)
    lock.release()
    assert second.returncode == 78
    assert second.stderr.startswith("headwater: another 'headwater verify --repair' works on ")
    del indexed.environment["HEADWATER_MODEL"]
    model = indexed.run("verify", check=False)
    assert model.returncode == 78
    assert re.match("headwater: the index .* was made with the model words@", model.stderr)
    indexed.folder.rename(tmp_path / "elsewhere")
    gone = indexed.run("verify", check=False)
    assert gone.returncode == 78
    assert gone.stderr.startswith(f"headwater: the folder {indexed.folder} is not there")


@embedded_only("it damages or removes the files of the embedded index")
def test_an_index_that_is_gone_is_named_and_made_anew(indexed: Headwater) -> None:
    (indexed.state / "index.json").unlink()
    found = verify(indexed, status=1)
    assert found["counts"]["missing"] == len(NAMES)
    assert verify(indexed, "--repair", status=0)["ok"] is True
