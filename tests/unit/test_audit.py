"""The walk behind ``headwater verify`` over folder, ledger and index, with an index in memory and an easy extractor."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pytest

from headwater.document import content_hash, document_id, rfc3339, text_hash
from headwater.index import Chunk, DocumentWrite, Manifest, Point, SeenPoint, Sparse
from headwater.index_qdrant import document_points
from headwater.messages import Outcome, State
from headwater.points import Points
from headwater.verbs.audit import Audit, Totals
from headwater.verbs.rereading import Rereader
from headwater.verbs.scratch import Scratch
from headwater.verification import Finding, PointCheck
from producer.diff import diff
from producer.ledger import Ledger
from producer.rules import Rules
from producer.scanner import Scanner
from worker.sandboxes import Extraction, ExtractionFailed, ExtractionRefused

PAGE = 100
Key = TypeVar("Key")


def chunks_of(text: str) -> tuple[Chunk, ...]:
    return tuple(Chunk(n, line, text_hash(line), n, n + 1) for n, line in enumerate(text.splitlines()))


class Lines:
    """One chunk a line; some words have a meaning."""

    def extract(self, name: str, data: bytes) -> Extraction:
        text = data.decode()
        if "poison" in text:
            raise ExtractionFailed("it crashed")
        if not text:
            raise ExtractionRefused("empty")
        return Extraction(chunks_of(text), "text", None, {}, "only the start" if "partial" in text else None)


def write_of(root: Path, path: bytes, seq: int) -> DocumentWrite:
    """What the pipeline writes of a file."""
    data = (root / os.fsdecode(path)).read_bytes()
    found = Lines().extract("", data)
    number = len(found.chunks)
    return DocumentWrite(
        document_id=document_id(path),
        path=os.fsdecode(path),
        seq=seq,
        content_hash=content_hash(data),
        pipeline="p",
        kind="text",
        modified_at=rfc3339((root / os.fsdecode(path)).stat().st_mtime_ns),
        size=len(data),
        chunks=found.chunks,
        dense=np.tile(np.array([1.0, 0.0], np.float32), (number, 1)),
        sparse=[Sparse([1], [1.0])] * number,
        partial=found.partial,
    )


class Made(Generic[Key]):
    """Points that are made when they are asked for: ``keys`` by document id, and what each stands for."""

    def __init__(self, keys: Mapping[str, Key], make: Callable[[Key], list[Point]]) -> None:
        self._keys = keys
        self._all = list(keys.values())
        self._make = make

    def manifest(self) -> Manifest | None:
        return None

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
        if document_id is not None:
            return (self._make(self._keys[document_id]) if document_id in self._keys else []), None
        at = int(offset or 0)
        points = [point for key in self._all[at : at + PAGE] for point in self._make(key)]
        return points, str(at + PAGE) if at + PAGE < len(self._all) else None

    def discard(self, points: Sequence[SeenPoint]) -> None:
        raise AssertionError("an audit changes nothing")

    def close(self) -> None: ...


class Silent:
    def stage(self, name: str, total: int | None = None) -> None: ...
    def advance(self, steps: int) -> None: ...


@dataclass
class World:
    """A folder, its ledger and its index, all in step after ``settle``."""

    base: Path
    ledger: Ledger = field(init=False)
    scanner: Scanner = field(init=False)
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.base / "folder"
        self.root.mkdir()
        self.ledger = Ledger(self.base / "ledger.sqlite3")
        self.scanner = Scanner(os.fsencode(self.root), Rules(os.fsencode(self.root)))

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(text)

    def settle(self) -> None:
        """What producer and worker do."""
        seen = self.scanner.scan()
        with self.ledger.transaction():
            self.ledger.want(diff(self.ledger.known(), seen), seen, "bulk")
            for path, entry in seen.items():
                if entry.refusal is None:
                    self._index(path)

    def _index(self, path: bytes) -> None:
        seq, stat = self.ledger.wanted_seq(path), self.scanner.look(path)[path].fingerprint
        digest = content_hash((self.root / os.fsdecode(path)).read_bytes())
        try:
            made = write_of(self.root, path, seq)
        except ExtractionRefused as refusal:
            self._note(Outcome(path, seq, "refused", str(refusal), stat, digest))
        except ExtractionFailed as failure:
            self._note(Outcome(path, seq, "failed", str(failure), stat, digest))
        else:
            self.points += document_points(made)
            state: State = "partial" if made.partial else "indexed"
            self._note(Outcome(path, seq, state, made.partial, stat, digest, len(made.chunks)))

    def _note(self, outcome: Outcome) -> None:
        self.ledger.applied(outcome, 1)

    def audit(self, *, live: bool = False) -> tuple[Totals, list[Finding], Scratch]:
        by_document: dict[str, list[Point]] = {}
        for point in self.points:
            by_document.setdefault(point.payload["document_id"], []).append(point)
        return run(self, Made({document: document for document in by_document}, by_document.__getitem__), live=live)


def run(world: World, points: Points, *, live: bool = False) -> tuple[Totals, list[Finding], Scratch]:
    directory = world.base / "scratch"
    directory.mkdir()
    scratch = Scratch(directory)
    rereader = Rereader(os.fsencode(world.root), "", 1 << 20, "p", Lines(), lambda texts: None)
    check = PointCheck(2, lambda text, language: Sparse([1], [1.0]))
    audit = Audit(
        ledger=world.ledger,
        scanner=world.scanner,
        points=points,
        rereader=rereader,
        check=check,
        scratch=scratch,
        threads=2,
        live=live,
        progress=Silent(),
    )
    return audit.run(), list(scratch.findings()), scratch


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    for name, text in {"a.txt": "one\ntwo", "b.txt": "three", "empty.txt": "", "p.txt": "partial\ntext"}.items():
        made.write(name, text)
    made.write("poison.txt", "poison")
    (made.root / "link").symlink_to("a.txt")
    made.settle()
    yield made
    made.ledger.close()


def short(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in findings]


def test_refused_failed_and_partial_documents_are_in_step_when_the_index_agrees(world: World) -> None:
    totals, findings, _ = world.audit()
    assert (totals, findings) == (Totals(documents=6, chunks=5, waiting=0), [])


def test_a_document_that_failed_and_can_be_read_now_is_missing(world: World) -> None:
    with world.ledger.transaction():
        world.ledger._db.execute("UPDATE documents SET state = 'failed', reason = 'memory' WHERE path = ?", (b"b.txt",))
    world.points = [point for point in world.points if point.payload["path"] != "b.txt"]
    _, findings, scratch = world.audit()
    assert set(short(findings)) == {("missing", "b.txt"), ("stale", "b.txt")}
    assert [path for path, _ in scratch.again()] == [b"b.txt"]


def test_a_document_that_is_due_waits_and_is_not_accused(world: World) -> None:
    world.write("a.txt", "changed")
    world.write("new.txt", "new")
    seen = world.scanner.scan()
    with world.ledger.transaction():
        world.ledger.want(diff(world.ledger.known(), seen), seen, "bulk")
    totals, findings, _ = world.audit()
    assert (totals.waiting, findings) == (2, [])


def test_a_deleted_document_waits_until_its_points_are_gone(world: World) -> None:
    (world.root / "a.txt").unlink()
    seen = world.scanner.scan()
    with world.ledger.transaction():
        world.ledger.want(diff(world.ledger.known(), seen), seen, "bulk")
    totals, findings, scratch = world.audit()
    assert (totals.waiting, findings, list(scratch.discards())) == (1, [], [])


@dataclass
class Clock:
    """Stands in for the module ``time``; what happens during a sleep is ``meanwhile``."""

    meanwhile: Callable[[], None] = lambda: None
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


def test_what_a_running_service_has_not_noticed_yet_gets_longer_than_what_it_says_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("headwater.verbs.audit.time", clock)
    # Given one document that the ledger knows as it is, and whose points are gone, and one that it does not know
    world.points = [point for point in world.points if point.payload["path"] != "b.txt"]
    world.write("new.txt", "new")
    began, noticed_at = clock.now, 12.0

    def notice() -> None:
        if clock.now - began >= noticed_at and world.ledger.entry(b"new.txt") is None:
            world.settle()

    clock.meanwhile = notice
    # When the service takes twelve seconds to notice the new one
    totals, findings, _ = world.audit(live=True)
    # Then only the other is accused, at once, and this one waits: what it has become was not looked at twice
    assert (totals.waiting, short(findings)) == (1, [("missing", "b.txt")])


def test_what_a_running_service_never_notices_is_accused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("headwater.verbs.audit.time", clock)
    world.write("new.txt", "new")
    totals, findings, _ = world.audit(live=True)
    assert (totals.waiting, set(short(findings))) == (0, {("missing", "new.txt")})
    assert clock.now - 100.0 >= 15.0


def test_a_document_that_changes_all_the_time_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(lambda: world.write("new.txt", f"at {clock.now}, {'x' * int(clock.now)}"))
    monkeypatch.setattr("headwater.verbs.audit.time", clock)
    world.write("new.txt", "new")
    totals, findings, _ = world.audit(live=True)
    assert (totals.waiting, findings) == (1, [])


def test_a_file_that_goes_while_it_is_verified_is_not_accused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service learns of it a moment after it is gone: nothing is due yet when the ledger is read."""
    clock = Clock()
    monkeypatch.setattr("headwater.verbs.audit.time", clock)

    gone: list[bytes] = []

    def let_go() -> None:
        seen = world.scanner.scan()
        with world.ledger.transaction():
            world.ledger.want(diff(world.ledger.known(), seen), seen, "bulk")
            for path in gone:
                world.ledger.applied(Outcome(path, world.ledger.wanted_seq(path), "deleted", None), 1)

    def points_of(document: str) -> list[Point]:
        """Without those that the service has taken away."""
        found = [point for point in world.points if point.payload["document_id"] == document]
        let_go_of = {path for path in gone if (entry := world.ledger.entry(path)) and entry.operation == "delete"}
        return [point for point in found if point.payload["path"].encode() not in let_go_of]

    clock.meanwhile = let_go
    # Given two documents that go while it begins, one of which never had any points
    documents = {point.payload["document_id"]: point.payload["document_id"] for point in world.points}
    for name in ("a.txt", "empty.txt"):
        (world.root / name).unlink()
        gone.append(name.encode())
    totals, findings, scratch = run(world, Made(documents, points_of), live=True)
    assert (totals.waiting, findings, list(scratch.again())) == (0, [], [])
    assert clock.now > 100.0


def test_a_file_whose_end_a_running_service_never_notices_is_accused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("headwater.verbs.audit.time", clock)
    (world.root / "a.txt").unlink()
    (world.root / "empty.txt").unlink()
    totals, findings, scratch = world.audit(live=True)
    assert (totals.waiting, set(short(findings))) == (0, {("orphan", "a.txt"), ("stale", "empty.txt")})
    assert [path for path, _ in scratch.again()] == [b"a.txt", b"empty.txt"]
    assert len(list(scratch.discards())) == 3  # two chunks and the record
    assert clock.now - 100.0 >= 15.0


def test_points_that_a_filter_does_not_find_are_unsearchable(world: World) -> None:
    """A damaged payload index: the scan sees a point that the filter by document does not."""
    lost = world.points[0]
    twin = replace(lost, id="00000000-0000-0000-0000-000000000001")

    class Blind(Made[str]):
        def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
            if document_id is not None:
                return [p for p in world.points if p.payload["document_id"] == document_id], None
            return [*world.points, twin], None

    _, findings, scratch = run(world, Blind({}, lambda path: []))
    assert findings == [
        Finding("unsearchable", lost.payload["path"], "the index holds 4 points of it and finds 3 of them by its id")
    ]
    assert [path.decode() for path, _ in scratch.again()] == [lost.payload["path"]]


@pytest.fixture
def closed_world(without_privileges: Path) -> Iterator[World]:
    made = World(without_privileges)
    made.write("open.txt", "open")
    made.write("shut.txt", "shut")
    made.write("dir/inner.txt", "inner")
    made.settle()
    yield made
    made.ledger.close()


def test_a_file_that_cannot_be_read_is_named_and_its_points_are_kept(closed_world: World) -> None:
    (closed_world.root / "shut.txt").chmod(0)
    _, findings, scratch = closed_world.audit()
    assert findings == [Finding("unreadable", "shut.txt", "the file cannot be opened: Permission denied")]
    assert list(scratch.discards()) == []


def test_a_file_that_cannot_be_read_is_no_defect_where_the_ledger_says_so(closed_world: World) -> None:
    (closed_world.root / "shut.txt").chmod(0)
    with closed_world.ledger.transaction():
        closed_world.ledger._db.execute("UPDATE documents SET state = 'failed' WHERE path = ?", (b"shut.txt",))
    closed_world.points = [point for point in closed_world.points if point.payload["path"] != "shut.txt"]
    _, [finding], scratch = closed_world.audit()
    assert (finding.kind, finding.path, finding.known) == ("unreadable", "shut.txt", True)
    assert scratch.defects() == 0


def test_what_lies_below_a_directory_that_cannot_be_listed_is_not_left_over(closed_world: World) -> None:
    (closed_world.root / "dir").chmod(0)
    _, findings, scratch = closed_world.audit()
    assert short(findings) == [("unreadable", "dir")]
    assert list(scratch.discards()) == []


def peak_bytes(base: Path, documents: int) -> int:
    """Most memory that an audit of a right index of so many documents takes."""
    base.mkdir()
    world = World(base)
    for number in range(documents):
        world.write(f"{number // 100}/{number}.txt", f"one {number}\ntwo\nthree\n")
    world.settle()
    world.points.clear()

    def make(path: bytes) -> list[Point]:
        entry = world.ledger.entry(path)
        assert entry is not None
        return list(document_points(write_of(world.root, path, entry.applied_seq)))

    made = Made({document_id(path): path for path in sorted(world.scanner.scan())}, make)
    tracemalloc.start()
    try:
        totals, findings, _ = run(world, made)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        world.ledger.close()
    assert (totals.documents, totals.chunks, findings) == (documents, 3 * documents, [])
    return peak


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    peak_bytes(tmp_path / "warm", 100)
    few = peak_bytes(tmp_path / "few", 300)
    # how many of the threads' documents are in hand at once is chance: the least of several peaks counts
    many = (peak_bytes(tmp_path / f"many{number}", 1800) for number in range(3))
    assert any(peak < few * 1.25 for peak in many), few
