"""A second look at the candidates of a search, by a model that reads question and chunk together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from headwater.errors import ModelError
from headwater.index import ScoredChunk
from headwater.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["Reranker"]


class Reranker:
    """A sentence-transformers CrossEncoder (Nogueira, Cho 2019), loaded at its first use. Safe to use from several
    threads, which take turns."""

    def __init__(self, model: str, *, device: str = "auto", most_tokens: int = 16_384) -> None:
        """``model``: name or local path. ``most_tokens`` bounds the work for one question: its candidates are read,
        best first, until so many tokens of pairs are reached; the others keep their order behind them."""
        self._name = model
        self._device = None if device == "auto" else device
        self._most_tokens = most_tokens
        self._model: CrossEncoder | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None if no model is configured."""
        if settings.reranker is None:
            return None
        return cls(settings.reranker, device=settings.device, most_tokens=settings.rerank_tokens)

    def rank(self, question: str, found: Sequence[ScoredChunk]) -> list[ScoredChunk]:
        """Best first, with the model's scores; those beyond the token budget follow with the scores they had. Raises
        ModelError."""
        if not found:
            return []
        with self._lock:
            model = self._loaded()
            read = self._affordable(model, question, found)
            pairs = [(question, str(chunk.payload["text"])) for chunk in read]
            try:
                scores = model.predict(pairs, show_progress_bar=False)
            except Exception as error:  # whatever a model does with a text
                raise ModelError(f"the ranking model {self._name} failed: {error}") from error
        scored = [replace(chunk, score=float(score)) for chunk, score in zip(read, scores, strict=True)]
        return [*sorted(scored, key=lambda chunk: -chunk.score), *found[len(read) :]]

    def _affordable(self, model: CrossEncoder, question: str, found: Sequence[ScoredChunk]) -> list[ScoredChunk]:
        """At least one."""
        texts = [str(chunk.payload["text"]) for chunk in found]
        lengths = [len(ids) for ids in model.tokenizer([question] * len(texts), texts)["input_ids"]]
        total = 0
        for number, length in enumerate(lengths):
            total += min(length, model.max_seq_length or length)
            if total > self._most_tokens:
                return list(found[: max(1, number)])
        return list(found)

    def _loaded(self) -> CrossEncoder:
        if self._model is None:
            from sentence_transformers import CrossEncoder

            try:
                self._model = CrossEncoder(self._name, device=self._device)
            except Exception as error:  # a library's many ways to say that a model is not there
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ModelError(
                    f"the ranking model {self._name!r} cannot be loaded ({reason[:200]}): HEADWATER_RERANKER must be a "
                    "cross-encoder's directory, or a name that the model hub has"
                ) from None
            if self._model.num_labels != 1:
                raise ModelError(
                    f"the model {self._name!r} gives {self._model.num_labels} labels: a ranking model gives 1"
                )
        return self._model
