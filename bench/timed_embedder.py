"""An embedder that takes time and no processor: HEADWATER_MODEL=python:bench.timed_embedder:make.

It stands for a model on another device. A batch of up to 64 texts takes ``HWBENCH_BATCH_S`` seconds (0: a model of no
cost); vectors have the size of the default model's, and the tokenizer is that model's.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from word_embedder import WordEmbedder  # the path is set above

__all__ = ["BATCH", "MODEL", "make"]

MODEL = "python:bench.timed_embedder:make"
#: texts in a batch
BATCH = 64
_DIMENSION = 384
#: of every text, so that batches are filled: 64 of them make the default token budget
_LENGTH = 128


def make(settings: Any) -> TimedEmbedder:
    return TimedEmbedder(float(os.environ.get("HWBENCH_BATCH_S", "0")))


class TimedEmbedder(WordEmbedder):
    """Each text's vector is one of 384 directions, slightly off the axis: no two numbers of a request are alike."""

    batch_size = BATCH

    def __init__(self, batch_s: float) -> None:
        super().__init__(_DIMENSION)
        self.name = f"timed@{_DIMENSION}"
        self._batch_s = batch_s
        noise = np.random.default_rng(1).normal(0, 0.05, (_DIMENSION, _DIMENSION)) + np.eye(_DIMENSION)
        self._rows = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)

    def lengths(self, texts: Sequence[str], kind: str) -> Sequence[int]:
        return [_LENGTH] * len(texts)

    def encode(self, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
        if self._batch_s:
            time.sleep(self._batch_s)
        return self._rows[[zlib.crc32(text.encode()) % _DIMENSION for text in texts]]
