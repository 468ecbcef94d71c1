"""The model's tokenizer as the chunker needs it: the ``tokenizers`` library, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

__all__ = ["ModelTokenizer"]

#: characters tokenised at once: an encoding takes some hundred bytes per token until its offsets are taken out of it
_PIECE = 1_000_000


class ModelTokenizer:
    """Counts tokens as the model will, special tokens left out."""

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def starts(self, text: str) -> Sequence[int]:
        found: list[int] = []
        for first, last in _pieces(text):
            encoded = self._tokenizer.encode(text[first:last], add_special_tokens=False)
            found += [first + start for start, _ in encoded.offsets]
        return found

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(item.ids) for item in encoded]


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Cut a long text at line ends, else at blanks, where no tokenizer joins words; else anywhere."""
    first = 0
    while len(text) - first > _PIECE:
        middle, most = first + _PIECE // 2, first + _PIECE
        last = text.rfind("\n", middle, most)
        last = last if last > 0 else text.rfind(" ", middle, most)
        last = last if last > 0 else most
        yield first, last
        first = last
    yield first, len(text)
