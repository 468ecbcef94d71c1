"""Whether this worker may take the hints of a folder: its folder must be the producer's, and what it makes of a
document what the producer wants. One that is set up otherwise leaves the hints to others, says why, and looks again.

It also tells when the index does not answer, so that the producer, which never asks it, can say so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis

from headwater.errors import IndexUnavailable
from headwater.expected import Expected, differences
from headwater.messages import Hindered, HinderedPart, Hint, Item, Outcome, expected_key
from worker.reporter import Reporter

__all__ = ["Fitness", "given_back"]

log = logging.getLogger(__name__)

#: seconds between two looks
_LOOK_S = 2.0
#: what hinders this worker is told again so often (the producer forgets it after three times as long)
_TELL_S = 5.0
#: seconds between two looks at what the broker lets this worker do
_RIGHTS_S = 10.0
#: settings that vectors depend on
_OF_VECTORS = ("model", "truncate_dim", "document_prompt")
#: a folder that looks wrong is looked at once more so much later
_SURE_S = 0.5


def given_back(item: Item, reason: str) -> Outcome:
    """The outcome of an item that is left to another worker: it costs the document nothing."""
    return Outcome(item.path, item.seq, "failed", reason=reason, retryable=True, service=True)


class Fitness:
    """Looks by a thread of its own. Safe to use from several threads."""

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        folders: Mapping[str, Path],
        spaces: Mapping[str, str],
        pipeline: tuple[str, Mapping[str, str]],
        reporters: Mapping[str, Reporter],
        switch: Callable[..., None],
        ping: Callable[[], object],
        lacks: Callable[[str], str | None] = lambda source: None,
    ) -> None:
        """``folders``, ``spaces`` and ``reporters`` by source; ``pipeline`` is the fingerprint of this worker and what
        it is made of; ``switch(space, on=...)`` takes hints or leaves them; ``ping`` raises IndexUnavailable;
        ``lacks`` names what the broker does not let this worker do for a folder."""
        self._client = client
        self._name = name
        self._folders = folders
        self._spaces = spaces
        self._fingerprint, self._parts = pipeline
        self._reporters = reporters
        self._switch = switch
        self._ping = ping
        self._lacks = lacks
        self._rights_at = time.monotonic() + _RIGHTS_S
        self._lacking: dict[str, str] = {}
        self._lock = threading.Lock()
        self._reasons: dict[tuple[str, HinderedPart], str] = {}
        self._expected: dict[str, Expected | None] = {}
        self._told_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="fitness", daemon=True)

    def start(self) -> None:
        """The first look is over when this returns."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=_LOOK_S)
        self._client.close()

    def takes_hints(self, space: str) -> bool:
        """Whether hints of a folder, by its namespace, are taken now."""
        return not any(self.reason(source) for source, own in self._spaces.items() if own == space)

    def reason(self, source: str) -> str | None:
        """Why no hints of a folder are taken now."""
        with self._lock:
            return self._reasons.get((source, "host"))

    def refuses(self, hint: Hint) -> str | None:
        """Why this hint is not to be worked on; None if it is. The fingerprint that it carries has the last word."""
        if hint.pipeline and hint.pipeline != self._fingerprint and self.reason(hint.source) is None:
            self._note(hint.source, "host", self._unlike(self._found(hint.source)))
        if hint.pipeline and hint.pipeline == self._fingerprint and self.reason(hint.source) is not None:
            self._look_at(hint.source)  # the producer has changed since
        return self.reason(hint.source)

    def look(self) -> None:
        """Compare this worker with what is expected now."""
        if time.monotonic() >= self._rights_at:
            self._rights_at = time.monotonic() + _RIGHTS_S
            found = {source: self._lacks(source) for source in self._folders}
            self._lacking = {source: reason for source, reason in found.items() if reason is not None}
        for source in self._folders:
            self._look_at(source)
        try:
            self._ping()
            trouble = None
        except IndexUnavailable as error:
            trouble = str(error)
        for source in self._folders:
            self._note(source, "qdrant", trouble)
        if self._reasons and time.monotonic() - self._told_at >= _TELL_S:
            self._tell_all()

    def _keep_up(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            self.look()

    def has_another_model(self, source: str) -> bool:
        """Whether the producer of a folder wants other vectors than this worker would make."""
        expected = self._found(source)
        return expected is not None and any(expected.parts.get(name) != self._parts.get(name) for name in _OF_VECTORS)

    def _look_at(self, source: str) -> None:
        reason = self._judge(source)
        if reason is not None and self.reason(source) is None and not self._stopping.wait(_SURE_S):
            reason = self._judge(source)  # files may have been moved, which the producer has noticed by now
        self._note(source, "host", reason)

    def _found(self, source: str) -> Expected | None:
        """What is expected, as it was read last if the broker does not answer."""
        try:
            found = self._client.get(expected_key(self._spaces[source]))
        except (redis.RedisError, OSError) as error:
            log.info("what the producer expects could not be read: %s", error)
        else:
            expected = Expected.from_json(found) if isinstance(found, bytes) else None
            with self._lock:
                self._expected[source] = expected
        return self._expected.get(source)

    def _judge(self, source: str) -> str | None:
        if source in self._lacking:
            return f"{self._refusal} {self._lacking[source]}"
        expected = self._found(source)
        if expected is None:
            return None
        if expected.pipeline != self._fingerprint:
            return self._unlike(expected)
        wrong = expected.missing(self._folders[source])
        host = self._name.rpartition(":")[0]
        return (
            None if wrong is None else f"{self._refusal} the folder {self._folders[source]} on the host {host} {wrong}"
        )

    def _unlike(self, expected: Expected | None) -> str:
        unlike = "" if expected is None else differences(expected.parts, self._parts)
        return f"{self._refusal} it would read or cut them otherwise than the producer wants ({unlike or 'unknown'})"

    @property
    def _refusal(self) -> str:
        return f"the worker {self._name} takes no documents:"

    def _note(self, source: str, part: HinderedPart, reason: str | None) -> None:
        with self._lock:
            before = self._reasons.pop((source, part), None)
            if reason is not None:
                self._reasons[source, part] = reason
        if before == reason:
            return
        if reason is not None:
            log.warning("%s", reason)
        else:
            log.info("this is over: %s", before)
        if part == "host":
            self._switch(self._spaces[source], on=reason is None)
        self._reporters[source].report([Hindered(self._name, part, reason)])

    def _tell_all(self) -> None:
        self._told_at = time.monotonic()
        with self._lock:
            reasons = dict(self._reasons)
        for (source, part), reason in reasons.items():
            self._reporters[source].report([Hindered(self._name, part, reason)])
