"""Versions of documents whose vectors belong to their texts, for tests of the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headwater.document import document_id, text_hash
from headwater.index import Chunk, DocumentWrite, Sparse, VectorIndex

MODEL, DIMENSION = "model@1", 8


def pieces(texts: Sequence[str]) -> tuple[Chunk, ...]:
    return tuple(Chunk(n, text, text_hash(text), n, n + len(text)) for n, text in enumerate(texts))


def vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector that belongs to a text."""
    raw = np.random.default_rng(int(text_hash(text)[:12], 16)).normal(size=DIMENSION)
    return (raw / np.linalg.norm(raw)).astype(np.float32)


def axis(*weights: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector with these first numbers."""
    raw = np.zeros(DIMENSION, np.float32)
    raw[: len(weights)] = weights
    return raw / np.linalg.norm(raw)


def version(path: str, seq: int, texts: Sequence[str] = (), **changes: Any) -> DocumentWrite:
    """A version of a document with one chunk per text."""
    made = DocumentWrite(
        document_id=document_id(path.encode()),
        path=path,
        seq=seq,
        content_hash=f"hash of {seq}",
        pipeline="p",
        kind="text",
        modified_at="2026-01-02T03:04:05.000000Z",
        size=7,
        chunks=pieces(texts),
        dense=np.stack([vector(text) for text in texts]) if texts else np.zeros((0, DIMENSION), np.float32),
        sparse=[Sparse([11], [1.0]) for _ in texts],
    )
    return replace(made, **changes)


def texts_of(index: VectorIndex, path: str) -> dict[int, str]:
    """Number and text of each stored chunk of a document."""
    payloads = [point.payload for point in index.scan() if point.payload["path"] == path]
    return {payload["chunk"]: payload["text"] for payload in payloads if "text" in payload}
