"""Discrete events: a clock, stations where jobs queue by priority, a device that serves batches, jobs as generators."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

__all__ = ["All", "BatchDevice", "Clock", "Job", "Place", "Station", "Visit", "start"]

Then = Callable[[], None]


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._events: list[tuple[float, int, Then]] = []

    def after(self, seconds: float, then: Then) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), then))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, then = heapq.heappop(self._events)
            then()
        self.now = until


class Place(Protocol):
    """Where a job can ask for service."""

    def ask(self, amount: float, urgent: bool, then: Then) -> None: ...


@dataclass
class Station:
    """So many servers, one queue, urgent jobs first; ``amount`` is seconds. With ``cores`` a server also needs one of
    those while it works: parts that share a machine."""

    clock: Clock
    servers: int
    cores: Station | None = None
    busy_s: float = 0.0
    _busy: int = 0
    _queue: list[tuple[bool, int, float, Then]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def ask(self, amount: float, urgent: bool, then: Then) -> None:
        heapq.heappush(self._queue, (not urgent, next(self._numbers), amount, then))
        self._go_on()

    def utilisation(self, seconds: float) -> float:
        return self.busy_s / (self.servers * seconds)

    def _go_on(self) -> None:
        while self._queue and self._busy < self.servers:
            self._busy += 1
            bulk, _, seconds, then = heapq.heappop(self._queue)
            done = partial(self._done, seconds, then)
            if self.cores is None:
                self.clock.after(seconds, done)
            else:
                self.cores.ask(seconds, not bulk, done)

    def _done(self, seconds: float, then: Then) -> None:
        self.busy_s += seconds
        self._busy -= 1
        self._go_on()
        then()


@dataclass
class BatchDevice:
    """A model on a device: texts of urgent jobs first, up to ``most`` in a pass, ``seconds(texts)`` for each pass;
    ``amount`` is texts, and a job is done when its last text is."""

    clock: Clock
    most: int
    seconds: Callable[[float], float]
    busy_s: float = 0.0
    passes: int = 0
    texts: float = 0.0
    _idle: bool = True
    _queue: list[tuple[bool, int, float, Then]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def ask(self, amount: float, urgent: bool, then: Then) -> None:
        heapq.heappush(self._queue, (not urgent, next(self._numbers), amount, then))
        if self._idle:
            self._idle = False
            self.clock.after(0.0, self._pass)

    def _pass(self) -> None:
        if not self._queue:
            self._idle = True
            return
        room, ended = float(self.most), list[Then]()
        while self._queue and room > 0:
            bulk, number, texts, then = heapq.heappop(self._queue)
            if texts > room:  # the rest stays where it was
                heapq.heappush(self._queue, (bulk, number, texts - room, then))
                room = 0
                break
            room -= texts
            ended.append(then)
        seconds = self.seconds(self.most - room)
        self.passes += 1
        self.texts += self.most - room
        self.busy_s += seconds
        self.clock.after(seconds, partial(self._done, ended))

    def _done(self, ended: list[Then]) -> None:
        self._pass()
        for then in ended:
            then()


@dataclass(frozen=True)
class Visit:
    """A job's next step."""

    place: Place
    amount: float
    urgent: bool = False


@dataclass(frozen=True)
class All:
    """Several visits at once; the job goes on when the last of them has ended."""

    visits: tuple[Visit, ...]


Job = Generator[Visit | All, None, None]


def start(job: Job) -> None:
    """Run a job from visit to visit."""
    step = next(job, None)
    if step is None:
        return
    visits = step.visits if isinstance(step, All) else (step,)
    left = len(visits)

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            start(job)

    for visit in visits:
        visit.place.ask(visit.amount, visit.urgent, ended)
