"""Redis as Celery uses it, but for one thing: a message that cannot be understood is dropped, not a worker's end."""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis
from redis.exceptions import NoPermissionError

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


#: a right that was taken from this user may be granted again: it is waited for as for a broker that is away
_PASSING = (*redis.Transport.connection_errors, NoPermissionError)


class Transport(redis.Transport):
    """redis://, rediss:// and redis+socket:// alike."""

    Channel = _Channel
    connection_errors = _PASSING


class SentinelTransport(redis.SentinelTransport):
    """sentinel://"""

    Channel = _SentinelChannel
    connection_errors = _PASSING
