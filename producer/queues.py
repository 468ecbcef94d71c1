"""How much lies in the queues, and emptying them: Celery's Redis transport keeps each queue as a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from headwater.errors import BrokerUnavailable
from headwater.messages import Lane, queue_name

__all__ = ["Queues"]


class Queues:
    """The two queues of a collection. Every method raises BrokerUnavailable when the broker does not answer."""

    def __init__(self, client: redis.Redis, collection: str) -> None:
        self._client = client
        self._collection = collection

    def waiting(self, lane: Lane) -> int:
        """Messages that no worker has taken yet."""
        with self._answers():
            return int(self._client.llen(queue_name(self._collection, lane)))

    def purge(self) -> None:
        """Drop all messages. Only where nobody else's can be among them."""
        with self._answers():
            self._client.delete(*(queue_name(self._collection, lane) for lane in ("live", "bulk")))

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the broker does not answer ({error})") from error
