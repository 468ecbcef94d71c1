"""The pipeline with its real parts: files, extraction children, the model behind a batcher, the embedded index."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import wait_until

from headwater.batcher import Batcher
from headwater.document import content_hash, document_id, text_hash
from headwater.embedder import Embedder, Kind
from headwater.errors import DiskFull, IndexUnavailable, ModelError
from headwater.index import IndexCounts
from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from headwater.messages import Embedded, Hint, Item, Lane, Outcome
from worker.kept import KeptVectors
from worker.pipeline import Pipeline
from worker.sandboxes import Extraction, ExtractionFailed, SandboxPool

Vector = np.ndarray[Any, np.dtype[np.float32]]
MAX_FILE_BYTES = 4 * 1024 * 1024
#: more new texts than the pipeline embeds before it writes (256)
LONG = 300
BIRDS, STARS, BREAD = (
    "Herons wait in shallow water.",
    "A red giant burns helium.",
    "Knead the dough, then rest it.",
)


# -- parts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandboxes(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxPool]:
    pool = SandboxPool(
        embedder.tokenizer_json,
        homes=tmp_path_factory.mktemp("homes"),
        max_tokens=embedder.window,
        timeout_s=60,
        memory_bytes=2 * 1024**3,
        size=2,
    )
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def batcher(embedder: Embedder) -> Iterator[Batcher]:
    made = Batcher(embedder, batch_tokens=8192)
    yield made
    made.close()


@dataclass
class Recorder:
    """Notes which texts the pipeline wants embedded, and asks ``inner`` for them."""

    inner: Callable[[Sequence[str], Lane], tuple[Vector, int]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
        self.asked += texts
        return self.inner(texts, lane)

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@dataclass
class Counted:
    """The real extraction, counted; ``failing`` names end in failure."""

    inner: SandboxPool
    names: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)

    def extract(self, name: str, data: bytes) -> Extraction:
        self.names.append(name)
        if name in self.failing:
            raise ExtractionFailed("the extraction crashed (segmentation fault)")
        return self.inner.extract(name, data)


def plain_vectors(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
    """One unit vector that belongs to each text, at no cost."""
    rows = [np.random.default_rng(int(text_hash(text)[:12], 16)).normal(size=384) for text in texts]
    if not rows:
        return np.zeros((0, 384), np.float32), 0
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32), len(texts)


@dataclass
class Bench:
    """A folder and the pipeline that indexes it."""

    folder: Path
    index: EdgeIndex
    extractor: Counted
    embed: Recorder
    pipeline: Pipeline
    space: list[Exception]
    seq: int = field(default_factory=lambda: time.time_ns() // 1000)

    def write(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def apply(self, *names: str, lane: Lane = "live", delete: Sequence[str] = (), final: bool = False) -> list[Outcome]:
        """Index these names, then delete those, with new seqs, in one hint."""
        items = [self.item(name, "final" if final else "index") for name in names]
        items += [self.item(name, "delete") for name in delete]
        return self.again(Hint(tuple(items), lane))

    def item(self, name: str, operation: Any = "index") -> Item:
        self.seq += 1
        return Item(os.fsencode(name), self.seq, operation)

    def again(self, hint: Hint) -> list[Outcome]:
        return [event for event in self.pipeline.apply(hint) if isinstance(event, Outcome)]

    def texts(self, name: str) -> list[str]:
        """The chunks held of a document, in order."""
        held = [p.payload for p in self.index.scan() if p.payload["path"] == name and "text" in p.payload]
        return [payload["text"] for payload in sorted(held, key=lambda payload: payload["chunk"])]

    def check_vectors(self, name: str, atol: float = 1e-3) -> None:
        """Each chunk's vector is the one of its own text, not of another."""
        texts = self.texts(name)
        expected, _ = self.embed.inner(texts, "bulk")
        np.testing.assert_allclose(self.index.document_vectors(document_id(os.fsencode(name))), expected, atol=atol)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path, edge_index: EdgeIndex, sandboxes: SandboxPool) -> MakeBench:
    def make(embed: Callable[[Sequence[str], Lane], tuple[Vector, int]], kept: KeptVectors | None = None) -> Bench:
        folder = tmp_path / "folder"
        folder.mkdir()
        edge_index.ensure_schema("model@1", 384)
        recorder, extractor = Recorder(embed), Counted(sandboxes)
        space: list[Exception] = []

        def check_space() -> None:
            if space:
                raise space[0]

        pipeline = Pipeline(
            root=os.fsencode(folder),
            index=edge_index,
            embed=recorder,
            encode_sparse=Bm25Encoder().document,
            extractor=extractor,
            pipeline_fingerprint="p",
            max_file_bytes=MAX_FILE_BYTES,
            check_space=check_space,
            kept=kept,
        )
        return Bench(folder, edge_index, extractor, recorder, pipeline, space)

    return make


@pytest.fixture
def bench(make_bench: MakeBench, batcher: Batcher) -> Bench:
    """With the real model."""
    return make_bench(batcher.embed)


@pytest.fixture
def quick(make_bench: MakeBench) -> Bench:
    """With vectors at no cost, where the model is not the point."""
    return make_bench(plain_vectors)


def states(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def sections(*bodies: str) -> str:
    """A document with one chunk per body."""
    return "\n\n".join(f"# Part {n}\n\n{body}" for n, body in enumerate(bodies))


def long_document(first: int = 0) -> str:
    return sections(*(f"Entry number {n} of a long list." for n in range(first, first + LONG)))


# -- what happens to files --------------------------------------------------------------------------------


def test_a_new_file_is_indexed_and_described(bench: Bench) -> None:
    path = bench.write("notes/birds.md", sections(BIRDS, STARS))
    (outcome,) = bench.apply("notes/birds.md")
    status = path.stat()
    assert (outcome.state, outcome.reason, outcome.chunks, outcome.path) == (
        "indexed",
        None,
        2,
        b"notes/birds.md",
    )
    assert outcome.content_hash == content_hash(path.read_bytes())
    assert outcome.fingerprint is not None
    assert (outcome.fingerprint.size, outcome.fingerprint.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (outcome.fingerprint.ctime_ns, outcome.fingerprint.inode) == (status.st_ctime_ns, status.st_ino)
    assert len(bench.embed.take()) == 2
    assert BIRDS in bench.texts("notes/birds.md")[0]
    bench.check_vectors("notes/birds.md")
    assert bench.index.values("path") == ["notes/birds.md"]


def test_an_edit_embeds_only_the_chunk_that_changed(bench: Bench) -> None:
    bench.write("a.md", sections(BIRDS, STARS, BREAD))
    bench.apply("a.md")
    bench.embed.take()
    bench.write("a.md", sections(BIRDS, STARS + " It swells.", BREAD))
    assert states(bench.apply("a.md")) == ["indexed"]
    (asked,) = bench.embed.take()
    assert "It swells." in asked
    assert len(bench.texts("a.md")) == 3
    bench.check_vectors("a.md")


def test_a_touch_embeds_nothing_and_moves_the_seq(bench: Bench) -> None:
    path = bench.write("a.md", sections(BIRDS, STARS))
    bench.apply("a.md")
    bench.embed.take()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    (outcome,) = bench.apply("a.md")
    assert (outcome.state, bench.embed.take()) == ("indexed", [])
    state = bench.index.document_state(document_id(b"a.md"))
    assert state is not None
    assert state.seq == bench.seq
    assert {p.payload["modified_at"] for p in bench.index.scan()} == {"2001-09-09T01:46:40.000000Z"}


@pytest.mark.parametrize("kind", ["rename", "copy"])
def test_a_rename_or_copy_embeds_nothing(bench: Bench, kind: str) -> None:
    old = bench.write("old.md", sections(BIRDS, STARS))
    bench.apply("old.md")
    bench.embed.take()
    bench.write("new/name.md", old.read_bytes())
    if kind == "rename":
        old.unlink()
        outcomes = bench.apply("new/name.md", delete=["old.md"])
    else:
        outcomes = bench.apply("new/name.md")
    assert states(outcomes) == (["indexed", "deleted"] if kind == "rename" else ["indexed"])
    assert bench.embed.take() == []
    assert bench.index.count() == (IndexCounts(1, 2) if kind == "rename" else IndexCounts(2, 4))
    assert len(bench.texts("new/name.md")) == 2
    bench.check_vectors("new/name.md")


def test_what_was_reused_is_reported(bench: Bench) -> None:
    bench.write("a.md", sections(BIRDS, STARS))
    bench.apply("a.md")
    bench.write("b.md", sections(BIRDS, STARS))
    events = bench.pipeline.apply(Hint((bench.item("b.md"),), "bulk"))
    assert [event for event in events if isinstance(event, Embedded)] == [Embedded(0, 2)]


def test_texts_that_could_not_be_embedded_are_not_reported_as_reused(bench: Bench) -> None:
    def refused(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
        raise ModelError("out of memory")

    bench.write("a.md", sections(BIRDS))
    bench.apply("a.md")
    bench.embed.inner = refused
    bench.write("b.md", sections(BIRDS))
    bench.write("c.md", sections(STARS))
    events = bench.pipeline.apply(Hint((bench.item("b.md"), bench.item("c.md")), "bulk"))
    assert [event for event in events if isinstance(event, Embedded)] == [Embedded(0, 1)]


def test_a_delete_removes_the_document_and_may_come_twice(bench: Bench) -> None:
    bench.write("a.md", BIRDS)
    bench.write("b.md", STARS)
    bench.apply("a.md", "b.md")
    assert states(bench.apply(delete=["a.md"])) == ["deleted"]
    assert states(bench.apply(delete=["a.md"])) == ["deleted"]
    assert bench.index.count() == IndexCounts(1, 1)
    assert bench.texts("b.md") == [STARS]


def test_an_older_delete_leaves_a_newer_version_and_says_its_seq(bench: Bench) -> None:
    bench.write("a.md", BIRDS)
    late = bench.item("a.md", "delete")
    bench.apply("a.md")
    (outcome,) = bench.again(Hint((late,), "live"))
    assert (outcome.state, outcome.index_seq) == ("superseded", bench.seq)
    assert bench.texts("a.md") == [BIRDS]


# -- hints that come twice, late or after a crash ---------------------------------------------------------


def test_a_hint_that_comes_twice_is_answered_from_the_index(bench: Bench) -> None:
    bench.write("a.md", sections(BIRDS, STARS))
    hint = Hint((bench.item("a.md"),), "live")
    first = bench.again(hint)
    bench.embed.take()
    assert bench.again(hint) == first
    assert (bench.extractor.names, bench.embed.take()) == (["a.md"], [])


def test_an_older_hint_is_superseded_and_changes_nothing(bench: Bench) -> None:
    bench.write("a.md", BIRDS)
    late = bench.item("a.md")
    bench.apply("a.md")
    bench.write("a.md", STARS)
    (outcome,) = bench.again(Hint((late,), "live"))
    assert (outcome.state, outcome.index_seq) == ("superseded", bench.seq)
    assert bench.texts("a.md") == [BIRDS]


def test_a_hint_whose_document_has_changed_since_it_was_applied_asks_to_look_again(bench: Bench) -> None:
    bench.write("a.md", BIRDS)
    hint = Hint((bench.item("a.md"),), "live")
    bench.again(hint)
    bench.write("a.md", STARS)
    assert states(bench.again(hint)) == ["changed"]
    assert bench.texts("a.md") == [BIRDS]


class Crash(BaseException):
    """The process is gone."""


def test_a_long_document_that_was_interrupted_is_finished_by_the_same_hint(quick: Bench) -> None:
    # Given a long document whose worker dies after its first texts were written
    quick.write("long.md", long_document())
    hint = Hint((quick.item("long.md"),), "bulk")
    calls: list[int] = []

    def dies_at_the_second_call(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
        calls.append(len(texts))
        if len(calls) == 2:
            raise Crash
        return plain_vectors(texts, lane)

    quick.embed.inner = dies_at_the_second_call
    with pytest.raises(Crash):
        quick.again(hint)
    assert quick.index.count() == IndexCounts(0, 256)
    # When the hint comes again
    quick.embed.inner = plain_vectors
    quick.embed.take()
    (outcome,) = quick.again(hint)
    # Then only the rest is embedded, and the document is whole
    assert (outcome.state, outcome.chunks) == ("indexed", LONG)
    assert len(quick.embed.take()) == LONG - 256
    assert quick.index.count() == IndexCounts(1, LONG)
    quick.check_vectors("long.md", atol=1e-5)


def test_an_interrupted_version_that_has_changed_since_is_looked_at_again(quick: Bench) -> None:
    quick.write("long.md", long_document())
    hint = Hint((quick.item("long.md"),), "bulk")
    quick.embed.inner = lambda texts, lane: plain_vectors(texts, lane) if len(texts) == 256 else _crash()
    with pytest.raises(Crash):
        quick.again(hint)
    quick.embed.inner = plain_vectors
    quick.write("long.md", long_document(1000))
    assert states(quick.again(hint)) == ["changed"]
    assert states(quick.apply("long.md")) == ["indexed"]
    assert quick.index.count() == IndexCounts(1, LONG)
    quick.check_vectors("long.md", atol=1e-5)


def _crash() -> tuple[Vector, int]:
    raise Crash


def test_the_old_version_of_a_long_document_stays_whole_or_is_replaced_chunk_by_chunk(quick: Bench) -> None:
    """Never more points than the two versions have, and none of the old one at the end."""
    quick.write("long.md", long_document())
    quick.apply("long.md")
    quick.write("long.md", long_document(1000))
    assert states(quick.apply("long.md")) == ["indexed"]
    assert quick.index.count() == IndexCounts(1, LONG)
    assert {p.payload["seq"] for p in quick.index.scan()} == {quick.seq}
    quick.check_vectors("long.md", atol=1e-5)


def test_long_and_short_documents_of_one_hint_are_all_indexed(quick: Bench) -> None:
    names = ["s1.md", "long1.md", "s2.md", "long2.md"]
    for name, text in zip(names, [BIRDS, long_document(), STARS, long_document(500)], strict=True):
        quick.write(name, text)
    outcomes = quick.apply(*names, lane="bulk")
    assert {outcome.path.decode(): outcome.state for outcome in outcomes} == dict.fromkeys(names, "indexed")
    assert quick.index.count() == IndexCounts(4, 2 * LONG + 2)
    for name in names:
        quick.check_vectors(name, atol=1e-5)


def test_two_threads_with_the_same_hint_do_the_work_once(quick: Bench) -> None:
    quick.write("a.md", sections(BIRDS, STARS))
    hint = Hint((quick.item("a.md"),), "live")
    entered, go = threading.Semaphore(0), threading.Event()

    def slowly(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
        entered.release()
        go.wait(10)
        return plain_vectors(texts, lane)

    quick.embed.inner = slowly
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(quick.again, hint)
        assert entered.acquire(timeout=20)
        second = threads.submit(quick.again, hint)
        wait_until(lambda: quick.pipeline._freed._waiters, "the second waits", timeout_s=10)  # type: ignore[attr-defined]
        go.set()
        assert first.result(timeout=20) == second.result(timeout=20)
    assert quick.extractor.names == ["a.md"]
    assert len(quick.embed.take()) == 2
    assert quick.index.count() == IndexCounts(1, 2)


def test_hints_that_share_documents_in_other_orders_do_not_block_each_other(quick: Bench) -> None:
    for name in "abcd":
        quick.write(f"{name}.md", f"{BIRDS} {name}")
    orders = ["abcd", "dcba", "bdac", "cadb"]
    hints = [Hint(tuple(quick.item(f"{name}.md") for name in order), "live") for order in orders]
    with ThreadPoolExecutor(4) as threads:
        found = [future.result(timeout=60) for future in [threads.submit(quick.again, hint) for hint in hints]]
    assert {state for outcomes in found for state in states(outcomes)} <= {"indexed", "superseded"}
    assert quick.index.count() == IndexCounts(4, 4)


# -- what cannot be indexed -------------------------------------------------------------------------------


def test_a_file_that_is_gone_has_vanished(bench: Bench) -> None:
    bench.write("there.md", BIRDS)
    outcomes = bench.apply("gone.md", "no/such/folder.md", "there.md/below.md", "there.md")
    assert states(outcomes) == ["vanished", "vanished", "vanished", "indexed"]


def _symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "binary": (lambda path: path.write_bytes(b"\x00\x01\x02\xff\xfe\x00" * 500), ""),
    "image": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(3000)), ""),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "blank": (lambda path: path.write_bytes(b" \n\t \n"), "empty"),
    "too large": (
        lambda path: path.write_bytes(b"x" * (MAX_FILE_BYTES + 1)),
        "larger than the limit of 4194304 bytes",
    ),
    "symbolic link": (_symlink, "symbolic link: not followed"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_no_document_is_refused_and_its_earlier_version_goes(quick: Bench, case: str) -> None:
    make, reason = REFUSED[case]
    path = quick.write("a.dat", BIRDS)
    quick.write("b.md", STARS)
    assert states(quick.apply("a.dat")) == ["indexed"]
    path.unlink()
    make(path)
    refused, indexed = sorted(quick.apply("a.dat", "b.md"), key=lambda outcome: outcome.path)
    assert (refused.state, indexed.state) == ("refused", "indexed")
    assert refused.reason is not None
    assert reason in refused.reason
    assert (refused.retryable, refused.service) == (False, False)
    assert {p.payload["path"] for p in quick.index.scan()} == {"b.md"}


def test_a_path_that_leaves_the_folder_or_goes_through_a_link_is_refused(quick: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text(BIRDS)
    (quick.folder / "link").symlink_to(tmp_path / "outside")
    names = [
        "../outside/secret.md",
        "link/secret.md",
        str(tmp_path / "outside" / "secret.md"),
        "./a.md",
        "a\0b",
    ]
    outcomes = quick.apply(*names)
    assert [outcome.state for outcome in outcomes if outcome.state == "indexed"] == []
    assert quick.index.count() == IndexCounts(0, 0)
    assert outcomes[0].state == outcomes[2].state == "refused"


def test_a_document_that_fails_keeps_its_earlier_version_until_the_last_try(quick: Bench) -> None:
    # Given an indexed document
    quick.write("a.md", sections(BIRDS, STARS))
    quick.write("b.md", BREAD)
    quick.apply("a.md")
    # When its next version kills the extraction
    quick.write("a.md", BREAD)
    quick.extractor.failing.add("a.md")
    failed, indexed = sorted(quick.apply("a.md", "b.md"), key=lambda outcome: outcome.path)
    # Then it has failed, the others have not, and the earlier version is still found
    assert (failed.state, failed.retryable, failed.service, failed.chunks) == ("failed", True, False, 2)
    assert failed.reason == "the extraction crashed (segmentation fault)"
    assert failed.content_hash == content_hash(BREAD.encode())
    assert indexed.state == "indexed"
    assert len(quick.texts("a.md")) == 2
    # And at the last try nothing of it stays
    (last,) = quick.apply("a.md", final=True)
    assert (last.state, last.chunks) == ("failed", 0)
    assert quick.texts("a.md") == []
    # And a version that can be read is indexed as ever
    quick.extractor.failing.clear()
    assert states(quick.apply("a.md", final=True)) == ["indexed"]
    assert quick.texts("a.md") == [BREAD]


def test_a_hint_that_comes_twice_is_tried_once_and_answered_twice(quick: Bench) -> None:
    quick.write("a.md", BREAD)
    quick.extractor.failing.add("a.md")
    hint = Hint((quick.item("a.md"),), "live")
    (first,) = quick.again(hint)
    assert quick.again(hint) == [first]
    assert first.state == "failed" and quick.extractor.names == ["a.md"]
    # And the next try, which has a seq of its own, is one
    (second,) = quick.apply("a.md")
    assert second.state == "failed" and quick.extractor.names == ["a.md", "a.md"]


def test_content_whose_tries_are_spent_is_not_tried_again_and_other_content_is(quick: Bench) -> None:
    # Given a document that used up its tries
    quick.write("a.md", BREAD)
    quick.extractor.failing.add("a.md")
    (failed,) = quick.apply("a.md", final=True)
    assert failed.content_hash == content_hash(BREAD.encode()) and failed.fingerprint is not None
    tried = list(quick.extractor.names)
    # When a hint for the same content comes
    spent = replace(quick.item("a.md", "spent"), tried=failed.content_hash)
    (again,) = quick.again(Hint((spent,), "live"))
    # Then nobody looks into it, and the answer is no try
    assert (again.state, again.retryable, again.content_hash) == ("failed", False, failed.content_hash)
    assert quick.extractor.names == tried
    # And other content is read
    quick.write("a.md", STARS)
    quick.extractor.failing.clear()
    (other,) = quick.again(Hint((replace(quick.item("a.md", "spent"), tried=failed.content_hash),), "live"))
    assert other.state == "indexed"


# -- models that do not do their work ---------------------------------------------------------------------


def _raises(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
    raise ModelError("the model gave a vector that is not finite or zero")


def _not_numbers(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
    vectors, fresh = plain_vectors(texts, lane)
    return vectors * np.float32("nan"), fresh


def _too_few(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
    vectors, fresh = plain_vectors(texts, lane)
    return vectors[1:], fresh


@pytest.mark.parametrize("broken", [_raises, _not_numbers, _too_few])
def test_documents_of_a_batch_that_could_not_be_embedded_fail_and_are_tried_again(
    quick: Bench, broken: Callable[..., tuple[Vector, int]]
) -> None:
    quick.write("old.md", STARS)
    quick.apply("old.md")
    quick.write("old.md", sections(BIRDS, BREAD))
    quick.write("new.md", BIRDS)
    # When the model does not do its work
    quick.embed.inner = broken
    outcomes = quick.apply("old.md", "new.md")
    # Then both fail with a reason and the index is as it was
    assert states(outcomes) == ["failed", "failed"]
    assert all(outcome.retryable and not outcome.service and outcome.reason for outcome in outcomes)
    assert quick.texts("old.md") == [STARS]
    assert quick.texts("new.md") == []
    # And when it works again, each chunk gets its own vector
    quick.embed.inner = plain_vectors
    assert states(quick.apply("old.md", "new.md")) == ["indexed", "indexed"]
    for name in ("old.md", "new.md"):
        quick.check_vectors(name, atol=1e-5)


def test_a_bad_batch_does_not_lend_its_vectors_to_the_next_document_of_the_hint(quick: Bench) -> None:
    """Vectors of a call that gave too few of them are paired with wrong texts: none may be used."""
    quick.write("short.md", sections(BIRDS, STARS, BREAD))
    quick.write("long.md", sections(BIRDS, STARS, BREAD, *(f"Entry number {n}." for n in range(LONG))))
    calls: list[int] = []

    def first_call_is_bad(texts: Sequence[str], lane: Lane) -> tuple[Vector, int]:
        calls.append(len(texts))
        return (_too_few if len(calls) == 1 else plain_vectors)(texts, lane)

    quick.embed.inner = first_call_is_bad
    outcomes = {outcome.path: outcome.state for outcome in quick.apply("short.md", "long.md")}
    assert outcomes == {b"short.md": "failed", b"long.md": "indexed"}
    quick.embed.inner = plain_vectors
    quick.check_vectors("long.md", atol=1e-5)


@dataclass
class FakeEmbedder:
    """An Embedder that breaks its contract until it is mended."""

    name: str = "fake"
    dimension: int = 384
    window: int = 254
    parallel: int = 1
    batch_size: int = 8
    tokenizer_json: str = ""
    broken: bool = True

    def enter_thread(self) -> None:
        pass

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        return [len(text.split()) for text in texts]

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(self, texts: Sequence[str], kind: Kind) -> Vector:
        vectors, _ = plain_vectors(texts, "bulk")
        return vectors[:-1] if self.broken else vectors


def test_a_batcher_outlives_a_model_that_gives_too_few_vectors(make_bench: MakeBench) -> None:
    """The thread that owns the model must not die: every later call would wait for ever."""
    fake = FakeEmbedder()
    batcher = Batcher(fake, batch_tokens=8192)
    bench = make_bench(batcher.embed)
    bench.write("a.md", sections(BIRDS, STARS))
    answers: list[list[str]] = []

    def apply_twice() -> None:
        answers.append(states(bench.apply("a.md")))
        fake.broken = False
        answers.append(states(bench.apply("a.md")))

    thread = threading.Thread(target=apply_twice, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # the death of a thread is judged below
        thread.start()
        thread.join(timeout=5)
    assert answers == [["failed"], ["indexed"]]
    bench.check_vectors("a.md", atol=1e-5)
    batcher.close()


@dataclass
class HangingEmbedder(FakeEmbedder):
    """Gives no answer for texts with a mark, until it is let go."""

    gate: threading.Event = field(default_factory=threading.Event)
    broken: bool = False

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        return [10 for _ in texts]  # all share a pass

    def encode(self, texts: Sequence[str], kind: Kind) -> Vector:
        if any("HANGS" in text for text in texts):
            self.gate.wait(30)
        return super().encode(texts, kind)


def hang(make_bench: MakeBench, *names: str, final: bool) -> tuple[Bench, dict[str, Outcome]]:
    """The outcomes of these documents, ``bad.md`` among them, which the model does not answer for."""
    fake = HangingEmbedder()
    batcher = Batcher(fake, batch_tokens=8192, timeout_s=0.4)
    bench = make_bench(batcher.embed)
    for name in names:
        bench.write(name, "This one HANGS." if name == "bad.md" else f"The words of {name}.")
    outcomes = {os.fsdecode(outcome.path): outcome for outcome in bench.apply(*names, final=final)}
    fake.gate.set()
    batcher.close()
    return bench, outcomes


def test_documents_in_a_pass_without_an_answer_pay_a_try_that_is_not_the_last(make_bench: MakeBench) -> None:
    _, outcomes = hang(make_bench, "a.md", "bad.md", final=False)
    for outcome in outcomes.values():
        assert (outcome.state, outcome.retryable, outcome.service, outcome.shared) == ("failed", True, False, True)


def test_at_its_last_try_only_the_document_that_hangs_the_model_pays(make_bench: MakeBench) -> None:
    bench, outcomes = hang(make_bench, "a.md", "bad.md", "c.md", final=True)
    assert outcomes["a.md"].state == "indexed"
    assert bench.texts("a.md") == ["The words of a.md."]
    bad = outcomes["bad.md"]
    assert (bad.state, bad.service, bad.shared) == ("failed", False, False)
    assert "no answer within 0.4 s" in str(bad.reason)
    assert (outcomes["c.md"].state, outcomes["c.md"].service) == ("failed", True)  # not even tried


# -- trouble of the service -------------------------------------------------------------------------------


def test_a_full_disk_is_the_services_failure_and_nothing_is_written(quick: Bench) -> None:
    quick.write("a.md", BIRDS)
    quick.apply("a.md")
    quick.write("a.md", STARS)
    quick.space.append(DiskFull("the disk of the state directory has 1 MiB left"))
    outcomes = quick.apply("a.md", delete=["b.md"])
    assert states(outcomes) == ["failed", "failed"]
    assert all(outcome.service and outcome.retryable for outcome in outcomes)
    assert {outcome.reason for outcome in outcomes} == {"the disk of the state directory has 1 MiB left"}
    assert quick.texts("a.md") == [BIRDS]
    quick.space.clear()
    assert states(quick.apply("a.md")) == ["indexed"]


def test_an_index_that_does_not_answer_is_the_services_failure(quick: Bench) -> None:
    quick.write("a.md", BIRDS)
    quick.index.close()
    (outcome,) = quick.apply("a.md")
    assert (outcome.state, outcome.retryable, outcome.service) == ("failed", True, True)
    quick.index.open_existing()
    assert states(quick.apply("a.md")) == ["indexed"]


# -- the window -------------------------------------------------------------------------------------------

NASTY: dict[str, str] = {
    "one_line.txt": "x" * 1_000_000,
    "base64.txt": "QmFzZTY0IGlzIG5vdCBwcm9zZS4+/" * 2000,
    "hex.txt": "deadbeef0123456789abcdef" * 1500,
    "chinese.txt": "文件夹里的每一个文件都被切成小块。" * 400,
    "no_stops.txt": "東京都渋谷区神宮前" * 500,
    "emoji.txt": "👩‍👩‍👧‍👦🏳️‍🌈👍🏽" * 800,
    "combining.txt": "e" + "\u0301" * 3000 + " end " + "Z̸̡̢̛a̷l̶g̵o̴ " * 300,
    "ligature.txt": "\ufdfa" * 1500 + " " + "ﬃ" * 1500,
    "arabic.txt": "كل ملف في المجلد يقسم إلى أجزاء صغيرة. " * 200,
    "thai.txt": "ทุกไฟล์ในโฟลเดอร์ถูกตัดเป็นชิ้นเล็ก" * 200,
    "symbols.txt": "\u2200x\u2208\u211d:\u2308x\u2309=\u2212\u230a\u2212x\u230b;" * 600,
    "punctuation.txt": "!?.,;:" * 3000,
    "digits.txt": "3.14159,2.71828\n" * 1500,
    "long_words.txt": " ".join("pneumonoultramicroscopicsilicovolcanoconiosis" * 3 for _ in range(200)),
    "spaces.txt": "a" + " " * 50_000 + "b" + "\u00a0" * 5000 + "c",
    "controls.txt": "".join(chr(c) for c in range(1, 32)) * 20 + "words " * 300,
    "minified.js": "function a(b,c){return b+c};" * 2000,
    "deep.json": '{"a":[' * 300 + "1" + "]}" * 300,
    "table.csv": "id,name,value\n" + "".join(f'{n},"name, of {n}",{n * n}\n' for n in range(800)),
    "list.md": "- item one\n- item two\n  - " * 500,
    "special.txt": "[CLS] [SEP] [UNK] [PAD] [MASK] " * 600,
}


def test_no_chunk_of_any_text_has_more_tokens_than_the_model_reads(quick: Bench, embedder: Embedder) -> None:
    for name, text in NASTY.items():
        quick.write(name, text)
    outcomes = {outcome.path.decode(): outcome for outcome in quick.apply(*NASTY, lane="bulk")}
    not_indexed = {name: outcome.reason for name, outcome in outcomes.items() if outcome.state != "indexed"}
    assert set(not_indexed) <= {"controls.txt"}, not_indexed
    counts: dict[str, list[int]] = {name: [] for name in NASTY}
    for point in quick.index.scan():
        if "text" in point.payload:
            counts[point.payload["path"]].append(embedder.count_tokens(point.payload["text"]))
    assert {name: max(found) for name, found in counts.items() if found and max(found) > embedder.window} == {}
    # and nothing but blank space is lost on the way (short of what a format does not count as text)
    for name in ("one_line.txt", "chinese.txt", "emoji.txt", "arabic.txt", "base64.txt"):
        kept = "".join(quick.texts(name))
        assert "".join(kept.split()) == "".join(NASTY[name].split()), name


# -- crash windows ----------------------------------------------------------------------------------------


def test_a_write_that_ended_before_its_delete_is_finished_by_the_same_hint(quick: Bench) -> None:
    # Given a version of several chunks, and one of a single chunk whose write is cut off before its delete
    quick.write("a.md", sections(BIRDS, STARS))
    quick.apply("a.md")
    before = quick.index.count().chunks
    quick.write("a.md", BIRDS)
    hint = Hint((quick.item("a.md"),), "live")
    delete = quick.index.delete

    def cut_off(*_: object) -> None:
        raise IndexUnavailable("cut off")

    quick.index.delete = cut_off  # type: ignore[method-assign]  # the fault
    assert states(quick.again(hint)) == ["failed"]
    quick.index.delete = delete  # type: ignore[method-assign]
    # When the hint comes again
    assert states(quick.again(hint)) == ["indexed"]
    # Then nothing of the longer version is left
    assert quick.index.count().chunks < before
    assert {point.payload["seq"] for point in quick.index.scan()} == {hint.items[0].seq}


def test_short_documents_that_are_many_texts_together_keep_to_their_own(keeping: Bench) -> None:
    # Given documents none of which is long, and which are more texts than are embedded at once
    sections = {f"{n}.md": 2 if n == 0 else 60 for n in range(12)}
    for name, number in sections.items():
        keeping.write(name, "\n\n".join(f"# {name} {n}\n\nText {n} of {name}." for n in range(number)))
    outcomes = keeping.apply(*sections, lane="bulk")
    # Then each has its own chunks and no others
    assert [outcome.chunks for outcome in outcomes] == list(sections.values())
    for name, number in sections.items():
        assert [name in text for text in keeping.texts(name)] == [True] * number
        keeping.check_vectors(name, atol=0)


# -- what has left the index -------------------------------------------------------------------------------------


@pytest.fixture
def keeping(make_bench: MakeBench, tmp_path: Path) -> Bench:
    return make_bench(plain_vectors, KeptVectors(tmp_path / "kept.sqlite3", "model@1", keep_s=100.0))


def test_a_deleted_document_that_is_restored_is_not_embedded_again(keeping: Bench) -> None:
    keeping.write("a.md", _SECTIONS)
    keeping.apply("a.md")
    embedded = keeping.embed.take()
    assert len(embedded) > 2
    keeping.apply(delete=["a.md"])
    assert keeping.texts("a.md") == []
    # When it comes back, under another name
    keeping.write("b.md", _SECTIONS)
    keeping.apply("b.md")
    assert keeping.embed.take() == []
    assert keeping.texts("b.md") == embedded
    keeping.check_vectors("b.md", atol=0)


def test_another_version_and_back_embeds_only_what_never_was_there(keeping: Bench) -> None:
    keeping.write("a.md", _SECTIONS)
    keeping.apply("a.md")
    keeping.embed.take()
    other = _SECTIONS.replace("Text 2", "Another text").replace("Text 4", "One more text")
    keeping.write("a.md", other)
    keeping.apply("a.md")
    assert len(keeping.embed.take()) == 2
    for version in (_SECTIONS, other, _SECTIONS):
        keeping.write("a.md", version)
        keeping.apply("a.md")
        assert keeping.embed.take() == []
        keeping.check_vectors("a.md", atol=0)


def test_a_vector_of_a_damaged_index_is_not_kept(keeping: Bench) -> None:
    keeping.write("a.md", "# A\n\nSome words.\n")
    keeping.apply("a.md")
    [point] = [point for point in keeping.index.scan(with_vectors=True) if point.dense is not None]
    assert point.dense is not None
    keeping.index._upsert([replace(point, dense=point.dense * np.nan)], {str(point.payload["document_id"]): 2**52})
    keeping.embed.take()
    keeping.apply(delete=["a.md"])
    keeping.apply("a.md")
    assert len(keeping.embed.take()) == 1


_SECTIONS = "\n\n".join(f"# Section {n}\n\nText {n} of some words." for n in range(6))
