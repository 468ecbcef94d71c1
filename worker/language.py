"""The language of a document, for the stemmer and stop words of its lexical terms."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from headwater.lexical import LANGUAGES

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

__all__ = ["Language"]

#: characters that are looked at, from the beginning: as many as decide nearly always (0.2 ms)
_SAMPLE_CHARACTERS = 400
#: probability below which a text has no language that is known
_LEAST_PROBABILITY = 0.8
#: fewer letters tell nothing
_LEAST_LETTERS = 12
#: English words that hold little and stand everywhere, none of them frequent in another language; at this share of a
#: text's words they tell it as surely as the tables do, which a folder of English documents then never needs
_ENGLISH = frozenset({"the", "and", "that", "with", "which", "this", "from", "are", "you", "when", "was"})
_ENGLISH_SHARE = 0.06
_LEAST_ENGLISH = 3
#: fields of a document that may name its language
_FIELDS = ("lang", "language")
#: kinds that are written in no natural language
_ARTIFICIAL = frozenset({"code", "csv", "json", "xml", "toml", "yaml", "ini"})


class Language:
    """Tells languages as ISO 639-1 codes, None where it is not clear. With ``setting`` "auto" by character n-grams
    (langid.py: Lui, Baldwin 2012); else all documents have the language that it names. Safe to use from several
    threads. The same text always has the same language."""

    def __init__(self, setting: str = "auto") -> None:
        self._fixed = None if setting == "auto" else setting
        self._identifier: LanguageIdentifier | None = None
        self._lock = threading.Lock()

    def of(self, kind: str, texts: Iterable[str], metadata: Mapping[str, object]) -> str | None:
        """Of a document of this kind that begins with these texts. What it says itself goes before a guess."""
        if self._fixed is not None:
            return self._fixed
        if (declared := _declared(metadata)) is not None or kind in _ARTIFICIAL:
            return declared
        sample = _sample(texts)
        if sum(map(str.isalpha, sample)) < _LEAST_LETTERS:
            return None
        if _is_plainly_english(sample):
            return "en"
        code, probability = self._load().classify(sample)
        return str(code) if probability >= _LEAST_PROBABILITY else None

    def _load(self) -> LanguageIdentifier:
        """The identifier; its tables take 0.8 s to unpack the first time, and 60 MB."""
        with self._lock:
            if self._identifier is None:
                from py3langid.langid import MODEL_FILE, LanguageIdentifier

                self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
            return self._identifier


def _is_plainly_english(text: str) -> bool:
    words = re.findall(r"[^\W\d_]+", text.lower())
    found = [word for word in words if word in _ENGLISH]
    return len(found) >= max(_LEAST_ENGLISH, _ENGLISH_SHARE * len(words)) and len(set(found)) > 1


def _declared(metadata: Mapping[str, object]) -> str | None:
    """By a field such as "lang: de-AT", if it names a language that makes a difference."""
    for name in _FIELDS:
        code = re.split("[-_]", str(metadata.get(name, "")).strip().lower())[0]
        if code in LANGUAGES:
            return code
    return None


def _sample(texts: Iterable[str]) -> str:
    sample = ""
    for text in texts:
        sample += f"{text[:_SAMPLE_CHARACTERS]}\n"
        if len(sample) >= _SAMPLE_CHARACTERS:
            break
    return sample[:_SAMPLE_CHARACTERS]
