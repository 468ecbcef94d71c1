"""The worker's pipeline in this process: real extraction children, chunker and index, without a service around them."""

from __future__ import annotations

import os
from pathlib import Path

from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from headwater.settings import Settings
from worker.pipeline import Embed, Pipeline
from worker.sandboxes import SandboxPool

__all__ = ["open_pipeline"]


def open_pipeline(
    root: Path, index: EdgeIndex, embed: Embed, tokenizer: str, homes: Path, settings: Settings
) -> tuple[Pipeline, SandboxPool]:
    """A pipeline over a folder, and the extraction children that its owner has to close."""
    sandboxes = SandboxPool(
        tokenizer,
        homes=homes,
        max_tokens=settings.chunk_tokens,
        timeout_s=settings.extract_timeout_s,
        memory_bytes=settings.sandbox_memory_bytes,
    )
    pipeline = Pipeline(
        root=os.fsencode(root),
        index=index,
        embed=embed,
        encode_sparse=Bm25Encoder().document,
        extractor=sandboxes,
        pipeline_fingerprint=settings.pipeline_fingerprint(),
        max_file_bytes=settings.max_file_bytes,
    )
    return pipeline, sandboxes
