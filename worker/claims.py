"""A lease in Redis for each document that a worker has in hand, and word that the worker is there.

Where several workers share a queue, a hint may come twice; the second worker waits until the first has let go, and then
finds the work done. A lease is a courtesy and no lock: a worker that was cut off may go on without one, and then the
fence of each write (``headwater.index_qdrant``) keeps the index right.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import redis

from headwater.messages import claim_key, workers_key

__all__ = ["Claims"]

log = logging.getLogger(__name__)

#: a lease that is not renewed ends after this long
LEASE_MS = 10_000
_RENEW_S = 2.5
#: pauses between two looks at a document that another worker has
_POLL_S = (0.05, 0.1, 0.2, 0.5)
#: how long a hint waits for a document that another worker has; then it is left to the producer to ring again
_PATIENCE_S = 60.0
#: number of keys, then the token: each key is taken if it is free, all are given back if one is not
_TAKE = """
for i, key in ipairs(KEYS) do
  if not redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', key) ~= ARGV[1] then
    for j = 1, i - 1 do redis.call('DEL', KEYS[j]) end
    return 0
  end
end
return 1
"""
_RENEW = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
end
"""
#: (GET, not MGET, which access lists made after docs/many-machines.md do not allow)
_RELEASE = """
local ours = {}
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then ours[#ours + 1] = key end
end
if #ours > 0 then redis.call('DEL', unpack(ours)) end
"""
#: keys that one call of a script names: Lua unpacks some thousands at most
_MOST_KEYS = 1000
#: the worker is there until the server's clock says otherwise
_PRESENT = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now[1])
"""


class Claims:
    """The leases of one worker, renewed by a thread of their own. Safe to use from several threads."""

    def __init__(
        self,
        client: redis.Redis,
        spaces: Sequence[str],
        name: str,
        takes_hints: Callable[[str], bool] = lambda space: True,
    ) -> None:
        """``name`` tells people which worker it is; ``spaces`` are those of its folders; ``takes_hints`` whether it
        takes hints of one now."""
        self._client = client
        self._spaces = spaces
        self._takes_hints = takes_hints
        #: unlike any other, and with the number of folders that share this worker
        self._name = f"{name}:{uuid.uuid4().hex[:8]} {len(spaces)}"
        self._take = client.register_script(_TAKE)
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)
        self._present = client.register_script(_PRESENT)
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="claims", daemon=True)

    def start(self) -> None:
        self._tell()
        self._thread.start()

    def close(self) -> None:
        """Say that this worker is gone."""
        self._stopping.set()
        self._thread.join(timeout=_RENEW_S)
        try:
            for space in self._spaces:
                self._client.zrem(workers_key(space), self._name)
        except redis.RedisError as error:
            log.info("the broker was not told that this worker ends: %s", error)
        self._client.close()

    @contextmanager
    def held(self, space: str, documents: Iterable[str]) -> Iterator[bool]:
        """These documents (by id) are this worker's meanwhile. False if another worker does not let go of one of them:
        then they are to be left alone."""
        keys = [claim_key(space, document) for document in sorted(documents)]
        taken = self._acquire(keys)
        try:
            yield taken
        finally:
            if taken:
                self._let_go(keys)

    def _acquire(self, keys: Sequence[str]) -> bool:
        """All of them or none, so that no two workers can wait for each other."""
        deadline = time.monotonic() + _PATIENCE_S
        for number in range(1_000_000):
            if self._taken(keys):
                with self._lock:
                    self._held.update(keys)
                return True
            if time.monotonic() > deadline or self._stopping.is_set():
                break
            time.sleep(_POLL_S[min(number, len(_POLL_S) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311  no secret
        log.info("%d documents are left to another worker", len(keys))
        return False

    def _taken(self, keys: Sequence[str]) -> bool:
        try:
            return bool(self._take(keys=keys, args=[self._name, LEASE_MS]))
        except redis.RedisError as error:
            log.info("documents are worked on without a lease, since the broker does not answer: %s", error)
            return True

    def _let_go(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._held.difference_update(keys)
        try:
            for first in range(0, len(keys), _MOST_KEYS):
                self._release(keys=keys[first : first + _MOST_KEYS], args=[self._name])
        except redis.RedisError as error:
            log.info("%d leases end by themselves, since the broker does not answer: %s", len(keys), error)

    def _keep_up(self) -> None:
        while not self._stopping.wait(_RENEW_S):
            self._tell()

    def _tell(self) -> None:
        """Renew what is held, and that the worker is there."""
        with self._lock:
            keys = sorted(self._held)
        try:
            if keys:
                self._renew(keys=keys, args=[self._name, LEASE_MS])
            for space in self._spaces:
                if self._takes_hints(space):
                    self._present(keys=[workers_key(space)], args=[self._name, LEASE_MS // 1000])
                else:
                    self._client.zrem(workers_key(space), self._name)
        except redis.RedisError as error:
            log.info("leases were not renewed, since the broker does not answer: %s", error)
