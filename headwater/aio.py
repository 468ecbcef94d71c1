"""Ask the index from asyncio: ``Index``, with answers to be awaited.

    from headwater import AsyncIndex

    async with AsyncIndex.open() as index:
        for hit in await index.search("how do I rotate the keys", limit=5):
            print(hit.score, hit.path, hit.start_line)

A running service is asked without threads: a question is one request, and giving the question up ends the request. An
index that this process holds is asked in threads: a question that is given up before its turn is never asked, one that
has begun is answered for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast

from headwater.errors import IndexUnavailable
from headwater.query import Engine, Index, running_service
from headwater.settings import Settings
from headwater.state import Service, find_layout

__all__ = ["AsyncIndex"]

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")

#: questions at once to an index of this process; its engine takes them one at a time, its model a few
_MOST_THREADS = 8


class _Asker(Protocol):
    """Puts a question, which is a function of an ``Index``."""

    async def ask(self, question: Callable[[Index], _Answer]) -> _Answer: ...

    async def close(self) -> None: ...


def _awaited(
    method: Callable[Concatenate[Index, _Asked], _Answer],
) -> Callable[Concatenate[AsyncIndex, _Asked], Coroutine[Any, Any, _Answer]]:
    """A method of ``Index`` as one of ``AsyncIndex``: of the same name, parameters and documentation."""

    @wraps(method)
    async def ask(self: AsyncIndex, /, *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        return await self._ask(lambda index: method(index, *args, **kwargs))

    return ask


class AsyncIndex:
    """The live index of one folder, for the tasks of one event loop: the methods of ``Index``, to be awaited.

    A task may be cancelled while it waits; other questions are not disturbed. Close it, or use it in an ``async with``.
    """

    def __init__(self, asker: _Asker) -> None:
        self._asker = asker
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    @classmethod
    def open(cls, settings: Settings | None = None, **flags: Any) -> _Opening:
        """As ``Index.open``, without holding up the event loop: enter it with ``async with``, or await it."""
        return _Opening(partial(_find, settings, flags))

    @classmethod
    def over(cls, index: Index) -> Self:
        """Over an index that is open. It is asked in threads, and closed with this one."""
        return cls(_Threads(index))

    search = _awaited(Index.search)
    context = _awaited(Index.context)
    similar = _awaited(Index.similar)
    similarity = _awaited(Index.similarity)
    near_duplicates = _awaited(Index.near_duplicates)

    @wraps(Index.prompt)
    async def prompt(self, question: str, max_tokens: int = 2000, **options: Any) -> str:
        return (await self.context(question, max_tokens, **options)).prompt

    async def _ask(self, question: Callable[[Index], _Answer]) -> _Answer:
        if self._is_closing:
            raise IndexUnavailable("this index is closed: open it anew")
        answer = asyncio.ensure_future(self._asker.ask(question))
        self._under_way.add(answer)
        answer.add_done_callback(self._under_way.discard)
        return await answer

    async def close(self) -> None:
        """Take no more questions, wait for those under way, and let the index go. Idempotent."""
        self._is_closing = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._asker.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


# -- opening ----------------------------------------------------------------------------------------------


class _Opening:
    """An index that is being opened: to be awaited, or entered with ``async with``."""

    def __init__(self, find: Callable[[], Index | Service]) -> None:
        self._find = find
        self._index: AsyncIndex | None = None

    async def _opened(self) -> AsyncIndex:
        thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-open")
        finding = thread.submit(self._find)
        thread.shutdown(wait=False)
        try:
            found = await asyncio.wrap_future(finding)
        except asyncio.CancelledError:
            finding.add_done_callback(_let_go)  # what the thread still opens would hold the index for nobody
            raise
        return AsyncIndex.over(found) if isinstance(found, Index) else AsyncIndex(_Requests(found.url))

    def __await__(self) -> Generator[Any, Any, AsyncIndex]:
        return self._opened().__await__()

    async def __aenter__(self) -> AsyncIndex:
        self._index = await self._opened()
        return self._index

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._index is not None
        await self._index.close()


def _find(settings: Settings | None, flags: dict[str, Any]) -> Index | Service:
    """The service that runs, else the index, open."""
    settings = settings or Settings.load(**flags)
    is_named = settings.state_dir or settings.folder
    layout = None if settings.qdrant_url and not is_named else find_layout(settings)
    service = None if layout is None else running_service(layout)
    return Index.open(settings) if service is None else service


def _let_go(finding: Future[Index | Service]) -> None:
    if not finding.cancelled() and finding.exception() is None and isinstance(found := finding.result(), Index):
        found.close()


# -- asking -----------------------------------------------------------------------------------------------


class _Threads:
    """Asks an index of this process, in threads of its own: no more questions at once, the others wait in line."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="headwater-ask")

    async def ask(self, question: Callable[[Index], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question, self._index)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.shutdown()  # waits for what nobody waits for any more, too
        self._index.close()


class _Requests:
    """Asks the running service."""

    def __init__(self, url: str) -> None:
        from headwater.aio_client import AsyncRemoteEngine

        self._engine = AsyncRemoteEngine(url)

    async def ask(self, question: Callable[[Index], _Answer]) -> _Answer:
        # an Index hands on what its engine answers: from this one, an answer that is still to come
        answer = question(Index(cast(Engine, self._engine)))
        return await cast(Coroutine[Any, Any, _Answer], answer)

    async def close(self) -> None:
        await self._engine.close()
