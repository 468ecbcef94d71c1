"""Maximal marginal relevance: hits that answer the question and do not repeat each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headwater.index import ScoredChunk

__all__ = ["diverse"]

Vector = NDArray[np.float32]


def diverse(query: Vector, found: Sequence[ScoredChunk], number: int, diversity: float) -> list[ScoredChunk]:
    """``number`` of the hits, each the best by (1 - diversity) * its similarity to the query - diversity * its
    similarity to the nearest hit before it (Carbonell, Goldstein 1998; their lambda is 1 - diversity). All must carry
    unit vectors, as the query does, shape [dimension]. Hits keep their scores."""
    usable = [chunk for chunk in found if chunk.dense is not None]
    if not usable:
        return list(found[:number])
    vectors = np.stack([chunk.dense for chunk in usable if chunk.dense is not None])
    relevance = (1.0 - diversity) * (vectors @ query)
    nearest = np.full(len(usable), -1.0, np.float32)
    chosen: list[int] = []
    left = np.ones(len(usable), bool)
    while len(chosen) < min(number, len(usable)):
        penalty = diversity * nearest if chosen else 0.0
        best = int(np.argmax(np.where(left, relevance - penalty, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return [usable[at] for at in chosen]
