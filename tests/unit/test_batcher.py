"""Texts of many callers in the batches of one model."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headwater.batcher import Batcher, Priority
from headwater.embedder import Kind
from headwater.errors import ModelError, ModelStalled

WAIT_S = 10
DIMENSION = 8


def vector_of(text: str, kind: Kind = "document") -> NDArray[np.float32]:
    """A unit vector that only this text has."""
    raw = np.frombuffer(hashlib.sha256(f"{kind}\0{text}".encode()).digest(), np.uint8)[:DIMENSION].astype(np.float32)
    return raw / np.float32(np.linalg.norm(raw))


@dataclass
class FakeEmbedder:
    """Gives each text its own vector and notes the batches. ``gate`` holds it back while it is not set."""

    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[tuple[Kind, list[str]]] = field(default_factory=list)
    broken_by: str | None = None
    name: str = "fake"
    dimension: int = DIMENSION
    window: int = 1000
    parallel: int = 1
    batch_size: int = 64
    tokenizer_json: str = "{}"
    entered_threads: set[int] = field(default_factory=set)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def enter_thread(self) -> None:
        self.entered_threads.add(threading.get_ident())

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        return [len(text) for text in texts]

    def encode(self, texts: Sequence[str], kind: Kind) -> NDArray[np.float32]:
        assert threading.get_ident() in self.entered_threads
        self.batches.append((kind, list(texts)))
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        if self.broken_by in texts:
            raise ModelError("the model gave a vector that is not finite")
        return np.stack([vector_of(text, kind) for text in texts])

    def order(self) -> list[str]:
        return [text for _, texts in self.batches for text in texts]


class Told(list[int]):
    """Token counts that say when they are read: the caller then holds the batcher's lock, so it comes first."""

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__(counts)
        self.read = threading.Event()

    def __iter__(self) -> Iterator[int]:
        self.read.set()
        return super().__iter__()


@dataclass
class Room:
    """A batcher whose model is held back, and callers that wait in it."""

    embedder: FakeEmbedder
    batcher: Batcher
    callers: ThreadPoolExecutor

    def ask(self, texts: Sequence[str], priority: Priority, tokens: int = 10) -> Future[tuple[Any, int]]:
        """Returns when the texts are in the queue."""
        told = Told([tokens] * len(texts))
        future = self.callers.submit(self.batcher.embed, texts, priority, told)
        assert told.read.wait(WAIT_S)
        return future

    def hold(self) -> Future[tuple[Any, int]]:
        """Returns when the model is busy with a first batch."""
        future = self.ask(["first"], "bulk")
        assert self.embedder.entered.wait(WAIT_S)
        return future

    def let_go(self) -> None:
        self.embedder.gate.set()


@pytest.fixture
def room() -> Iterator[Room]:
    embedder = FakeEmbedder()
    batcher = Batcher(embedder, batch_tokens=1000)
    with ThreadPoolExecutor(32) as callers:
        yield Room(embedder, batcher, callers)
        embedder.gate.set()
        batcher.close()


def make(batch_tokens: int = 1000) -> tuple[FakeEmbedder, Batcher]:
    embedder = FakeEmbedder()
    embedder.gate.set()
    return embedder, Batcher(embedder, batch_tokens)


CALLS = st.lists(
    st.tuples(
        st.lists(st.text("abc", max_size=12), max_size=12),
        st.sampled_from(["query", "live", "bulk"]),
    ),
    max_size=10,
)


@settings(max_examples=40)
@given(CALLS, st.sampled_from([256, 20, 1]))
def test_each_text_gets_its_own_vector_whoever_asks_beside_it(
    calls: list[tuple[list[str], Priority]], batch_tokens: int
) -> None:
    embedder, batcher = make(batch_tokens)
    with ThreadPoolExecutor(10) as callers:
        answers = list(callers.map(lambda call: batcher.embed(*call), calls))
    batcher.close()
    for (texts, priority), (vectors, fresh) in zip(calls, answers, strict=True):
        kind: Kind = "query" if priority == "query" else "document"
        assert vectors.shape == (len(texts), DIMENSION)
        assert all(np.array_equal(row, vector_of(text, kind)) for row, text in zip(vectors, texts, strict=True))
        assert 0 <= fresh <= len(set(texts))
    # and each was embedded once for all of them
    embedded = [(kind, text) for kind, texts in embedder.batches for text in texts]
    assert len(embedded) == len(set(embedded)) == sum(fresh for _, fresh in answers)


def test_a_text_that_many_wait_for_is_embedded_once(room: Room) -> None:
    first = room.hold()
    waiting = [room.ask(["same", "same", "first"], "bulk") for _ in range(5)]
    room.let_go()
    answers = [future.result(WAIT_S) for future in waiting]
    assert first.result(WAIT_S)[1] == 1
    assert [fresh for _, fresh in answers] == [1, 0, 0, 0, 0]
    assert room.embedder.order().count("same") == room.embedder.order().count("first") == 1


def test_a_text_that_comes_again_later_is_not_embedded_again() -> None:
    embedder, batcher = make()
    assert batcher.embed(["a", "b"], "live")[1] == 2
    vectors, fresh = batcher.embed(["b", "c"], "bulk")
    batcher.close()
    assert fresh == 1
    assert np.array_equal(vectors[0], vector_of("b"))
    assert sorted(embedder.order()) == ["a", "b", "c"]


def test_a_text_as_a_query_is_another_than_as_a_document() -> None:
    embedder, batcher = make()
    as_document, _ = batcher.embed(["a"], "live")
    as_query, fresh = batcher.embed(["a"], "query")
    batcher.close()
    assert fresh == 1
    assert not np.array_equal(as_document, as_query)
    assert embedder.batches == [("document", ["a"]), ("query", ["a"])]


def test_queries_go_before_live_edits_and_these_before_bulk_work(room: Room) -> None:
    room.hold()
    asked = [room.ask([name], name) for name in ("bulk", "live", "query")]  # type: ignore[arg-type]  # the names agree
    room.let_go()
    for future in asked:
        future.result(WAIT_S)
    assert room.embedder.order() == ["first", "query", "live", "bulk"]


def test_a_bulk_text_that_a_live_edit_needs_too_goes_with_the_live_ones(room: Room) -> None:
    room.hold()
    asked = [room.ask(["other", "shared"], "bulk"), room.ask(["shared"], "live")]
    room.let_go()
    for future in asked:
        future.result(WAIT_S)
    assert room.embedder.order() == ["first", "shared", "other"]


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=80),
    st.sampled_from([1, 64, 256, 1000]),
)
def test_no_batch_of_several_texts_passes_the_token_budget(tokens: list[int], budget: int) -> None:
    embedder, batcher = make(budget)
    texts = [f"{number} {count}" for number, count in enumerate(tokens)]
    batcher.embed(texts, "bulk", tokens)
    batcher.close()
    for _, batch in embedder.batches:
        padded = len(batch) * max(int(text.split()[1]) for text in batch)
        assert padded <= budget or len(batch) == 1
    assert sorted(embedder.order()) == sorted(texts)


def test_texts_of_one_length_share_as_few_batches_as_the_budget_allows() -> None:
    embedder, batcher = make(1000)
    batcher.embed([str(number) for number in range(100)], "bulk", [50] * 100)
    batcher.close()
    assert [len(batch) for _, batch in embedder.batches] == [20] * 5


def test_only_texts_of_one_length_share_a_batch_and_the_oldest_go_first(room: Room) -> None:
    room.hold()
    asked = [room.ask([f"{length}-{n}"], "bulk", length) for n in range(2) for length in (30, 10, 20)]
    room.let_go()
    for future in asked:
        future.result(WAIT_S)
    batches = [texts for _, texts in room.embedder.batches]
    assert batches == [["first"], ["30-0", "30-1"], ["10-0", "10-1"], ["20-0", "20-1"]]


def test_as_many_batches_run_at_once_as_the_embedder_asks_for() -> None:
    embedder = FakeEmbedder(parallel=3, batch_size=1)
    batcher = Batcher(embedder, batch_tokens=1000)
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(batcher.embed, ["a", "b", "c", "d"], "bulk")
        deadline = time.monotonic() + WAIT_S
        while len(embedder.batches) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert sorted(embedder.order()) == ["a", "b", "c"]  # all held back at the gate, together
        embedder.gate.set()
        vectors, fresh = answer.result(WAIT_S)
    batcher.close()
    assert fresh == 4
    assert all(np.array_equal(row, vector_of(text)) for row, text in zip(vectors, "abcd", strict=True))


def test_a_text_that_spoils_its_batch_fails_alone(room: Room) -> None:
    room.embedder.broken_by = "bad"
    room.hold()
    bad = room.ask(["bad"], "live")
    beside = room.ask(["beside"], "live")
    good = room.ask(["good"], "bulk")
    room.let_go()
    with pytest.raises(ModelError, match="not finite"):
        bad.result(WAIT_S)
    assert np.array_equal(beside.result(WAIT_S)[0][0], vector_of("beside"))
    assert np.array_equal(good.result(WAIT_S)[0][0], vector_of("good"))
    # and a text that failed is tried anew when it comes again
    room.embedder.broken_by = None
    vectors, fresh = room.ask(["bad"], "live").result(WAIT_S)
    assert fresh == 1
    assert np.array_equal(vectors[0], vector_of("bad"))


def test_no_texts_give_no_rows() -> None:
    embedder, batcher = make()
    vectors, fresh = batcher.embed([], "bulk")
    batcher.close()
    assert (vectors.shape, fresh, embedder.batches) == ((0, DIMENSION), 0, [])


def test_callers_that_wait_when_it_closes_get_an_error_and_the_running_batch_ends(room: Room) -> None:
    running = room.hold()
    waiting = room.ask(["late"], "bulk")
    closing = room.callers.submit(room.batcher.close)
    with pytest.raises(RuntimeError, match="closed"):
        while True:
            room.batcher.embed([], "bulk")
    room.let_go()
    closing.result(WAIT_S)
    assert np.array_equal(running.result(WAIT_S)[0][0], vector_of("first"))
    with pytest.raises(RuntimeError, match="closed"):
        waiting.result(WAIT_S)
    with pytest.raises(RuntimeError, match="closed"):
        room.batcher.embed(["more"], "bulk")


# -- a model that gives no answer -----------------------------------------------------------------------------


@dataclass
class StuckEmbedder(FakeEmbedder):
    """Never answers for a batch with one of these texts, until ``gate`` is set."""

    stuck_by: frozenset[str] = frozenset()

    def encode(self, texts: Sequence[str], kind: Kind) -> NDArray[np.float32]:
        self.batches.append((kind, list(texts)))
        if self.stuck_by & set(texts):
            self.entered.set()
            assert self.gate.wait(WAIT_S)
        if self.broken_by in texts:
            raise ModelError("the model gave a vector that is not finite")
        return np.stack([vector_of(text, kind) for text in texts])


@dataclass
class StuckRoom(Room):
    stalls: list[int] = field(default_factory=list)


@pytest.fixture
def stuck_room() -> Iterator[StuckRoom]:
    embedder = StuckEmbedder(stuck_by=frozenset({"bad"}))
    stalls: list[int] = []
    batcher = Batcher(embedder, batch_tokens=1000, timeout_s=0.4, on_stall=lambda: stalls.append(1))
    with ThreadPoolExecutor(32) as callers:
        yield StuckRoom(embedder, batcher, callers, stalls)
        embedder.gate.set()
        batcher.close()


def test_callers_of_a_pass_without_an_answer_hear_which_texts_were_in_it(stuck_room: StuckRoom) -> None:
    # Given a text that the model knows already, and a batch that it never ends
    known, _ = stuck_room.batcher.embed(["known"], "bulk")
    in_it = stuck_room.ask(["bad", "good"], "bulk")
    assert stuck_room.embedder.entered.wait(WAIT_S)
    behind = stuck_room.ask(["behind"], "live")
    # Then who was in it hears of both texts, and who waited behind it of none
    with pytest.raises(ModelStalled, match=r"no answer within 0\.4 s") as caught:
        in_it.result(WAIT_S)
    assert caught.value.texts == {"bad", "good"}
    with pytest.raises(ModelStalled) as caught:
        behind.result(WAIT_S)
    assert caught.value.texts == set()
    # And the model is not asked again, no text is named twice, and what the model gave is still there
    for again in ("good", "bad", "new"):
        with pytest.raises(ModelStalled) as caught:
            stuck_room.batcher.embed([again], "live")
        assert caught.value.texts == set()
    np.testing.assert_array_equal(stuck_room.batcher.embed(["known"], "bulk")[0], known)
    assert stuck_room.stalls == [1]


def test_a_text_that_stalls_the_model_alone_is_named_alone(stuck_room: StuckRoom) -> None:
    alone = stuck_room.ask(["bad", "good"], "alone")
    with pytest.raises(ModelStalled) as caught:
        alone.result(WAIT_S)
    assert caught.value.texts == {"bad"}


def test_who_hears_of_a_spoilt_text_and_of_a_hang_hears_of_the_hang(stuck_room: StuckRoom) -> None:
    """The spoilt one can be tried again; the hang is told once, and unheard it would cost nobody a try, for ever."""
    spoilt = "spoilt, and too long to share a pass with the other"
    stuck_room.embedder.broken_by = spoilt
    both = stuck_room.callers.submit(stuck_room.batcher.embed, [spoilt, "bad"], "bulk")
    with pytest.raises(ModelStalled) as caught:
        both.result(WAIT_S)
    assert caught.value.texts == {"bad"}


def test_texts_of_the_last_lane_share_a_batch_with_nobody(room: Room) -> None:
    first = room.hold()
    # Given texts of one length that wait, one of them in both lanes
    alone = room.ask(["a", "b", "c"], "alone")
    shared = room.ask(["d", "e", "c"], "bulk")
    room.let_go()
    for future in (first, alone, shared):
        future.result(WAIT_S)
    assert [texts for _, texts in room.embedder.batches] == [["first"], ["d", "e"], ["a"], ["b"], ["c"]]


def test_a_text_that_waits_with_others_waits_alone_once_it_must(room: Room) -> None:
    first = room.hold()
    shared = room.ask(["a", "b"], "bulk")
    alone = room.ask(["a"], "alone")
    room.let_go()
    for future in (first, alone, shared):
        future.result(WAIT_S)
    assert [texts for _, texts in room.embedder.batches] == [["first"], ["b"], ["a"]]


def test_a_late_answer_does_no_harm(stuck_room: StuckRoom) -> None:
    late = stuck_room.ask(["bad"], "bulk")
    with pytest.raises(ModelStalled):
        late.result(WAIT_S)
    stuck_room.let_go()
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            vectors, _ = stuck_room.batcher.embed(["bad"], "bulk")
            break
        except ModelStalled:
            time.sleep(0.01)
    np.testing.assert_allclose(vectors[0], vector_of("bad"))


def test_a_model_that_answers_in_time_is_not_given_up(stuck_room: StuckRoom) -> None:
    for number in range(30):
        time.sleep(0.03)
        stuck_room.batcher.embed([f"good {number}"], "bulk")
    assert stuck_room.stalls == []


def test_a_vector_that_is_not_finite_goes_to_nobody() -> None:
    embedder, batcher = make()
    embedder.encode = lambda texts, kind: np.full((len(texts), DIMENSION), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="not finite"):
        batcher.embed(["a"], "bulk")
    batcher.close()
