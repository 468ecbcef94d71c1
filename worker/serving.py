"""When and where this worker answers questions: at once and on a port of its own, or by turns on its supervisor's."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from headwater.api import ApiServer
from headwater.errors import SettingsError
from headwater.generations import serving
from headwater.listening import inherited
from headwater.local import LocalEngine
from headwater.settings import Settings
from headwater.standin import dismiss
from headwater.state import Layout, Service, find_layout

__all__ = ["ApiPlace", "ListenLater", "Serving"]

#: seconds between two looks at whose turn it is
_LOOK_S = 0.05
#: seconds between two tries to listen on a port that is taken
_TRY_S = 0.5


@dataclass(frozen=True, slots=True)
class ApiPlace:
    """``descriptor`` of the supervisor's listening socket, if it has one. ``private``: for whoever started us, not for
    those who look for the service of the state directory. ``own``: the socket is that of this command, which keeps it
    when it begins anew. Neither of these two is by turns."""

    descriptor: int | None = None
    private: bool = False
    own: bool = False
    #: the process that answers there until this one does
    stand_in: int | None = None

    @classmethod
    def own_from(cls, text: str) -> ApiPlace:
        """From "DESCRIPTOR" or "DESCRIPTOR:STAND_IN"."""
        descriptor, _, pid = text.partition(":")
        return cls(int(descriptor), own=True, stand_in=int(pid) if pid else None)

    @property
    def by_turns(self) -> bool:
        return self.descriptor is not None and not (self.private or self.own)

    def has_turn(self, settings: Settings) -> bool:
        """Whether a worker with these settings is to answer now."""
        if not self.by_turns:
            return True
        layout = find_layout(settings)
        return serving(layout) in (layout.generation, None)


class ListenLater(threading.Thread):
    """Takes a port as soon as the worker that has it ends. ``listen`` returns what lets go of it."""

    def __init__(self, listen: Callable[[], Callable[[], None]]) -> None:
        super().__init__(name="metrics", daemon=True)
        self._listen = listen
        self._ended = threading.Event()
        self._end: Callable[[], None] = lambda: None

    def run(self) -> None:
        while not self._ended.wait(_TRY_S):
            with contextlib.suppress(SettingsError):  # it is still taken
                self._end = self._listen()
                return

    def close(self) -> None:
        self._ended.set()
        self.join()
        self._end()


class Serving:
    """The API of this worker. On a socket of one's own it begins at once, and questions wait for the model; on an
    inherited one, which workers of two generations share while the index moves from one to the other, a worker begins
    when its turn comes, later than its start only with its model loaded, and ends when the other has begun."""

    def __init__(
        self, settings: Settings, layout: Layout, place: ApiPlace, app: ASGIApp, engine: Future[LocalEngine]
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._place = place
        self._app = app
        self._engine = engine
        self._server: ApiServer | None = None
        self._service: Service | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises SettingsError if the port is taken."""
        if self._place.stand_in is not None:
            self._run(partial(self._relieve, self._place.stand_in))
            return
        if self._is_ours():
            self._begin()
        if self._place.by_turns:
            self._run(self._take_turns)

    def _run(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name="serving", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is being answered, and end."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._finish()

    @property
    def _note(self) -> Path:
        return self._layout.private_service if self._place.private else self._layout.service

    def _is_ours(self) -> bool:
        return self._place.has_turn(self._settings)

    def _relieve(self, stand_in: int) -> None:
        while not self._ended.wait(_LOOK_S):
            if self._engine.done():
                self._begin()
                break
        dismiss(stand_in)

    def _take_turns(self) -> None:
        while not self._ended.wait(_LOOK_S):
            if self._is_ours():
                if self._server is None and self._engine.done():
                    self._begin()
            elif self._server is not None and Service.read(self._layout) not in (self._service, None):
                self._finish()

    def _begin(self) -> None:
        listener = None if self._place.descriptor is None else inherited(self._place.descriptor)
        self._server = ApiServer(self._settings, listener)
        self._server.start(self._app)
        self._service = Service(self._server.url, os.getpid(), self._layout.generation)
        self._service.write_to(self._note)

    def _finish(self) -> None:
        if self._server is not None and self._service is not None:
            self._service.withdraw(self._note)
            self._server.stop()
            self._server = None
