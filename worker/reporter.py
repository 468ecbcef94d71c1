"""Tells the producer what became of documents: events on a Redis stream."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence

import redis

from headwater.messages import EVENT_FIELD, Embedded, Event, event_to_wire

__all__ = ["Reporter"]

log = logging.getLogger(__name__)

#: events kept at most, should no producer read them
_MAX_EVENTS = 200_000
#: so many events are seen by the producer all at once: it then notes them in one transaction
_TOGETHER = 256
_RETRY_S = (0.1, 0.3, 1.0, 2.0)


class Reporter:
    """Safe to call from several threads. A lost outcome is no loss: the producer rings again, and the index answers."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._lock = threading.Lock()
        self._uncounted = 0

    def embedded(self, texts: int) -> None:
        """Count texts embedded now; kept for the next report if the broker does not answer."""
        with self._lock:
            texts += self._uncounted
            self._uncounted = 0
        try:
            self._send([Embedded(texts, 0)])
        except redis.RedisError:
            with self._lock:
                self._uncounted += texts

    def report(self, events: Sequence[Event]) -> None:
        """Send events in order; tries for a few seconds, then leaves it to the producer to ring again."""
        for pause in (*_RETRY_S, None):
            try:
                self._send(events)
                return
            except redis.RedisError as error:
                if pause is None:
                    log.warning("%d outcomes could not be sent (%s): they will be asked for again", len(events), error)
                    return
                time.sleep(pause)

    def _send(self, events: Sequence[Event]) -> None:
        with self._client.pipeline(transaction=1 < len(events) <= _TOGETHER) as pipe:
            for event in events:
                fields = {EVENT_FIELD: json.dumps(event_to_wire(event))}
                pipe.xadd(self._key, fields, maxlen=_MAX_EVENTS, approximate=True)  # type: ignore[arg-type]  # invariant stub
            pipe.execute()
