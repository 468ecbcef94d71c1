"""Reads what workers report: events from a Redis stream, in batches, each exactly as often as it was sent."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import redis

from headwater.errors import MessageError
from headwater.messages import EVENT_FIELD, Embedded, Event, event_from_wire

__all__ = ["BrokerBack", "Reader", "ReaderDied", "Reported"]

log = logging.getLogger(__name__)

#: how long one read waits for events; below the client's socket time-out
_BLOCK_MS = 2000
_BATCH = 512
#: counts of texts wait so long for an outcome to come with them: each batch is a transaction of the ledger
_HOLD_MS = 250
#: seconds between two trims of the stream
_TRIM_S = 1.0
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Reported:
    """A batch of events; ``last_id`` is the stream id to note in the same transaction as their effects."""

    events: tuple[Event, ...]
    last_id: str


@dataclass(frozen=True, slots=True)
class BrokerBack:
    """The broker answers again after it did not: hints and events may be lost."""


@dataclass(frozen=True, slots=True)
class ReaderDied:
    """The thread has ended by an error that it does not know: the service must not go on half deaf."""

    error: BaseException


class Reader(threading.Thread):
    """A thread that hands each batch to ``deliver``.

    Its client must not try again by itself: a broker that was away for a moment may be back without what it held.
    """

    def __init__(
        self, client: redis.Redis, key: str, last_id: str, deliver: Callable[[Reported | BrokerBack | ReaderDied], None]
    ) -> None:
        super().__init__(name="outcomes", daemon=True)
        self._client = client
        self._key = key
        self._last_id = last_id
        self._deliver = deliver
        self._stopping = threading.Event()
        #: read and not handed out yet
        self._held: list[Event] = []
        self._hold_until = 0.0
        self._noted: str | None = None
        self._trim_at = 0.0
        #: what the broker does not let us, if anything
        self.trouble: str | None = None

    def stop(self) -> None:
        self._stopping.set()

    def acknowledge(self, last_id: str) -> None:
        """What is noted may be dropped from the stream, which the thread does by and by."""
        self._noted = last_id

    def run(self) -> None:
        try:
            self._follow()
        except BaseException as error:
            self._deliver(ReaderDied(error))
            raise

    def _follow(self) -> None:
        failures = 1  # the first answer counts as "back": the stream may be a new one
        while not self._stopping.is_set():
            try:
                if failures:
                    self._check_stream()
                    self._deliver(BrokerBack())  # before the wait for events: what is rung meanwhile is not lost
                    failures = 0
                self._trim()
                self._read()
                self.trouble = None
            except (redis.RedisError, OSError) as error:
                self._hand_out()
                refused = isinstance(error, redis.exceptions.NoPermissionError)
                self.trouble = f"the broker does not let us hear of outcomes ({error})" if refused else None
                log.info("the broker does not answer: %s", error)
                time.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1
                continue
            counts_only = all(isinstance(event, Embedded) for event in self._held)
            if not counts_only or time.monotonic() >= self._hold_until:
                self._hand_out()

    def _check_stream(self) -> None:
        """A stream that ends before the id we know is another stream: begin at its start."""
        self._client.ping()
        info = self._client.xinfo_stream(self._key) if self._client.exists(self._key) else None
        newest = "0-0" if info is None else info["last-generated-id"].decode()
        if _order(newest) < _order(self._last_id):
            self._last_id = "0-0"

    def _trim(self) -> None:
        noted, now = self._noted, time.monotonic()
        if noted is None or now < self._trim_at:
            return
        if _order(noted) <= _order(self._last_id):  # else it is an id of another stream than this one
            self._client.xtrim(self._key, minid=noted, approximate=False)
        self._trim_at = now + _TRIM_S
        if self._noted == noted:
            self._noted = None

    def _hand_out(self) -> None:
        if self._held:
            self._deliver(Reported(tuple(self._held), self._last_id))
            self._held = []

    def _read(self) -> None:
        """Wait for events; shorter while some are held."""
        block_ms = _HOLD_MS if self._held else _BLOCK_MS
        answer = cast(
            "list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]",
            self._client.xread({self._key: self._last_id}, count=_BATCH, block=block_ms),
        )
        entries = answer[0][1] if answer else []
        if entries:
            self._last_id = entries[-1][0].decode()
        if entries and not self._held:
            self._hold_until = time.monotonic() + _HOLD_MS / 1000
        events = (_decode(fields) for _, fields in entries)
        self._held += (event for event in events if event is not None)


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number or 0)


def _decode(fields: dict[bytes, bytes]) -> Event | None:
    try:
        return event_from_wire(json.loads(fields[EVENT_FIELD.encode()]), time.time())
    except (MessageError, ValueError, KeyError, RecursionError) as error:
        log.warning("an event was dropped: %s", error)  # forged or foreign: the document is rung for again
        return None
