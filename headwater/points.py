"""Raw access to the points of an index, vectors included: in this process, or in the service that holds the index.

On the wire a point is {"id", "payload", "dense", "sparse"}; numbers of vectors are base64 of little-endian 32-bit
values, which keeps them exact (NaN included) and short.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headwater.errors import QueryError
from headwater.index import BATCH_POINTS, Manifest, Point, SeenPoint, Sparse, VectorIndex

__all__ = [
    "LocalPoints",
    "NoPoints",
    "Points",
    "RemotePoints",
    "answer_discard",
    "answer_points",
    "pages",
    "point_from_wire",
    "point_to_wire",
]


class Points(Protocol):
    """The points of one index. Safe to use from several threads. Raises RetryableError if it does not answer."""

    def manifest(self) -> Manifest | None:
        """What the index was made with; None if there is none."""
        ...

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
        """As ``VectorIndex.page``."""
        ...

    def discard(self, points: Sequence[SeenPoint]) -> None:
        """As ``VectorIndex.discard``, and durable when it returns."""
        ...

    def close(self) -> None: ...


class Paged(Protocol):
    """What has points to page through: an index, or ``Points``."""

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]: ...


def pages(points: Paged, document_id: str | None = None) -> Iterator[list[Point]]:
    """All pages, one after the other."""
    offset: str | None = None
    while True:
        found, offset = points.page(offset, document_id)
        yield found
        if offset is None:
            return


class LocalPoints:
    """Of an index that this process has opened; closes it. With ``source`` only those of the folder of this name."""

    def __init__(self, index: VectorIndex, manifest: Manifest, source: str | None = None) -> None:
        self._index = index
        self._manifest = manifest
        self._source = source

    def manifest(self) -> Manifest | None:
        return self._manifest

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
        return self._index.page(offset, document_id, self._source)

    def discard(self, points: Sequence[SeenPoint]) -> None:
        self._index.discard(points)
        self._index.flush()

    def close(self) -> None:
        self._index.close()


class NoPoints:
    """Of an index that is not there."""

    def manifest(self) -> Manifest | None:
        return None

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
        return [], None

    def discard(self, points: Sequence[SeenPoint]) -> None:
        """Nothing is there to go."""

    def close(self) -> None:
        """Nothing was opened."""


class Ask(Protocol):
    """Posts a body to a path of the service: ``RemoteEngine.post``."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> Any: ...


class RemotePoints:
    """Of the index that the running service holds. ``ask`` carries the token of the state directory."""

    def __init__(self, ask: Ask, manifest: Manifest | None) -> None:
        self._ask = ask
        self._manifest = manifest

    def manifest(self) -> Manifest | None:
        return self._manifest

    def page(self, offset: str | None = None, document_id: str | None = None) -> tuple[list[Point], str | None]:
        answer = self._ask("/v1/points", {"offset": offset, "document_id": document_id})
        return [point_from_wire(raw) for raw in answer["points"]], answer["next"]

    def discard(self, points: Sequence[SeenPoint]) -> None:
        for first in range(0, len(points), BATCH_POINTS):
            batch = points[first : first + BATCH_POINTS]
            self._ask("/v1/discard", {"points": [[point.id, point.seq] for point in batch]})

    def close(self) -> None:
        """The service keeps its index."""


# -- the service's side -----------------------------------------------------------------------------------------


def answer_points(index: VectorIndex, body: Mapping[str, Any]) -> dict[str, Any]:
    """One page: {"offset", "document_id"} -> {"points": [...], "next": offset or null}. Raises QueryError."""
    offset, document = body.get("offset"), body.get("document_id")
    if not all(value is None or isinstance(value, str) for value in (offset, document)):
        raise QueryError("offset and document_id must be texts")
    points, following = index.page(offset, document)
    return {"points": [point_to_wire(point) for point in points], "next": following}


def answer_discard(index: VectorIndex, body: Mapping[str, Any]) -> dict[str, Any]:
    """Fenced deletion: {"points": [[id, seq or null], ...]} -> {"ok": true}. Raises QueryError."""
    named = body.get("points")
    if not isinstance(named, list):
        raise QueryError("points must be a list of ids with the seq that was seen")
    seen = [_seen(raw) for raw in named]
    index.discard(seen)
    index.flush()
    return {"ok": True}


def _seen(raw: object) -> SeenPoint:
    match raw:
        case [str(name), (int() | float() | None) as seq] if not isinstance(seq, bool):
            return SeenPoint(name, seq)
    raise QueryError("each point must be a list of its id and the seq that was seen, or null")


# -- the wire ---------------------------------------------------------------------------------------------------


def point_to_wire(point: Point) -> dict[str, Any]:
    wire: dict[str, Any] = {"id": point.id, "payload": dict(point.payload)}
    if point.dense is not None:
        wire["dense"] = _packed(point.dense, "<f4")
    if point.sparse is not None:
        wire["sparse"] = [_packed(point.sparse.indices, "<u4"), _packed(point.sparse.values, "<f4")]
    return wire


def point_from_wire(wire: Mapping[str, Any]) -> Point:
    """The inverse of ``point_to_wire``."""
    dense, sparse = wire.get("dense"), wire.get("sparse")
    return Point(
        id=wire["id"],
        payload=wire["payload"],
        dense=None if dense is None else _unpacked(dense, "<f4").astype(np.float32),
        sparse=None
        if sparse is None
        else Sparse(_unpacked(sparse[0], "<u4").tolist(), _unpacked(sparse[1], "<f4").tolist()),
    )


def _packed(numbers: Sequence[float] | NDArray[np.float32], kind: DTypeLike) -> str:
    return base64.b64encode(np.asarray(numbers, kind).tobytes()).decode("ascii")


def _unpacked(text: str, kind: DTypeLike) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind)
