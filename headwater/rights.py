"""What the user of a shared broker must be allowed, and whether it is: asked without doing any of it.

The lists are those of docs/many-machines.md ("ACL"). Each command is queued in a transaction that is never executed:
the server refuses at once what the user may not do, and forgets the rest with the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import redis

from headwater.broker import make_client
from headwater.messages import claim_key, events_key, expected_key, namespace, producer_key, queue_name, workers_key
from headwater.settings import Settings

__all__ = ["Part", "commands", "refused"]

log = logging.getLogger(__name__)

Part = Literal["producer", "worker"]
#: where people find the whole list
_MANUAL = "docs/many-machines.md, ACL"
#: refused commands that a sentence names
_SHOWN = 4
_NOTHING = "return 1"

Command = tuple[Any, ...]


def commands(part: Part, space: str) -> Iterator[Command]:
    """One example of each command that a part sends, with keys as it has them."""
    yield from (_producer if part == "producer" else _worker)(space)


def _both(space: str) -> Iterator[Command]:
    """Celery's way to a queue, and scripts."""
    yield from (("INFO",), ("TIME",), ("SCRIPT", "LOAD", _NOTHING), ("EVAL", _NOTHING, 0), ("EVALSHA", "0" * 40, 0))
    for queue in (queue_name(space, "live"), queue_name(space, "bulk")):
        binding = f"_kombu.binding.{queue}"
        yield from (("SADD", binding, ""), ("SMEMBERS", binding), ("LPUSH", queue, ""), ("LLEN", queue))


def _producer(space: str) -> Iterator[Command]:
    yield from _both(space)
    events, lease = events_key(space), producer_key(space)
    yield from (("EXISTS", events), ("XREAD", "COUNT", 1, "STREAMS", events, "0-0"), ("XINFO", "STREAM", events))
    yield from (("XTRIM", events, "MINID", "0-1"), ("SET", lease, ""), ("GET", lease), ("PTTL", lease), ("DEL", lease))
    yield from (("SET", expected_key(space), ""), ("EXISTS", claim_key(space, "")))
    yield ("ZRANGEBYSCORE", workers_key(space), 0, "+inf")
    yield ("DEL", queue_name(space, "live"))


def _worker(space: str) -> Iterator[Command]:
    yield from _both(space)
    for queue in (queue_name(space, "live"), queue_name(space, "bulk")):
        yield from (("BRPOP", queue, 1), ("RPUSH", queue, ""))
    yield from (("HSET", "unacked", "", ""), ("HGET", "unacked", ""), ("HDEL", "unacked", ""))
    yield from (("ZADD", "unacked_index", 0, ""), ("ZREM", "unacked_index", ""))
    yield from (("ZREVRANGEBYSCORE", "unacked_index", 0, 0), ("SET", "unacked_mutex", ""), ("DEL", "unacked_mutex"))
    claim, present = claim_key(space, ""), workers_key(space)
    yield from (("SET", claim, ""), ("GET", claim), ("DEL", claim), ("PEXPIRE", claim, 1))
    yield from (("ZADD", present, 0, ""), ("ZREMRANGEBYSCORE", present, 0, 0), ("ZREM", present, ""))
    yield from (("XADD", events_key(space), "*", "", ""), ("GET", expected_key(space)))


def refused(settings: Settings, part: Part, sources: Sequence[str]) -> str | None:
    """A sentence about what the broker does not allow; None if it allows all, or does not answer (which others
    tell)."""
    try:
        with make_client(settings, retries=0) as client:
            found = [line for source in sources for line in _refused(client, part, namespace(settings.prefix, source))]
    except (redis.RedisError, OSError) as error:
        log.debug("rights at the broker could not be asked for: %s", error)
        return None
    if not found:
        return None
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"the broker does not let this {part}'s user: {', '.join(found[:_SHOWN])}{more}: grant it ({_MANUAL})"


def _refused(client: redis.Redis, part: Part, space: str) -> list[str]:
    found: dict[str, None] = {}
    connection: Any = client.connection_pool.get_connection()
    try:
        for command in (("MULTI",), *commands(part, space)):
            connection.send_command(*command)
            try:
                connection.read_response()
            except redis.exceptions.NoPermissionError as error:
                found[_named(command, str(error))] = None
            except redis.ResponseError as error:  # known only when it is executed, which it never is
                log.debug("%s: %s", command[0], error)
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)
    return list(found)


def _named(command: Command, said: str) -> str:
    """The command, or the key if that is what is refused."""
    name = " ".join(str(word).lower() for word in command[: 2 if command[0] in ("XINFO", "SCRIPT") else 1])
    key = next(
        (str(word) for word in command[1:] if isinstance(word, str) and ("." in word or "unacked" in word)), None
    )
    return f"{name} (on the key {key})" if "key" in said.lower() and key is not None else name
