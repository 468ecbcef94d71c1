"""Which words a text has already, whatever its white space, marks and case. Pure: no I/O."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["Known"]

#: Letters up to which words must be found as whole words: so few stand in any text by chance.
_FEW_LETTERS = 8
#: Characters that all searches of one text may pass over; beyond, what is asked for counts as new.
MAX_SEARCHED = 4_000_000_000
_NO_LETTERS = re.compile(r"[\W_]+")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class Known:
    """Asked in the order of the text, it answers without searching it from the start each time."""

    def __init__(self, text: str) -> None:
        plain = _plain(text)
        #: Words, and the letters of whole lines and cells: the library may part a word or join two.
        self._words = set(_NO_LETTERS.split(plain))
        self._words.update(_NO_LETTERS.sub("", line) for line in re.split(r"[\n|]", plain))
        self._letters = _NO_LETTERS.sub("", plain)
        self._at = 0
        self._left = MAX_SEARCHED

    def has(self, words: str, pieces: list[str]) -> bool:
        """Whether the words stand in the text, together or piece by piece."""
        plain = _plain(words)
        letters = _NO_LETTERS.sub("", plain)
        if len(letters) < _FEW_LETTERS:
            return letters in self._words or self._words.issuperset(_NO_LETTERS.split(plain))
        return self._finds(letters) or (
            len(pieces) > 1 and all(self._finds(_NO_LETTERS.sub("", _plain(piece))) for piece in pieces)
        )

    def _finds(self, letters: str) -> bool:
        if not letters or self._left < 0:
            return not letters
        at = self._letters.find(letters, self._at)
        self._left -= (at if at >= 0 else len(self._letters)) - self._at
        if at < 0:
            at = self._letters.find(letters)
            self._left -= at if at >= 0 else len(self._letters)
        if at >= 0 and len(letters) >= _FEW_LETTERS:
            self._at = at
        return at >= 0
