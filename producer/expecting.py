"""Tells workers what this producer expects of them, by a key at the broker: before the first hint, and whenever it
changes."""

from __future__ import annotations

import time

import redis

from headwater.errors import BrokerUnavailable
from headwater.expected import Expected
from headwater.messages import expected_key
from headwater.settings import Settings
from producer.ledger import Ledger

__all__ = ["Expecting"]

#: a broker may lose all that it holds: it is told again so often
_TELL_S = 5.0
#: files that are named at each end of the folder
_FILES = 4


class Expecting:
    """Not thread-safe: the producer's loop owns it."""

    def __init__(self, client: redis.Redis, space: str, settings: Settings) -> None:
        self._client = client
        self._key = expected_key(space)
        self._pipeline, self._parts = settings.pipeline_fingerprint(), settings.pipeline_parts()
        self._told = ""
        self._tell_at = 0.0

    def keep_up(self, ledger: Ledger) -> None:
        """Raises BrokerUnavailable."""
        text = Expected(self._pipeline, self._parts, ledger.some_files(_FILES)).to_json()
        if text == self._told and time.monotonic() < self._tell_at:
            return
        try:
            self._client.set(self._key, text)
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the broker does not answer ({error})") from error
        self._told, self._tell_at = text, time.monotonic() + _TELL_S
