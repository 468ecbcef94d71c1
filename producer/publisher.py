"""Rings for what is due: at most one hint in flight per document, and a bounded window per lane."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from headwater import tracing
from headwater.document import document_id, in_collection
from headwater.errors import BrokerUnavailable
from headwater.failpoints import reach
from headwater.messages import (
    APPLY_TASK,
    CENSUS_TASK,
    LANES,
    CensusRequest,
    Hint,
    Item,
    Lane,
    Outcome,
    census_to_wire,
    queue_name,
)
from headwater.metrics import documents_hinted, hints_published
from producer.flights import Flight, Flights
from producer.front import Front
from producer.ledger import Due, Ledger
from producer.queues import Queues
from producer.suspects import Suspects

__all__ = ["Publisher", "blame"]

#: documents and bytes in one bulk hint: enough to share the cost of a message and of a flush
_HINT_DOCUMENTS = 64
_HINT_BYTES = 32 * 1024
#: live hints on their way at once
_LIVE_WINDOW = 64
#: up to so many live documents that are due have a hint of their own, so that none waits for another; a storm of more
#: shares messages and flushes like bulk work, still ahead of it
_LIVE_ALONE = 32
#: seconds between two looks at the workers, and after which a hint is lost that nobody has
_LOOK_S = 2.0
_UNCLAIMED_S = 4.0


def blame(ledger: Ledger, path: bytes, deaths: int) -> None:
    """A document at which the worker dies each time has had its tries."""
    reason = f"the worker died at {deaths} tries while it worked on this document"
    ledger.applied(Outcome(path, ledger.wanted_seq(path), "failed", reason=reason), 0)


@dataclass
class Publisher:
    """Keeps in memory what is on its way; a restart rings again for whatever the ledger says is due.

    ``bulk_window`` bounds the bulk hints on their way, so that live hints always find a free worker thread.
    """

    app: Celery
    queues: Queues
    #: where its queues are (``headwater.messages.namespace``)
    space: str
    bulk_window: int
    lease_s: float
    attempts: int
    #: name of the folder
    source: str = ""
    #: fingerprint of how workers are to read and cut
    pipeline: str = ""
    #: there may be several workers, each of which may come or go, or be cut off, at any time
    fleet: bool = False
    _flights: Flights = field(default_factory=Flights)
    _front: Front = field(default_factory=Front)
    _suspects: Suspects = field(default_factory=Suspects)
    #: hints for a worker that died still lie in the queues: all are rung for anew, and must not pile up there
    _purge: bool = False
    #: documents whose hints were given up; None: all that are due (those of a predecessor are not known)
    _given_up: set[bytes] | None = None
    _workers: float = 1.0
    _looked_at: float = 0.0
    #: hints were given up since this was asked last
    _lost: bool = False

    def ring(self, ledger: Ledger) -> None:
        """Publish hints for due documents while the windows have room. Raises BrokerUnavailable."""
        if self._purge:
            self.queues.purge()
            self._purge = False
        self._expire()
        if self.fleet:
            killer = self._look_after_fleet()
            self._renew(ledger)
            if killer is not None:
                with ledger.transaction():
                    blame(ledger, *killer)
        windows: dict[Lane, int] = {"live": _LIVE_WINDOW, "bulk": round(self.bulk_window * max(1.0, self._workers))}
        room = {lane: windows[lane] - self._flights.number(lane) for lane in LANES}
        if max(room.values()) <= 0:
            return
        if self._suspects and self._ring_for_one_suspect(ledger, room):
            return
        self._front.look(ledger, time.time(), time.monotonic())
        for lane in LANES:  # one whose window is full does not stand before the other
            if room[lane] > 0:
                self._ring_lane(ledger, lane, room[lane])

    def _ring_lane(self, ledger: Ledger, lane: Lane, room: int) -> None:
        """Publish as many hints of a lane as there is room for."""
        read: list[Due] = []
        for hint in islice(self._hints(self._ready(ledger, lane, read), lane), room):
            self._publish(hint)
        for due in read:
            if not self._flights.has(due.item.path, due.item.seq):
                break
            self._front.pass_by(lane, due)

    def _ring_for_one_suspect(self, ledger: Ledger, room: dict[Lane, int]) -> bool:
        """The first of the suspects that are due goes out when nothing else is on its way. False if none is due."""
        if self._flights:
            return True
        self._front.begin_anew()
        self._front.look(ledger, time.time(), time.monotonic())
        ready = {
            due.item.path: self._hint(items, lane)
            for lane in LANES
            for due, items in islice(self._ready(ledger, lane, []), (1 + max(0, room[lane])) * _HINT_DOCUMENTS)
        }
        self._suspects.drop_all_but(ready)
        suspect = next((path for path in ready if path in self._suspects), None)
        if suspect is None:
            return False
        self._suspects.send_alone(suspect)
        self._publish(ready[suspect])
        return True

    def worker_died(self) -> tuple[bytes, int] | None:
        """Another worker has taken the place of the only one. Returns the document that killed it for the last time,
        if that is clear, and how many deaths it saw."""
        killer = self._suspects.worker_died(self._flights.paths, self.attempts)
        self._purge = True
        self.forget_all()
        return killer

    def ask_for_census(self, name: str, sweep: Sequence[int], *, brief: bool = False) -> None:
        """Ask any worker to sweep these seqs and to count. Raises BrokerUnavailable."""
        request = CensusRequest(name, tuple(sweep), self.source, brief)
        self._send(CENSUS_TASK, census_to_wire(request), "live")

    def landed(self, path: bytes) -> None:
        """An outcome for this document came: it may be rung for again."""
        self._flights.land(path)
        self._front.landed(path)
        self._suspects.landed(path)

    @property
    def workers(self) -> float:
        """Workers that take hints of this folder, as they were counted last."""
        return self._workers

    @property
    def on_their_way(self) -> bool:
        """Whether any hint is out without an outcome."""
        return bool(self._flights)

    def hints_waiting(self) -> int:
        """Messages in the queues that no worker has taken. Raises BrokerUnavailable."""
        return self.queues.waiting("live") + self.queues.waiting("bulk")

    def forget_all(self) -> None:
        """Whatever was on its way may be lost (a worker or the broker started anew)."""
        for lane in LANES:
            for flight in self._flights.of_lane(lane):
                self._give_up(flight)
        self._front.begin_anew()

    def lost_hints(self) -> bool:
        """Whether hints were given up since the last call, for which a worker that was cut off may yet write."""
        lost, self._lost = self._lost, False
        return lost

    def _give_up(self, flight: Flight) -> list[bytes]:
        """Ring again for what a hint had left; its documents."""
        paths = self._flights.drop(flight)
        self._front.begin_anew()
        self._lost = self.fleet
        if self._given_up is not None:
            self._given_up.update(paths)
        return paths

    def _renew(self, ledger: Ledger) -> None:
        """A hint that was given up may still be worked on, by a worker that was cut off: what is rung for again gets a
        seq above that worker's."""
        if self._given_up is None or self._given_up:
            with ledger.transaction():
                ledger.renew(self._given_up)
            self._given_up = set()

    def _look_after_fleet(self) -> tuple[bytes, int] | None:
        """Count the workers, and give up hints that lie in no queue and that no worker has in hand: they went with a
        worker, or between queue and worker. Returns what ``worker_died`` does."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return None
        self._looked_at = now
        self._workers = self.queues.workers()
        flights = [flight for lane in LANES if not self.queues.waiting(lane) for flight in self._flights.of_lane(lane)]
        dropped: list[bytes] = []
        for flight, claimed in zip(flights, self.queues.claimed(map(self._ids, flights)), strict=True):
            if claimed:
                flight.unclaimed_since, flight.claimed = None, True
            elif flight.unclaimed_since is None:
                flight.unclaimed_since = now
            elif now - flight.unclaimed_since >= _UNCLAIMED_S:
                group = self._give_up(flight)
                dropped += group if flight.claimed else []
        return self._suspects.worker_died(dropped, self.attempts) if dropped else None

    def _ids(self, flight: Flight) -> list[str]:
        return flight.ids(lambda path: document_id(in_collection(path, self.source)))

    def _expire(self) -> None:
        """A hint whose time is over is rung for again, unless it may still lie in its queue: while no worker takes any,
        more of them would only pile up there."""
        now = time.monotonic()
        overdue = self._flights.overdue(now)
        stuck = {lane for lane in {flight.lane for flight in overdue} if self.queues.waiting(lane)}
        for flight in overdue:
            if flight.lane in stuck:
                self._flights.put_off(flight, now + self.lease_s)
            else:
                self._give_up(flight)

    def _ready(self, ledger: Ledger, lane: Lane, read: list[Due]) -> Iterator[tuple[Due, tuple[Item, ...]]]:
        """Due documents of a lane that are not on their way, each with all items that must go in one hint. All that are
        looked at are added to ``read``."""
        for due in self._front.read(ledger, lane, self.attempts):
            read.append(due)
            if items := self._items(ledger, due):
                yield due, items

    def _items(self, ledger: Ledger, due: Due) -> tuple[Item, ...]:
        """A rename's two halves travel together; the old half never alone while the new one is due."""
        if due.item.path in self._flights:
            return ()
        if due.item.operation == "delete" and ledger.is_held_back(due.item.path):
            return ()
        old = None if due.moved_from is None else ledger.due_deletion(due.moved_from)
        items = (due.item,) if old is None else (due.item, old)
        return () if old is not None and old.path in self._flights else items

    def _hints(self, ready: Iterator[tuple[Due, tuple[Item, ...]]], lane: Lane) -> Iterator[Hint]:
        """A few live documents one by one, all others in groups."""
        few = list(islice(ready, _LIVE_ALONE + 1)) if lane == "live" else []
        if few and len(few) <= _LIVE_ALONE:
            yield from (self._hint(items, lane) for _, items in few)
            return
        group: list[Item] = []
        size = 0
        for due, items in chain(few, ready):
            if group and (len(group) + len(items) > _HINT_DOCUMENTS or size + due.size > _HINT_BYTES):
                yield self._hint(group, lane)
                group, size = [], 0
            group += items
            size += due.size
        if group:
            yield self._hint(group, lane)

    def _hint(self, items: Iterable[Item], lane: Lane) -> Hint:
        return Hint(tuple(items), lane, self.source, self.pipeline)

    def _publish(self, hint: Hint) -> None:
        deadline = time.monotonic() + self.lease_s
        with tracing.published(hint) as headers:
            self._send(APPLY_TASK, hint.to_wire(), hint.lane, headers, shown=f"{len(hint.items)} documents")
        hints_published.labels(hint.lane).inc()
        documents_hinted.labels(hint.lane).inc(len(hint.items))
        reach("producer:published")
        self._flights.add(hint.lane, hint.items, deadline)

    def _send(
        self, task: str, wire: dict[str, Any], lane: Lane, headers: dict[str, str] | None = None, *, shown: str = ""
    ) -> None:
        """``shown`` is what monitors of Celery see of it, in place of a copy of all paths."""
        name = queue_name(self.space, lane)
        try:
            self.app.send_task(task, args=[wire], queue=name, retry=False, headers=headers, argsrepr=shown)
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(f"the broker {self._where()} does not answer ({error})") from error

    def _where(self) -> str:
        return str(self.app.connection().as_uri())
