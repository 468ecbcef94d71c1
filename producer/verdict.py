"""The verdict of ``headwater status``: what is wrong, how bad that is, and what a person does next. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Cause", "Facts", "Health", "causes", "health", "with_troubles"]

Health = Literal["ok", "degraded", "failing"]

_MANUAL = "docs/operations.md"
#: parts whose trouble stops what is due; the others cost only freshness of a part of it
_STOPPING = frozenset({"broker", "service", "worker", "process", "index"})
#: parts without which nothing is found either
_NEEDED = frozenset({"qdrant"})
#: what a person does about each part
_NEXT_STEPS = {
    "broker": "start the broker, or correct CELERY_BROKER_URL; nothing is lost, and all that is due is sent again",
    "service": "mend what the sentence names (disk, Qdrant, model); workers try again by themselves",
    "worker": "start one with 'headwater work', or read the log of the one that runs: does it see the same broker?",
    "host": "mount the producer's folder there, and give it the producer's settings; nothing is lost, it goes on by "
    "itself, and other workers do its work meanwhile",
    "qdrant": "look whether Qdrant runs and answers, and correct QDRANT_URL or QDRANT_API_KEY; nothing is lost, and "
    "workers try again by themselves",
    "process": "read its log in the state directory's logs; it is started again by itself",
    "index": "run 'headwater verify --repair'",
    "folder": "bring the folder back (is its disk mounted?); until then nothing is deleted from the index",
    "deletions": "bring the folder back, or run 'headwater accept-deletions' if they are meant to go",
    "watch": "as root: sysctl fs.inotify.max_user_watches=1048576, then start again; until then changes are polled for",
    "disk": "free some space, or name another place with HEADWATER_STATE_DIR",
    "documents": "'headwater failures' lists them with their reasons, 'headwater failures --retry' tries them again",
}
#: free space is low when less than this many times the least is left
_LOW = 1.5


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong."""

    part: str
    health: Health
    cause: str
    next_step: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. ``troubles`` by part are the producer's, ``processes`` the supervisor's sentences; bytes."""

    troubles: Mapping[str, str]
    processes: Sequence[str]
    waiting: int
    failed: int
    #: a failed document and its reason
    example: str | None
    free_bytes: int
    least_free_bytes: int


def causes(facts: Facts) -> list[Cause]:
    """What is wrong, the worst first."""
    found = sorted(_causes(facts), key=lambda cause: cause.health != "failing")
    return list(found)


def with_troubles(status: Mapping[str, Any], troubles: Mapping[str, str]) -> dict[str, Any]:
    """A status (``producer.status.read_status``) of a process that runs, and that has troubles of its own by part."""
    more = [_cause(part, sentence, failing=part in _NEEDED).to_dict() for part, sentence in troubles.items()]
    causes = sorted([*status["causes"], *more], key=lambda cause: cause["health"] != "failing")
    worst = "failing" if any(cause["health"] == "failing" for cause in causes) else "degraded" if causes else "ok"
    reasons = [cause["cause"] for cause in causes] or status["reasons"]
    return {**status, "running": True, "causes": causes, "health": worst, "reasons": reasons}


def health(found: Sequence[Cause]) -> Health:
    """That of the worst."""
    return "failing" if any(cause.health == "failing" for cause in found) else "degraded" if found else "ok"


def _causes(facts: Facts) -> Iterator[Cause]:
    for part, sentence in facts.troubles.items():
        yield _cause(part, sentence, failing=part in _NEEDED or (part in _STOPPING and facts.waiting > 0))
    for sentence in facts.processes:
        yield _cause("process", sentence, failing=facts.waiting > 0)
    if facts.free_bytes < _LOW * facts.least_free_bytes:
        yield _disk(facts)
    if facts.failed:
        example = f", such as {facts.example}" if facts.example else ""
        yield _cause("documents", f"{facts.failed} documents failed{example}", failing=False)


def _disk(facts: Facts) -> Cause:
    stops = facts.free_bytes < facts.least_free_bytes
    free, least = facts.free_bytes // 1024**2, facts.least_free_bytes // 1024**2
    what = f"nothing is written below {least} MiB"
    return _cause("disk", f"the disk of the state directory has {free} MiB left, and {what}", failing=stops)


def _cause(part: str, sentence: str, *, failing: bool) -> Cause:
    step = f"{_NEXT_STEPS.get(part, 'read the log')} ({_MANUAL}#{part})"
    return Cause(part, "failing" if failing else "degraded", sentence, step)
