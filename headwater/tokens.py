"""Counts tokens for a budget, by the tokenizer of the model that will read the text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import QueryError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["counter"]


def counter(name: str | None, default: Callable[[], str]) -> Callable[[str], int]:
    """Text -> number of tokens, special ones left out. ``name``: a tokenizer.json, a directory that holds one, or a
    name that the model hub has; None: the tokenizer whose JSON ``default`` gives. Raises QueryError."""
    tokenizer = _named(name) if name is not None else _from_json(default())
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def _named(name: str) -> Tokenizer:
    from tokenizers import Tokenizer

    path = Path(name).expanduser()
    try:
        if path.is_dir():
            path = path / "tokenizer.json"
        return _whole(Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(name))
    except Exception as error:  # the library raises plain Exception for all that can be wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QueryError(
            f"the tokenizer {name!r} cannot be loaded ({reason[:200]}): give a tokenizer.json, a directory that holds "
            "one, or a name that the model hub has"
        ) from None


@lru_cache(maxsize=4)
def _from_json(text: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return _whole(Tokenizer.from_str(text))


def _whole(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
