"""Counts tokens for a budget, by the tokenizer of the model that will read the text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import QueryError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["absolute", "counter"]

#: larger files are no tokenizers: those of large vocabularies have some 20 MB
_MOST_BYTES = 256 * 1024 * 1024


def counter(name: str | None, default: Callable[[], str]) -> Callable[[str], int]:
    """Text -> number of tokens, special ones left out. ``name``: a tokenizer.json, a directory that holds one, or the
    name of a model whose tokenizer.json is in this machine's Hugging Face cache (a question downloads nothing, whoever
    asks it); None: the tokenizer whose JSON ``default`` gives. Raises QueryError."""
    tokenizer = _named(name) if name is not None else _from_json(default())
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def _named(name: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        path = _file(name)
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:  # no pipe or device: reading one may never end
            return _whole(Tokenizer.from_file(str(path)))
    except Exception:  # noqa: S110  the libraries raise plain Exception for all that can be wrong
        pass
    raise QueryError(
        f"the tokenizer {name!r} cannot be loaded: give a tokenizer.json, a directory that holds one, or the name of a "
        "model that is in this machine's Hugging Face cache"
    )


def _file(name: str) -> Path:
    """Where the tokenizer is, which need not be there."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path / "tokenizer.json"
    if path.exists():
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, "tokenizer.json", local_files_only=True))


def absolute(name: str) -> str:
    """The same tokenizer for a process that has another working directory."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


@lru_cache(maxsize=4)
def _from_json(text: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return _whole(Tokenizer.from_str(text))


def _whole(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
