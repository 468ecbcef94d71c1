"""Which queues this worker takes hints from now: those of a folder can be left for a while, and others go on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from celery import Celery

from headwater.messages import LANES, queue_name

__all__ = ["Consuming"]


class Consuming:
    """Celery's consumer takes from all queues until it is told otherwise. Safe to use from several threads."""

    def __init__(self, spaces: Sequence[str]) -> None:
        self._spaces = spaces
        self._left: set[str] = set()
        self._consumer: Any = None
        self._lock = threading.Lock()

    def ready(self, consumer: Any) -> None:
        """Celery's consumer begins (signal ``worker_ready``)."""
        with self._lock:
            self._consumer = consumer
            left = bool(self._left)
        if left:
            consumer.call_soon(self._select)

    def switch(self, space: str, *, on: bool) -> None:
        """Take hints of this folder, or take none. It happens a moment later, in the consumer's own thread."""
        with self._lock:
            if on != (space in self._left):
                return
            (self._left.discard if on else self._left.add)(space)
            consumer = self._consumer
        if consumer is not None:
            consumer.call_soon(self._select)

    def _select(self) -> None:
        """All are taken up anew, so that live hints of any folder stay ahead of bulk ones of all. A connection that is
        lost meanwhile is made anew with the same choice."""
        with self._lock:
            consumer, left = self._consumer, set(self._left)
        names = {space: [queue_name(space, lane) for lane in LANES] for space in self._spaces}
        app: Celery = consumer.app
        for queues in names.values():
            app.amqp.queues.deselect(queues)
            for name in queues:
                if consumer.task_consumer is not None and consumer.task_consumer.consuming_from(name):
                    consumer.task_consumer.cancel_by_queue(name)
        for lane in range(len(LANES)):
            for space, queues in names.items():
                if space not in left:
                    self._take_up(consumer, queues[lane])

    @staticmethod
    def _take_up(consumer: Any, name: str) -> None:
        if consumer.task_consumer is None:
            consumer.app.amqp.queues.select_add(consumer.app.amqp.queues[name])
        else:
            consumer.add_task_queue(name)
