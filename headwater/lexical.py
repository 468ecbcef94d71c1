"""Text -> sparse vectors for lexical search: BM25 (Robertson, Zaragoza 2009) as the engine encodes it.

The same encoder serves both adapters, so that an index made by one can be asked through the other. The inverse
document frequency is applied by the engine at query time (modifier IDF).
"""

from __future__ import annotations

import qdrant_edge as edge

from headwater.index import Sparse

__all__ = ["Bm25Encoder"]

#: words of a chunk, on average, that the length normalisation of BM25 compares with
_AVERAGE_WORDS = 100.0


class Bm25Encoder:
    """BM25 with k = 1.2, b = 0.75, English stemming and stop words."""

    def __init__(self) -> None:
        self._model = edge.Bm25(edge.Bm25Config(language="english", avg_len=_AVERAGE_WORDS))

    def document(self, text: str) -> Sparse:
        """Term weights of a document's chunk."""
        encoded = self._model.embed_document(text)
        return Sparse(encoded.indices, encoded.values)

    def query(self, text: str) -> Sparse:
        """Terms of a query; empty if it holds none (only stop words, say)."""
        encoded = self._model.embed_query(text)
        return Sparse(encoded.indices, encoded.values)
