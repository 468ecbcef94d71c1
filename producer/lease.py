"""One producer for each folder, where the broker is shared: a lease in Redis, renewed as long as the process lives."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from headwater.errors import AlreadyRunning
from headwater.messages import producer_key

__all__ = ["Lease", "LeaseLost", "Leased"]

log = logging.getLogger(__name__)

_LEASE_MS = 15_000
_RENEW_S = 3.0
#: pauses while another producer may still be there
_LOOK_S = 0.5
#: a lease that has more time left than it was seen to have is renewed by somebody
_SLACK_MS = 200
#: take the lease if it is free or our own, else say whose it is
_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).id ~= ARGV[1] then return {held, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {}
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).id == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


@dataclass(frozen=True, slots=True)
class Leased:
    """The folder is ours to follow."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another producer follows the folder: this one must end. Nothing is lost."""

    error: BaseException


class Lease(threading.Thread):
    """Takes and renews the lease of a namespace, and tells ``deliver`` when it has it and when another has it.

    ``identity`` is that of the ledger: its lock says that no other process of this host uses it, so a lease by the same
    name is that of a predecessor.
    """

    def __init__(
        self,
        client: redis.Redis,
        space: str,
        identity: str,
        folder: str,
        deliver: Callable[[Leased | LeaseLost], None],
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self._client = client
        self._space = space
        self._identity = f"{identity}@{socket.gethostname()}"
        self._value = json.dumps(
            {"id": self._identity, "host": socket.gethostname(), "pid": os.getpid(), "folder": folder}
        )
        self._deliver = deliver
        self._take = client.register_script(_TAKE)
        self._release = client.register_script(_RELEASE)
        self._stopping = threading.Event()
        self._held = False
        #: why the broker was not asked at the last look, if so
        self.trouble: str | None = None
        #: when the lease that another has would end, by our clock, if nobody renews it
        self._ends_at: float | None = None

    @property
    def held(self) -> bool:
        return self._held

    def stop(self) -> None:
        """Give the lease back, so that a successor need not wait for its end."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout=_RENEW_S)
        if self._held:
            try:
                self._release(keys=[producer_key(self._space)], args=[self._identity])
            except redis.RedisError as error:
                log.info("the lease ends by itself, since the broker does not answer: %s", error)
        self._client.close()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._stopping.wait(_RENEW_S if self._look() else _LOOK_S)
        except BaseException as error:  # whatever ends this thread must end the service
            self._held = False
            self._deliver(LeaseLost(error))

    def _look(self) -> bool:
        """Take or renew it; whether it is ours. Raises AlreadyRunning."""
        try:
            other: Any = self._take(keys=[producer_key(self._space)], args=[self._identity, self._value, _LEASE_MS])
        except redis.RedisError as error:
            log.info("the lease was not renewed, since the broker does not answer: %s", error)
            self.trouble = f"the broker does not answer ({error})"
            return False
        self.trouble = None
        if not other:
            self._ends_at = None
            if not self._held:
                self._held = True
                self._deliver(Leased())
            return True
        self._check(json.loads(other[0]), int(other[1]))
        return False

    def _check(self, holder: dict[str, Any], left_ms: int) -> None:
        """Raises AlreadyRunning if the holder renews its lease; one that crashed does not."""
        ends_at = time.monotonic() + left_ms / 1000
        if self._held or (self._ends_at is not None and ends_at > self._ends_at + _SLACK_MS / 1000):
            raise AlreadyRunning(
                f"another producer follows this folder already: pid {holder.get('pid')} on the host "
                f"{holder.get('host')}, with {holder.get('folder')} as {self._space}: stop it first, or give this "
                "folder a name of its own (HEADWATER_SOURCE) or another HEADWATER_COLLECTION"
            )
        self._ends_at = ends_at if self._ends_at is None else min(self._ends_at, ends_at)
