"""Text -> sparse vectors for lexical search: BM25 (Robertson, Zaragoza 2009) as the engine encodes it, by language.

The same encoder serves both adapters, so that an index made by one can be asked through the other. The inverse
document frequency is applied by the engine at query time (modifier IDF). A question is encoded in every language that
the index holds, and the terms are joined: three words do not tell their language, and a stem of a language that the
documents do not have finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import qdrant_edge as edge

from headwater.index import Sparse

__all__ = ["DEFAULT_LANGUAGE", "LANGUAGES", "Bm25Encoder"]

#: languages (ISO 639-1) for which the engine has a stemmer or stop words, with its names of them
LANGUAGES = {
    "ar": "arabic", "az": "azerbaijani", "bn": "bengali", "ca": "catalan", "da": "danish", "de": "german",
    "el": "greek", "en": "english", "es": "spanish", "eu": "basque", "fi": "finnish", "fr": "french", "he": "hebrew",
    "hu": "hungarian", "id": "indonesian", "it": "italian", "kk": "kazakh", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sl": "slovene", "sv": "swedish",
    "tg": "tajik", "tr": "turkish",
}  # fmt: skip
#: for text of no language that is known, code and data among it
DEFAULT_LANGUAGE = "en"
#: words of a chunk, on average, that the length normalisation of BM25 compares with
_AVERAGE_WORDS = 100.0
#: scripts that put no blank between words: Han, kana, Hangul, Thai, Lao, Khmer, Burmese
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)


class Bm25Encoder:
    """BM25 with k = 1.2 and b = 0.75; stemming and stop words by language. Runs of a script without blanks become
    overlapping pairs of characters, as Lucene's CJKBigramFilter makes them. Safe to use from several threads."""

    def document(self, text: str, language: str | None = None) -> Sparse:
        """Term weights of a document's chunk. ``language``: ISO 639-1; None or one without a stemmer: English."""
        encoded = _model(_known(language)).embed_document(_UNSPACED.sub(_pairs, text))
        return Sparse(encoded.indices, encoded.values)

    def query(self, text: str, languages: Iterable[str] = ()) -> Sparse:
        """Terms of a query in each of these languages and in the default one; empty if it holds none (only stop words,
        say)."""
        spaced = _UNSPACED.sub(_pairs, text)
        terms: dict[int, float] = {}
        for language in sorted({_known(DEFAULT_LANGUAGE), *map(_known, languages)}):
            encoded = _model(language).embed_query(spaced)
            terms |= dict(zip(encoded.indices, encoded.values, strict=True))
        return Sparse(list(terms), list(terms.values()))


@cache
def _model(name: str) -> edge.Bm25:
    return edge.Bm25(edge.Bm25Config(language=name, avg_len=_AVERAGE_WORDS))


def _known(language: str | None) -> str:
    return LANGUAGES.get(language or DEFAULT_LANGUAGE, LANGUAGES[DEFAULT_LANGUAGE])


def _pairs(run: re.Match[str]) -> str:
    text = run[0]
    pairs = (text[at : at + 2] for at in range(max(1, len(text) - 1)))
    return f" {' '.join(pairs)} "
