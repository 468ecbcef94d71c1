"""An index that is worth a compaction, and what it holds."""

from __future__ import annotations

import numpy as np
from versions import version

from headwater.document import document_id
from headwater.index import Point, VectorIndex


def wear_out(index: VectorIndex, documents: int = 60) -> None:
    """Write documents and delete two of three: what is left is worth a compaction."""
    for number in range(documents):
        index.apply(version(f"d{number}", 10 + number, [f"text {line} of {number}" for line in range(5)]))
    for number in range(documents):
        if number % 3:
            index.delete(document_id(f"d{number}".encode()), 1_000)


def contents(index: VectorIndex) -> dict[str, tuple[object, object]]:
    """Each point by its id, with its vector to four digits: the engine brings vectors to unit length again."""

    def rounded(point: Point) -> object:
        return None if point.dense is None else tuple(np.round(point.dense, 4) + 0.0)

    return {point.id: (dict(point.payload), rounded(point)) for point in index.scan(with_vectors=True)}
