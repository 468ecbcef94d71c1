"""``AsyncIndex`` answers as ``Index`` does: over an index of this process, and over a running service."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from driver import wait_until
from shelf import DOCUMENTS, Shelf, example, made_shelf, served

from headwater import AsyncIndex, Hit, Index, Settings
from headwater.aio import _MOST_THREADS
from headwater.errors import IndexUnavailable, ModelError, QueryError, ServiceUnavailable
from headwater.local import LocalEngine

Opened = Callable[[], AbstractAsyncContextManager[AsyncIndex]]
Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return made_shelf(tmp_path_factory.mktemp("async"))


@pytest.fixture(scope="module")
def engine(shelf: Shelf) -> Iterator[LocalEngine]:
    made = shelf.engine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def index(engine: LocalEngine) -> Index:
    """What the answers must be equal to."""
    return Index(engine)


@pytest.fixture(scope="module")
def service(engine: LocalEngine, shelf: Shelf) -> Iterator[str]:
    with served(engine, shelf.layout) as url:
        yield url


class Kept:
    """An engine that outlives the index over it: the module's tests share it."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.closed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(params=["threads", "service"])
def opened(request: pytest.FixtureRequest, engine: LocalEngine, shelf: Shelf) -> Opened:
    """Opens an AsyncIndex in one of both ways."""
    if request.param == "service":
        request.getfixturevalue("service")
        return lambda: AsyncIndex.open(shelf.settings)

    @asynccontextmanager
    async def over() -> AsyncIterator[AsyncIndex]:
        async with AsyncIndex.over(Index(Kept(engine))) as made:
            yield made

    return over


def asked(opened: Opened, question: Callable[[AsyncIndex], Awaitable[Answer]]) -> Answer:
    """The answer to one question, in an event loop of its own."""

    async def ask() -> Answer:
        async with opened() as made:
            return await question(made)

    return asyncio.run(ask())


def threads(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(name)]


def level(hits: list[Hit]) -> list[Hit]:
    """Best first, and those that are equally good by their place: engines give them in any order."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.path, hit.chunk))


# -- the same answers ---------------------------------------------------------------------------------------


def test_every_method_of_an_index_can_be_awaited_and_is_described_alike() -> None:
    public = {name for name, _ in inspect.getmembers(Index, inspect.isfunction) if not name.startswith("_")}
    for name in public - {"close", "ask"}:  # an answer of a language model is a stream, not one value
        method, awaited = getattr(Index, name), getattr(AsyncIndex, name)
        assert inspect.iscoroutinefunction(awaited)
        assert inspect.signature(awaited) == inspect.signature(method)
        assert awaited.__doc__ == method.__doc__


@pytest.mark.parametrize(
    "question",
    [
        {"text": "which bird waits for fish"},
        {"text": "heron", "mode": "sparse", "limit": 2},
        {"text": "heron", "mode": "dense", "limit": 2, "offset": 1},
        {"text": "fish", "where": "lang:de"},
        {"text": "fish", "filters": {"extension": ["txt"]}, "path_glob": "copy/"},
        {"text": "dough and bread", "mode": "dense", "group_by": "document", "rerank": False},
        {"text": "a star that burns helium", "mode": "dense", "diversity": 0.7, "limit": 3},
        {"text": "heron", "wait_for": "birds/heron.md", "timeout": 1.0},
    ],
)
def test_a_search_gives_what_the_index_gives(opened: Opened, index: Index, question: dict[str, Any]) -> None:
    expected = index.search(**question)
    answer = asked(opened, lambda made: made.search(**question))
    assert level(answer) == level(expected) != []
    assert answer.freshness == expected.freshness


def test_a_context_and_its_prompt_are_what_the_index_gives(opened: Opened, index: Index) -> None:
    asked_for: dict[str, Any] = {"question": "which bird waits for fish", "max_tokens": 300, "where": "lang:en"}
    expected = index.context(**asked_for, mode="dense")
    assert asked(opened, lambda made: made.context(**asked_for, mode="dense")) == expected
    assert asked(opened, lambda made: made.prompt(**asked_for, mode="dense")) == expected.prompt
    assert DOCUMENTS["birds/heron.md"][1][0] in expected.prompt


def test_similarities_and_duplicates_are_what_the_index_gives(opened: Opened, index: Index) -> None:
    similar = asked(opened, lambda made: made.similar("birds/heron.md", 2))
    assert similar == index.similar("birds/heron.md", 2) != []
    assert asked(opened, lambda made: made.similar(text="stars")) == index.similar(text="stars")
    both = ("a cat", "a kitten")
    assert asked(opened, lambda made: made.similarity(*both)) == pytest.approx(index.similarity(*both), abs=1e-6)
    assert asked(opened, lambda made: made.near_duplicates(0.9)) == index.near_duplicates(0.9) != []


def test_many_questions_at_once_get_each_its_own_answer(opened: Opened, index: Index) -> None:
    texts = [f"{word} {number}" for number in range(25) for word in ("heron", "bread", "helium", "Wasser")]

    async def all_of_them() -> list[Any]:
        async with opened() as made:
            return await asyncio.gather(*(made.search(text, 3, "dense") for text in texts))

    assert asyncio.run(all_of_them()) == [index.search(text, 3, "dense") for text in texts]


# -- errors -------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_index(opened: Opened) -> None:
    with pytest.raises(QueryError, match="there is no filter 'colour'"):
        asked(opened, lambda made: made.search("x", where="colour:red"))
    with pytest.raises(QueryError, match="the limit is 0"):
        asked(opened, lambda made: made.search("x", 0))
    with pytest.raises(QueryError, match="no document 'nowhere'"):
        asked(opened, lambda made: made.similar("nowhere"))
    with pytest.raises(ServiceUnavailable, match=r"after 0\.05 s the index is without birds"):
        asked(opened, lambda made: made.search("x", wait_for="birds", timeout=0.05))


def test_what_cannot_be_opened_is_said_when_it_is_awaited(tmp_path: Path) -> None:
    async def enter() -> None:
        async with AsyncIndex.open(state_dir=tmp_path):
            raise AssertionError("there is no index")

    async def wait() -> None:
        await AsyncIndex.open(state_dir=tmp_path)

    for way in (enter, wait):
        with pytest.raises(IndexUnavailable, match="there is no index in"):
            asyncio.run(way())


def test_a_service_that_ended_is_one_sentence_and_does_no_harm(engine: LocalEngine, tmp_path: Path) -> None:
    layout = Shelf(Settings.load(state_dir=tmp_path)).layout

    async def ask() -> None:
        with served(engine, layout):
            index = await AsyncIndex.open(state_dir=tmp_path)
            assert await index.search("heron")
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await index.search("heron")
        await index.close()

    asyncio.run(ask())


# -- cancelling and closing ---------------------------------------------------------------------------------

#: a file that is never indexed: a question that waits for it takes as long as it likes
NEVER = "birds/never.md"


@pytest.fixture
def never(shelf: Shelf) -> Iterator[None]:
    assert shelf.settings.folder is not None
    path = shelf.settings.folder / NEVER
    path.write_text("x")
    yield
    path.unlink()


@pytest.mark.usefixtures("never")
def test_a_question_that_is_given_up_disturbs_no_other(opened: Opened, index: Index) -> None:
    async def give_up() -> list[Any]:
        async with opened() as made:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await made.search("x", wait_for=NEVER, timeout=1.0)
                waiting = [asyncio.create_task(made.search("x", wait_for=NEVER, timeout=0.3)) for _ in range(20)]
                await asyncio.sleep(0.05)
                for task in waiting[::2]:
                    task.cancel()
                answer = await made.search("heron", 3, "dense")
                ends = await asyncio.gather(*waiting, return_exceptions=True)
                assert {type(end) for end in ends[::2]} == {asyncio.CancelledError}
                assert {type(end) for end in ends[1::2]} == {ServiceUnavailable}
            return answer

    assert asyncio.run(give_up()) == index.search("heron", 3, "dense")


@pytest.mark.usefixtures("never")
def test_closing_waits_for_what_is_under_way_and_takes_no_more(opened: Opened) -> None:
    async def close() -> None:
        async with opened() as made:
            task = asyncio.create_task(made.search("x", wait_for=NEVER, timeout=0.4))
            await asyncio.sleep(0.1)
            closing = asyncio.create_task(made.close())
            await asyncio.sleep(0)
            assert not task.done()
            with pytest.raises(IndexUnavailable, match="this index is closed"):
                await made.search("heron")
            await closing
            assert task.done()
            with pytest.raises(ServiceUnavailable):
                await task
            await made.close()
            with pytest.raises(IndexUnavailable, match="this index is closed"):
                await made.similarity("a", "b")

    asyncio.run(close())


@pytest.mark.usefixtures("never")
def test_an_index_of_this_process_is_closed_after_its_last_thread(engine: LocalEngine) -> None:
    kept = Kept(engine)

    async def close() -> float:
        index = AsyncIndex.over(Index(kept))
        task = asyncio.create_task(index.search("x", wait_for=NEVER, timeout=0.4))
        await asyncio.sleep(0.05)
        task.cancel()
        began = time.monotonic()
        await index.close()
        return time.monotonic() - began

    # the task is gone at once, its thread still uses the engine
    assert asyncio.run(close()) > 0.2
    assert kept.closed == 1


@pytest.mark.usefixtures("never")
def test_an_index_of_this_process_is_asked_by_so_many_threads_at_most(engine: LocalEngine) -> None:
    async def crowd() -> int:
        async with AsyncIndex.over(Index(Kept(engine))) as index:
            waits = [index.search("x", wait_for=NEVER, timeout=0.1) for _ in range(4 * _MOST_THREADS)]
            crowd = asyncio.gather(*waits, return_exceptions=True)
            await asyncio.sleep(0.15)
            most = len(threads("headwater-ask"))
            assert {type(end) for end in await crowd} == {ServiceUnavailable}
            return most

    assert asyncio.run(crowd()) == _MOST_THREADS


# -- opening ------------------------------------------------------------------------------------------------


@pytest.fixture
def own_shelf(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> Shelf:
    """A copy whose index nobody holds."""
    return shelf.copied(tmp_path)


def test_without_a_service_the_index_is_opened_here_and_let_go(own_shelf: Shelf, index: Index) -> None:
    async def ask() -> list[Any]:
        async with AsyncIndex.open(own_shelf.settings) as made:
            return await made.search("heron", 3, "dense")

    assert asyncio.run(ask()) == index.search("heron", 3, "dense")
    Index.open(own_shelf.settings).close()


def test_an_opening_that_is_given_up_does_not_hold_the_index(own_shelf: Shelf) -> None:
    async def give_up(after_s: float) -> None:
        opening = asyncio.ensure_future(AsyncIndex.open(own_shelf.settings).__aenter__())
        await asyncio.sleep(0)  # the thread that opens begins
        time.sleep(after_s)  # the loop stands still: what is opened meanwhile does not get here
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    for after_s in (0.0, 0.02, 0.5):
        asyncio.run(give_up(after_s))
        wait_until(lambda: not threads("headwater-open"), "the thread that still opens has ended")
        Index.open(own_shelf.settings).close()


def test_the_example_of_the_documentation_runs(
    service: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(shelf.settings.state_dir))
    exec(compile(example("integrations.md", "AsyncIndex"), "integrations.md", "exec"), {"__name__": "example"})
    assert "birds/heron.md:" in capsys.readouterr().out


# -- the model -------------------------------------------------------------------------------------------------


def test_a_search_by_words_needs_no_model_and_one_by_meaning_names_what_is_missing(
    shelf: Shelf, tmp_path: Path
) -> None:
    own = shelf.copied(tmp_path)
    with Index.open(own.settings.model_copy(update={"model": "/nowhere/no-model"})) as index:
        assert index.search("helium", mode="sparse")[0].path in ("stars.txt", "copy/stars.txt")
        for _ in range(2):
            with pytest.raises(ModelError, match=r"no-model.* cannot be loaded"):
                index.search("helium")
        assert index.similar(path="stars.txt")[0].path == "copy/stars.txt"
