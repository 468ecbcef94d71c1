"""What the broker knows of hints on their way: how many lie in the queues (Celery's Redis transport keeps each as a
list), and what workers have in hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import redis

from headwater.errors import BrokerUnavailable
from headwater.messages import LANES, Lane, claim_key, queue_name, workers_key

__all__ = ["Queues"]


class Queues:
    """The two queues of a namespace. Every method raises BrokerUnavailable when the broker does not answer."""

    def __init__(self, client: redis.Redis, space: str) -> None:
        self._client = client
        self._space = space

    def waiting(self, lane: Lane) -> int:
        """Messages that no worker has taken yet."""
        with self._answers():
            return int(self._client.llen(queue_name(self._space, lane)))

    def workers(self) -> float:
        """Workers that are there now; one that takes hints of several folders counts for its share of each."""
        with self._answers():
            now, _ = self._client.time()
            present = cast("list[bytes]", self._client.zrangebyscore(workers_key(self._space), now, "+inf"))
        return sum(1 / int(name.rpartition(b" ")[2]) for name in present)

    def claimed(self, hints: Iterable[Sequence[str]]) -> list[bool]:
        """Whether a worker has any document (by id) of each of these hints in hand: one command for a hint."""
        with self._answers(), self._client.pipeline(transaction=False) as pipe:
            for documents in hints:
                pipe.exists(*(claim_key(self._space, document) for document in documents))
            return [bool(found) for found in pipe.execute()]

    def purge(self) -> None:
        """Drop all messages. Only where nobody else's can be among them."""
        with self._answers():
            self._client.delete(*(queue_name(self._space, lane) for lane in LANES))

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the broker does not answer ({error})") from error
