"""Two versions of one text, plain and from HTML, made one without saying everything twice. Pure: no I/O."""

from __future__ import annotations

import re

__all__ = ["merged"]

#: A version that has less than this share of the other's words is a stub.
_MIN_SHARE = 0.5
_WORD = re.compile(r"\w+")
_ADDRESS = re.compile(r"\S+://\S+")


def merged(plain: str, rich: str) -> str:
    """The plain version unless it is a stub, and below it the lines of the other that say something else."""
    if not plain.strip() or not rich.strip():
        return plain if plain.strip() else rich
    plain_words, rich_words = _words(plain), _words(rich)
    is_stub = len(plain_words & rich_words) < _MIN_SHARE * len(rich_words)
    main, other, known = (rich, plain, rich_words) if is_stub else (plain, rich, plain_words)
    more = [line for line in other.split("\n") if not _words(line) <= known]
    return "\n\n".join((main.strip("\n"), "\n".join(more))) if more else main


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(_ADDRESS.sub(" ", text))}
