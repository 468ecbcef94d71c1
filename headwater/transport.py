"""Redis as Celery uses it, but for one thing: a message that cannot be understood is dropped, not a worker's end."""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis

__all__ = ["SentinelTransport", "Transport"]

log = logging.getLogger(__name__)


class _Tolerant:
    """Of a channel: what is read from a queue."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # not in the stubs
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            log.warning("a message was dropped (%r): the ledger rings for what is due", error)
            return False


class _Channel(_Tolerant, redis.Channel):
    pass


class _SentinelChannel(_Tolerant, redis.SentinelChannel):
    pass


class Transport(redis.Transport):
    """redis://, rediss:// and redis+socket:// alike."""

    Channel = _Channel


class SentinelTransport(redis.SentinelTransport):
    """sentinel://"""

    Channel = _SentinelChannel
