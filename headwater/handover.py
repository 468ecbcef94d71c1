"""While ``up`` runs: when another generation of the index becomes the current one, its parts are started beside those
that run, catch up with the folder, and take over the API; only then do the old ones end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headwater.errors import HeadwaterError
from headwater.failpoints import reach
from headwater.following import Adopting, drop_left
from headwater.generations import serve
from headwater.settings import Settings
from headwater.state import Layout, Pointer, Service, Troubles
from headwater.supervisor import Supervisor

__all__ = ["Handover"]

log = logging.getLogger(__name__)

#: seconds between two looks at the pointer
_LOOK_S = 0.2
#: seconds until a move that could not be made is tried again
_PAUSE_S = 30.0
#: seconds between two looks for generations that nobody needs any more
_DROP_S = 60.0


@dataclass
class Handover:
    """``tick`` is called often. ``prepare`` gives the settings of a generation; ``follow`` begins to follow how far its
    producer is, and gives whether it has caught up; ``on_move`` is told when a generation has taken over."""

    supervisor: Supervisor
    prepare: Callable[[Layout], Settings]
    follow: Callable[[Layout], Callable[[], bool]]
    on_move: Callable[[Layout], None]
    keep_s: float
    #: notes what the server says is the current one
    adopting: Adopting | None = None
    _next: Supervisor | None = None
    _caught_up: Callable[[], bool] = lambda: False
    _called: bool = False
    _look_at: float = 0.0
    _drop_at: float = field(default_factory=lambda: time.monotonic() + _DROP_S)
    _ending: list[threading.Thread] = field(default_factory=list)

    def tick(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        try:
            self._move()
        except HeadwaterError as error:
            self._give_up(error)
        if now >= self._drop_at:
            self._drop_at = now + _DROP_S
            self._drop()

    def stop(self) -> None:
        """End what is neither the supervisor's yet nor any more."""
        if self.adopting is not None:
            self.adopting.stop()
        if self._next is not None:
            self._next.stop()
            self._next = None
        for thread in self._ending:
            thread.join()

    def _move(self) -> None:
        pointer = Pointer.read(self.supervisor.layout)
        if self._next is not None:
            self._next.revive()
            if self._called:
                self._promote_if_heard(self._next)
            elif pointer.generation != self._next.layout.generation:
                self._next.stop()  # the pointer has moved on, or back
                self._next = None
            elif pointer.at_once or self._caught_up():
                reach("up:caught-up")
                serve(self._next.layout)
                self._called = True
                reach("up:called")
        elif pointer.generation != self.supervisor.layout.generation and not self._is_ending():
            self._prepare(pointer.layout(self.supervisor.layout.root))

    def _prepare(self, layout: Layout) -> None:
        settings = self.prepare(layout.create())
        self._caught_up = self.follow(layout)
        active = self.supervisor
        self._next = Supervisor(settings, layout, False, active.on_tick, active.on_drain, listener=active.listener)
        self._called = False
        self._next.start()
        reach("up:beside")

    def _promote_if_heard(self, following: Supervisor) -> None:
        service = Service.read(following.layout)
        if service is None or service.pid != following.pid("worker"):
            return
        reach("up:answering")
        ours = self.supervisor.adopt(following)
        self._next = None
        thread = threading.Thread(target=ours.stop, name="ending", daemon=True)
        thread.start()
        self._ending.append(thread)
        self.on_move(following.layout)

    def _is_ending(self) -> bool:
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        return bool(self._ending)

    def _give_up(self, error: HeadwaterError) -> None:
        """The generation that answers goes on, and its status says why it still does."""
        sentence = f"the index cannot be moved, and the one before it answers: {error}"
        log.warning("%s", sentence)
        if self._next is not None:
            self._next.stop()
            self._next = None
            serve(self.supervisor.layout)
        Troubles((sentence,)).write(self.supervisor.layout)
        self._look_at = time.monotonic() + _PAUSE_S

    def _drop(self) -> None:
        try:
            drop_left(self.supervisor.settings, self.supervisor.layout.root, self.keep_s)
        except HeadwaterError as error:
            log.warning("old generations are kept for now: %s", error)
