"""An embedder that a function of one's own makes."""

from __future__ import annotations

import numpy as np
import pytest
import word_embedder

from headwater.embedder import load_embedder
from headwater.errors import ModelError
from headwater.settings import Settings


def broken(settings: Settings) -> None:
    raise ValueError("no weights\nhere")


def test_a_function_makes_the_embedder_from_the_settings() -> None:
    embedder = load_embedder(Settings.load(model=word_embedder.MODEL, truncate_dim=16))
    rows = embedder.encode(["the blue pump", "the blue pump drains", "owls at night"], "document")
    assert rows.shape == (3, 16) == (3, embedder.dimension)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("no_such_module:make", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("word_embedder:none", "AttributeError"),
        ("not a place", "ValueError"),
    ],
)
def test_what_cannot_be_made_is_one_sentence_that_says_how_to_name_it(place: str, why: str) -> None:
    with pytest.raises(ModelError) as raised:
        load_embedder(Settings.load(model=f"python:{place}"))
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert f"the embedder {place!r} cannot be made ({why}" in sentence
    assert "name a function as package.module:function" in sentence


def test_what_is_no_embedder_is_told_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_embedder, "nothing", lambda settings: None, raising=False)
    with pytest.raises(ModelError, match=r"makes is no embedder, it has no batch_size, .*, window: give it"):
        load_embedder(Settings.load(model="python:word_embedder:nothing"))


def test_the_first_line_of_its_own_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_embedder, "broken", broken, raising=False)
    with pytest.raises(ModelError, match=r"\(ValueError: no weights\)"):
        load_embedder(Settings.load(model="python:word_embedder:broken"))
