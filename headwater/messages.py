"""The wire contract between producer and worker: names, the hint, and the events that come back. Pure: no I/O.

A hint says only "these documents are due"; the file system says what they hold. So a hint may be lost, doubled,
late or forged without harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headwater.document import Fingerprint, path_from_wire, path_to_wire
from headwater.errors import MessageError

__all__ = [
    "APPLY_TASK",
    "CENSUS_TASK",
    "EVENT_FIELD",
    "LANES",
    "Census",
    "CensusRequest",
    "Embedded",
    "Event",
    "Hello",
    "Hindered",
    "Hint",
    "Holding",
    "Item",
    "Lane",
    "Outcome",
    "State",
    "census_from_wire",
    "census_to_wire",
    "claim_key",
    "event_from_wire",
    "event_to_wire",
    "events_key",
    "expected_key",
    "namespace",
    "producer_key",
    "queue_name",
    "workers_key",
]

#: Celery task that applies a hint
APPLY_TASK = "headwater.apply"
#: Celery task that sweeps seqs nobody wants, and answers with a census
CENSUS_TASK = "headwater.census"
#: field of a stream entry that holds the event as JSON
EVENT_FIELD = "event"

Lane = Literal["live", "bulk"]
#: in the order in which they are served
LANES: tuple[Lane, ...] = ("live", "bulk")
#: "final" is "index" for the last time within the budget: if it fails, no older version stays in the index;
#: "spent" is "index" unless the file still has the content whose tries are used up
Operation = Literal["index", "final", "spent", "delete"]
#: what became of an item; "changed" and "superseded" ask the producer to look again
State = Literal["indexed", "partial", "refused", "failed", "deleted", "vanished", "changed", "superseded"]
HinderedPart = Literal["host", "qdrant"]
_STATES = ("indexed", "partial", "refused", "failed", "deleted", "vanished", "changed", "superseded")
_VERSION = 1
#: seqs stay below this: Qdrant compares them as 64-bit floats
_SEQ_END = 2**53
#: and are microseconds since the epoch: one further ahead than any clock is forged, and would fence off all that follow
_AHEAD_S = 10 * 365 * 24 * 3600
#: other numbers fit into SQLite's
_INTEGER_END = 2**63


def namespace(collection: str, source: str = "") -> str:
    """What the names of queues, streams and keys of one folder begin with. (No collection's name has a slash.)"""
    return f"{collection}/{source}" if source else collection


def queue_name(of: str, lane: Lane) -> str:
    """Celery queue of a lane, in a namespace."""
    return f"{of}.{lane}"


def events_key(of: str) -> str:
    """Redis stream that carries events from workers to the producer of a namespace."""
    return f"{of}.events"


def claim_key(of: str, document_id: str) -> str:
    """Redis key of the lease of a document, in a namespace: the name of the worker that has it in hand."""
    return f"{of}.claim.{document_id}"


def workers_key(of: str) -> str:
    """Redis sorted set of the workers that take hints of a namespace, by when each counts as gone (seconds since the
    epoch, by the server's clock)."""
    return f"{of}.workers"


def producer_key(of: str) -> str:
    """Redis key of the lease of the one producer of a namespace."""
    return f"{of}.producer"


def expected_key(of: str) -> str:
    """Redis key of what the producer of a namespace expects of each worker (``headwater.expected``)."""
    return f"{of}.expected"


@dataclass(frozen=True, slots=True)
class Item:
    """One document that is due: its path relative to the folder, and the seq that fences the write.

    ``tried`` is the hash of the content that failed before, to which "final" and "spent" apply.
    """

    path: bytes
    seq: int
    operation: Operation = "index"
    tried: str | None = None

    def with_content(self, content_hash: str) -> Item:
        """The item now that the content is known: another one than that which failed has all its tries."""
        if self.tried is None or self.tried == content_hash:
            return self
        # once all tries are spent, no older version is in the index: nothing can be lost by "final"
        operation: Operation = "final" if self.operation == "spent" else "index"
        return Item(self.path, self.seq, operation)


@dataclass(frozen=True, slots=True)
class Hint:
    """Documents to work through in this order (a rename is "index the new path", then "delete the old one")."""

    items: tuple[Item, ...]
    lane: Lane
    #: name of the folder, where several share a collection
    source: str = ""
    #: fingerprint of how the producer wants documents read and cut: a worker with another one must not write them;
    #: empty if the producer does not say
    pipeline: str = ""

    def to_wire(self) -> dict[str, Any]:
        items = [[path_to_wire(i.path), i.seq, i.operation, *([i.tried] if i.tried else [])] for i in self.items]
        given = {"source": self.source, "pipeline": self.pipeline}
        return {
            "v": _VERSION,
            "lane": self.lane,
            "items": items,
            **{name: text for name, text in given.items() if text},
        }

    @classmethod
    def from_wire(cls, wire: object, now_s: float = math.inf) -> Hint:
        """Raises MessageError if the message does not have the agreed form, or seqs far beyond ``now_s`` (since the
        epoch)."""
        if not isinstance(wire, Mapping) or wire.get("v") != _VERSION:
            raise MessageError(f"a hint of version {_VERSION} was expected: drop the message")
        lane, items = wire.get("lane"), wire.get("items")
        source, pipeline = wire.get("source", ""), wire.get("pipeline", "")
        if lane not in LANES or not isinstance(items, list):
            raise MessageError("a hint needs a lane and a list of items: drop the message")
        if not isinstance(source, str) or not isinstance(pipeline, str):
            raise MessageError("source and pipeline of a hint are texts: drop the message")
        seq_end = _seq_end(now_s)
        return cls(tuple(_item(raw, seq_end) for raw in items), lane, source, pipeline)


def _item(raw: object, seq_end: float) -> Item:
    match raw:
        case [str(path), int(seq), "index" | "final" | "spent" | "delete" as operation, *rest] if (
            path.isascii() and path and not isinstance(seq, bool) and 0 < seq < seq_end
        ):
            match rest:
                case []:
                    return Item(path_from_wire(path), seq, operation)
                case [str(tried)] if tried and tried.isascii():
                    return Item(path_from_wire(path), seq, operation, tried)
    raise MessageError("an item needs a path, a seq and an operation: drop the message")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. ``fingerprint`` and ``content_hash`` are those of the bytes that were read."""

    path: bytes
    seq: int
    state: State
    reason: str | None = None
    fingerprint: Fingerprint | None = None
    content_hash: str | None = None
    chunks: int = 0
    #: a failure that may pass: worth another try within the budget; one that is not was no try either
    retryable: bool = False
    #: a failure of the service, not of the document (disk full, index away): does not count as a try
    service: bool = False
    #: a failure that another document may have caused: counts as a try, never as the last
    shared: bool = False
    #: a failure of which no byte was seen, so that no content is to blame: each scan of the folder tries it again
    unread: bool = False
    #: with "superseded": the seq that the index holds
    index_seq: int = 0

    @property
    def is_try(self) -> bool:
        """Whether it costs the document one of its tries."""
        return self.state == "failed" and self.retryable and not self.service


@dataclass(frozen=True, slots=True)
class Embedded:
    """Texts embedded by the model, and texts whose vectors the index already held."""

    embedded: int
    reused: int


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker has started: hints that an earlier one held are lost."""

    worker: str
    index_id: str


@dataclass(frozen=True, slots=True)
class Census:
    """One page of how many points carry each seq. ``census`` is the same on all pages of one census."""

    census: str
    index_id: str
    page: int
    pages: int
    counts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """How many points the index holds of a folder, and the highest seq among them (0: none): a census in brief."""

    index_id: str
    points: int
    newest_seq: int


@dataclass(frozen=True, slots=True)
class Hindered:
    """What keeps a worker from its work, told every few seconds while it does; ``reason`` None: nothing any more.

    ``part`` is "host" (the worker takes no hints of this folder, since its folder or its settings are not the
    producer's) or "qdrant" (the index does not answer it).
    """

    worker: str
    part: HinderedPart
    reason: str | None


Event = Outcome | Embedded | Hello | Census | Holding | Hindered


@dataclass(frozen=True, slots=True)
class CensusRequest:
    """Asks for a census of a folder's points, after those with the seqs ``sweep`` are deleted. ``brief``: a ``Holding``
    is enough (a worker of an earlier version answers with the whole census)."""

    census: str
    sweep: tuple[int, ...] = ()
    source: str = ""
    brief: bool = False


def census_to_wire(request: CensusRequest) -> dict[str, Any]:
    """The JSON form of a request."""
    wire = {"v": _VERSION, "census": request.census, "sweep": list(request.sweep), "source": request.source}
    return {**wire, "brief": True} if request.brief else wire


def census_from_wire(wire: object, now_s: float = math.inf) -> CensusRequest:
    """The inverse of ``census_to_wire``. Raises MessageError."""
    match wire:
        case {"v": 1, "census": str(census), "sweep": list(seqs), "source": str(source), **more}:
            try:
                swept = tuple(_whole(seq, _seq_end(now_s)) for seq in seqs)
                return CensusRequest(census, swept, source, bool(more.get("brief", False)))
            except ValueError as error:
                raise MessageError(f"a census sweeps what is no seq ({error}): drop the message") from None
    raise MessageError("a census needs a name and a list of seqs: drop the message")


def event_to_wire(event: Event) -> dict[str, Any]:
    """The JSON form of an event."""
    match event:
        case Hello():
            return {"type": "hello", "worker": event.worker, "index_id": event.index_id}
        case Embedded():
            return {"type": "embedded", "embedded": event.embedded, "reused": event.reused}
        case Census():
            pages = {"page": event.page, "pages": event.pages, "counts": [list(pair) for pair in event.counts]}
            return {"type": "census", "census": event.census, "index_id": event.index_id, **pages}
        case Holding():
            held = {"points": event.points, "newest_seq": event.newest_seq}
            return {"type": "holding", "index_id": event.index_id, **held}
        case Hindered():
            return {"type": "hindered", "worker": event.worker, "part": event.part, "reason": event.reason}
        case Outcome():
            return _outcome_to_wire(event)


def _outcome_to_wire(outcome: Outcome) -> dict[str, Any]:
    stat = outcome.fingerprint
    wire = {
        "type": "outcome",
        "path": path_to_wire(outcome.path),
        "seq": outcome.seq,
        "state": outcome.state,
        "reason": outcome.reason,
        "stat": None if stat is None else [stat.size, stat.mtime_ns, stat.ctime_ns, stat.inode],
        "hash": outcome.content_hash,
        "chunks": outcome.chunks,
        "retryable": outcome.retryable,
        "service": outcome.service,
        "shared": outcome.shared,
        "unread": outcome.unread,
        "index_seq": outcome.index_seq or None,
    }
    return {name: value for name, value in wire.items() if value is not None and value is not False}


def event_from_wire(wire: object, now_s: float = math.inf) -> Event:
    """The inverse of ``event_to_wire``. Raises MessageError, also of seqs far beyond ``now_s``."""
    try:
        return _event(wire, _seq_end(now_s))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MessageError(f"an event does not have the agreed form ({error!r}): drop it") from None


def _event(wire: Any, seq_end: float) -> Event:
    match wire["type"]:
        case "hello":
            return Hello(str(wire["worker"]), str(wire["index_id"]))
        case "embedded":
            return Embedded(_whole(wire["embedded"]), _whole(wire["reused"]))
        case "census":
            counts = tuple((_whole(seq, seq_end), _whole(number)) for seq, number in wire["counts"])
            page, pages = _whole(wire["page"]), _whole(wire["pages"])
            return Census(str(wire["census"]), str(wire["index_id"]), page, pages, counts)
        case "holding":
            return Holding(str(wire["index_id"]), _whole(wire["points"]), _whole(wire["newest_seq"], seq_end))
        case "hindered" if wire["part"] in ("host", "qdrant"):
            return Hindered(str(wire["worker"]), wire["part"], _text(wire.get("reason")))
        case "outcome" if wire["state"] in _STATES:
            stat = wire.get("stat")
            return Outcome(
                path=path_from_wire(wire["path"]),
                seq=_whole(wire["seq"], seq_end),
                state=wire["state"],
                reason=_text(wire.get("reason")),
                fingerprint=None if stat is None else Fingerprint(*map(_whole, stat)),
                content_hash=_text(wire.get("hash")),
                chunks=_whole(wire.get("chunks", 0)),
                retryable=bool(wire.get("retryable", False)),
                service=bool(wire.get("service", False)),
                shared=bool(wire.get("shared", False)),
                unread=bool(wire.get("unread", False)),
                index_seq=_whole(wire.get("index_seq", 0), seq_end),
            )
    raise ValueError("unknown type or state")


def _seq_end(now_s: float) -> float:
    return min(_SEQ_END, (now_s + _AHEAD_S) * 1_000_000)


def _whole(value: Any, end: float = _INTEGER_END) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -end < value < end:
        raise ValueError(f"{value!r} is no whole number in bounds")
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
