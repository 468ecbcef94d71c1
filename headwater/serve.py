"""``headwater serve``: the query API alone, in a process that writes nothing.

It follows the current generation of the index: the other one's model is loaded beside the one that answers, and each
question is answered from beginning to end by one index with its own model.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

from prometheus_client.registry import Collector

from headwater.api import ApiServer, make_api
from headwater.errors import HeadwaterError, IndexUnavailable
from headwater.following import Follow, at_server
from headwater.index import VectorIndex, open_index
from headwater.listening import inherited
from headwater.local import LocalEngine, Progress
from headwater.metrics import PROCESS, QUERY, IndexPoints, join, listen
from headwater.settings import Settings
from headwater.state import Service, find_layout, noted_folder

if TYPE_CHECKING:
    from headwater.index_server import ServerIndex

__all__ = ["Answering", "serve_index"]

log = logging.getLogger(__name__)

#: seconds that an index which was left is kept open for questions under way
_LINGER_S = 130.0
#: seconds between two looks for an index that is not there yet
_LOOK_S = 2.0


def serve_index(
    settings: Settings,
    status: Callable[[Mapping[str, str]], dict[str, Any]],
    progress: Progress,
    *,
    on_url: Callable[[str], object],
    ended: threading.Event,
    numbers: Collector,
    again: Callable[[], Settings] | None = None,
    descriptor: int | None = None,
) -> None:
    """Answer until ``ended`` is set. ``status`` takes what is wrong here, a sentence by part. ``again`` gives the
    settings anew when the index has moved; None: it is not followed. ``descriptor``: of the socket of a worker for
    which this one stands in, and of which it does not tell.

    As long as an index on a server cannot be had (no worker has made it, or Qdrant does not answer), each question gets
    status 503 with the reason. Raises HeadwaterError if it never can be, or the model cannot."""
    layout = find_layout(settings).create()
    server = ApiServer(settings, None if descriptor is None else inherited(descriptor))
    answering = Answering(progress)
    begun = answering.begin(settings, again)
    if not begun and descriptor is not None:
        answering.result()  # whoever cannot answer does not stand in
    told = join(QUERY, PROCESS, IndexPoints(lambda: answering.index.count()), numbers)
    end_metrics = listen(settings, told)
    api = make_api(
        cast("Future[LocalEngine]", answering),  # what of a future is asked for, it has
        status=lambda: status(answering.troubles()),
        flush=lambda: answering.index.checkpoint(),
        token=layout.read_token(),
        allowed_hosts=settings.allowed_hosts,
        index=cast(VectorIndex, _Current(answering)),  # all of it, by delegation
        numbers=told,
    )
    server.start(api)
    service = Service(server.url, os.getpid())
    if descriptor is None:
        service.write(layout)
    on_url(server.url)
    try:
        while not begun and not ended.wait(_LOOK_S):
            begun = answering.begin(settings if again is None else again(), again)
        ended.wait()
    finally:
        service.withdraw(layout.service)
        server.stop()
        end_metrics()
        answering.close()


class Answering:
    """The index and its model that answer now, always both of one generation: what the API asks of a future."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._now: tuple[LocalEngine, VectorIndex] | None = None
        self._settings: Settings | None = None
        self._left: list[LocalEngine] = []
        #: why there is none yet
        self._reason = "the index is being opened"

    def begin(self, settings: Settings, again: Callable[[], Settings] | None) -> bool:
        """Take the index if it can be had now. Raises HeadwaterError if it will not be had by waiting."""
        try:
            self.take(at_server(settings))
        except IndexUnavailable as error:
            if settings.qdrant_url is None:
                raise
            if str(error) != self._reason:
                log.warning("nothing is answered yet: %s", error)
            self._reason = str(error)
            return False
        if again is not None:
            self.follow(again)
        return True

    @property
    def index(self) -> VectorIndex:
        return self._taken()[1]

    def result(self, timeout: float | None = None) -> LocalEngine:
        """Raises IndexUnavailable while there is none."""
        return self._taken()[0]

    def _taken(self) -> tuple[LocalEngine, VectorIndex]:
        if self._now is None:
            raise IndexUnavailable(self._reason)
        return self._now

    def troubles(self) -> dict[str, str]:
        """What is wrong, by part: whether the index answers now."""
        try:
            index = self._taken()[1]
            if self._settings is not None and self._settings.qdrant_url is not None:
                cast("ServerIndex", index).ping()
        except IndexUnavailable as error:
            return {"qdrant": str(error)}
        return {}

    def done(self) -> bool:
        return self._now is not None

    def exception(self) -> None:
        """None: it is only ever replaced by one that works."""

    def take(self, settings: Settings) -> None:
        """Answer from this index from now on. Raises HeadwaterError, and then the other one goes on."""
        layout = find_layout(settings)
        index = open_index(settings, layout)
        seen = settings.model_copy(update={"folder": settings.folder or noted_folder(layout)})
        try:
            engine = LocalEngine.open(index, seen, self._progress, at_once=True)
        except HeadwaterError:
            index.close()
            raise
        before, self._now = self._now, (engine, index)
        self._settings = settings
        if before is not None:
            self._leave(before[0])

    def follow(self, again: Callable[[], Settings]) -> None:
        """Take the current generation whenever it is another one."""
        assert self._settings is not None, "an index was taken"
        Follow.at(self._settings, lambda: self._move(again)).start()

    def _move(self, again: Callable[[], Settings]) -> None:
        try:
            self.take(at_server(again()))
            log.info("generation %d of the index answers from now on", self.result().freshness().generation)
        except HeadwaterError as error:
            log.warning("the index has moved, and the one before it answers until that can be followed: %s", error)
        self.follow(again)

    def _leave(self, engine: LocalEngine) -> None:
        self._left.append(engine)
        timer = threading.Timer(_LINGER_S, engine.close)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        for engine in self._left:
            engine.close()
        if self._now is not None:
            self._now[0].close()


class _Current:
    """The index that answers now, whichever it is."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answering.index, name)
