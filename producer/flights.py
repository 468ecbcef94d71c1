"""The hints that are on their way, by hint and by document. Each question costs what it returns, however many there
are. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from headwater.messages import Item, Lane

__all__ = ["Flight", "Flights"]


@dataclass(slots=True, eq=False)
class Flight:
    """A hint without all of its outcomes; ``deadline`` in seconds of the monotonic clock."""

    lane: Lane
    deadline: float
    #: documents whose outcomes are not there yet, each with the seq that was rung for
    seqs: dict[bytes, int]
    #: when it was first seen that it lies in no queue and no worker has it in hand; None if that is not so
    unclaimed_since: float | None = None
    #: a worker was seen to have it in hand
    claimed: bool = False
    _ids: dict[bytes, str] = field(default_factory=dict)

    def ids(self, of: Callable[[bytes], str]) -> list[str]:
        """The ids of the documents, made once."""
        for path in self.seqs.keys() - self._ids.keys():
            self._ids[path] = of(path)
        return [self._ids[path] for path in self.seqs]


class Flights:
    """A document is in one hint at most."""

    def __init__(self) -> None:
        self._by_path: dict[bytes, Flight] = {}
        #: in the order of their deadlines, since all hints have the same time
        self._by_lane: dict[Lane, dict[Flight, None]] = {"live": {}, "bulk": {}}

    def __bool__(self) -> bool:
        return bool(self._by_path)

    def __contains__(self, path: bytes) -> bool:
        return path in self._by_path

    @property
    def paths(self) -> Collection[bytes]:
        return self._by_path.keys()

    def number(self, lane: Lane) -> int:
        """How many hints of a lane are on their way."""
        return len(self._by_lane[lane])

    def of_lane(self, lane: Lane) -> list[Flight]:
        return list(self._by_lane[lane])

    def has(self, path: bytes, seq: int) -> bool:
        """Whether this version of a document is on its way."""
        flight = self._by_path.get(path)
        return flight is not None and flight.seqs[path] == seq

    def add(self, lane: Lane, items: Iterable[Item], deadline: float) -> None:
        flight = Flight(lane, deadline, {item.path: item.seq for item in items})
        self._by_path.update(dict.fromkeys(flight.seqs, flight))
        self._by_lane[lane][flight] = None

    def land(self, path: bytes) -> None:
        """The outcome of a document is there; unknown paths are ignored."""
        flight = self._by_path.pop(path, None)
        if flight is not None:
            del flight.seqs[path]
            if not flight.seqs:
                del self._by_lane[flight.lane][flight]

    def drop(self, flight: Flight) -> list[bytes]:
        """Forget a hint; the documents that it had left."""
        del self._by_lane[flight.lane][flight]
        for path in flight.seqs:
            del self._by_path[path]
        return list(flight.seqs)

    def overdue(self, now: float) -> list[Flight]:
        """Those whose deadline has passed."""
        return [flight for lane in self._by_lane for flight in self._first(lane, now)]

    def _first(self, lane: Lane, now: float) -> Iterator[Flight]:
        for flight in self._by_lane[lane]:
            if flight.deadline > now:
                return
            yield flight

    def put_off(self, flight: Flight, deadline: float) -> None:
        """Give a hint more time, to a deadline not before that of any other."""
        flight.deadline = deadline
        del self._by_lane[flight.lane][flight]
        self._by_lane[flight.lane][flight] = None
