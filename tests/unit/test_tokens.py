"""The model's tokenizer on texts of any length."""

from __future__ import annotations

import random

import pytest

from worker import tokens
from worker.tokens import ModelTokenizer


@pytest.mark.parametrize("between", ["\n", " ", " \n\n ", "\u00a0", "-"])
def test_a_text_cut_into_pieces_has_the_tokens_of_the_whole(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    chance = random.Random(1)
    words = ["heron", "unbelievably", "quarrelsome", "\u6c34\u9ce5", "don't", "x", "3.14", "\U0001f426"]
    text = between.join(chance.choice(words) for _ in range(3000))
    whole = tokenizer.starts(text)
    monkeypatch.setattr(tokens, "_PIECE", 1000)
    assert len(list(tokens._pieces(text))) > 10
    if between in ("\u00a0", "-"):  # cut anywhere: a word may be, and nothing else
        assert abs(len(tokenizer.starts(text)) - len(whole)) < len(text) / 100
    else:
        assert tokenizer.starts(text) == whole


def test_the_pieces_of_a_text_are_the_text() -> None:
    text = "a" * 1_500_000 + "\n" + "b c" * 900_000
    pieces = list(tokens._pieces(text))
    assert "".join(text[first:last] for first, last in pieces) == text
    assert all(last - first <= 1_000_000 for first, last in pieces)
