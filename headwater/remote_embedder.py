"""An embedder whose model is in a worker: questions go there over HTTP, and this process needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headwater.client import RemoteEngine
from headwater.errors import ModelError, ServiceUnavailable
from headwater.settings import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from headwater.embedder import Kind

__all__ = ["RemoteEmbedder"]


class RemoteEmbedder:
    """``headwater.embedder.Embedder`` for questions. Raises ServiceUnavailable if no worker answers."""

    parameters = 0
    parallel = 1
    batch_size = 1
    #: the worker refuses what its model would cut off
    window = 1_000_000

    def __init__(self, settings: Settings) -> None:
        assert settings.embed_url is not None
        self._url = settings.embed_url
        self._worker = RemoteEngine(self._url)
        try:
            model = self._worker.post("/v1/model", {})
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"no worker answers at HEADWATER_EMBED_URL={self._url}: start 'headwater work --serve' ({error})"
            ) from None
        self.name: str = model["name"]
        self.dimension: int = model["dimension"]
        self.tokenizer_json: str = model["tokenizer"]

    def enter_thread(self) -> None: ...

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        return [self.count_tokens(text) for text in texts]

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[str], kind: Kind) -> NDArray[np.float32]:
        if kind != "query":
            raise ModelError("HEADWATER_EMBED_URL is for questions: unset it where documents are embedded")
        vectors = [self._worker.post("/v1/embed", {"text": text})["vector"] for text in texts]
        return np.asarray(vectors, np.float32).reshape(len(texts), self.dimension)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.tokenizer_json)
