"""Pairs of documents in the index that say nearly the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headwater.hit import DuplicatePair
from headwater.index import VectorIndex

__all__ = ["near_duplicates"]

Vector = NDArray[np.float32]
#: documents compared with all others at once
_BLOCK = 1024


@dataclass(slots=True)
class _Sum:
    """The chunks of one document, as they come."""

    path: str
    vector: Vector
    hashes: set[str] = field(default_factory=set)


def near_duplicates(index: VectorIndex, threshold: float, limit: int) -> list[DuplicatePair]:
    """At most ``limit`` pairs whose mean vectors have a cosine similarity of at least ``threshold``, nearest first.

    Reads every vector once and compares every document with every other: the time grows with the square of their
    number (20,000 documents: 8 * 10**10 multiplications).
    """
    documents = _documents(index)
    if len(documents) < 2:
        return []
    means = np.stack([document.vector for document in documents])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    best: list[tuple[float, int, int]] = []
    for pairs in _pairs(means, threshold):
        best = sorted([*best, *pairs], key=lambda pair: (-pair[0], pair[1], pair[2]))[:limit]
    return [_pair(documents[a], documents[b], similarity) for similarity, a, b in best]


def _documents(index: VectorIndex) -> list[_Sum]:
    sums: dict[str, _Sum] = {}
    for point in index.scan(with_vectors=True):
        if point.dense is None or not np.all(np.isfinite(point.dense)):
            continue
        path = str(point.payload["path"])
        held = sums.get(path)
        if held is None:
            held = sums[path] = _Sum(path, np.zeros(point.dense.shape, np.float32))
        held.vector += point.dense
        held.hashes.add(str(point.payload["text_hash"]))
    return sorted(sums.values(), key=lambda found: found.path)


def _pairs(means: Vector, threshold: float) -> Iterator[list[tuple[float, int, int]]]:
    for first in range(0, len(means), _BLOCK):
        rows = means[first : first + _BLOCK]
        similarities = np.clip(rows @ means[first:].T, -1.0, 1.0)
        above, beside = np.nonzero(np.triu(similarities, 1) >= threshold)
        yield [
            (round(float(similarities[a, b]), 6), first + int(a), first + int(b))
            for a, b in zip(above, beside, strict=True)
        ]


def _pair(a: _Sum, b: _Sum, similarity: float) -> DuplicatePair:
    shared = len(a.hashes & b.hashes) / max(1, min(len(a.hashes), len(b.hashes)))
    return DuplicatePair(a.path, b.path, similarity, shared)
