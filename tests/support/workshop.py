"""A worker's pipeline over a folder in this process: real extraction children, chunker and embedded index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headwater.embedder import Embedder
from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from worker.language import Language
from worker.pipeline import Pipeline, Stored
from worker.sandboxes import SandboxPool

__all__ = ["opened_pipeline"]


@contextmanager
def opened_pipeline(
    folder: Path, work: Path, embedder: Embedder, max_tokens: int, stored: Stored | None = None
) -> Iterator[tuple[Pipeline, EdgeIndex]]:
    """With the index that it writes; all of it is in ``work``, and closed at the end."""
    pool = SandboxPool(
        embedder.tokenizer_json,
        homes=work / "homes",
        max_tokens=max_tokens,
        timeout_s=60,
        memory_bytes=2 * 1024**3,
        size=1,
        language=Language(),
    )
    index = EdgeIndex(work / "index", work / "index.json")
    index.ensure_schema(embedder.name, embedder.dimension)
    yield (
        Pipeline(
            root=os.fsencode(folder),
            index=index,
            embed=lambda texts, lane: (embedder.encode(list(texts), "document"), len(texts)),
            encode_sparse=Bm25Encoder().document,
            extractor=pool,
            pipeline_fingerprint="p",
            max_file_bytes=1 << 20,
            stored=stored,
        ),
        index,
    )
    pool.close()
    index.close()
