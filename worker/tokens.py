"""The model's tokenizer as the chunker needs it: the ``tokenizers`` library, without torch."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

__all__ = ["ModelTokenizer"]


class ModelTokenizer:
    """Counts tokens as the model will, special tokens left out."""

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def starts(self, text: str) -> Sequence[int]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [start for start, _ in encoded.offsets]

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(item.ids) for item in encoded]
