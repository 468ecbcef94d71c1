"""Counts what any process gives to a model: one line "TEXTS CHARACTERS" per ``SentenceTransformer.encode``.

Python imports a module of this name at its start, so with this directory in PYTHONPATH all peers are counted alike, in
all of their processes. The lines go to the file that BENCH_COUNTS names. Texts that begin with BENCH_PROBE are the
driver's own questions, and not counted.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from typing import Any


class _CountEncode(importlib.abc.MetaPathFinder):
    """Finds the library as usual, and wraps ``encode`` once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "sentence_transformers":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then_count(spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _then_count(load: Any) -> Any:
    def exec_module(module: Any) -> None:
        load(module)
        module.SentenceTransformer.encode = _counted(module.SentenceTransformer.encode)

    return exec_module


def _counted(encode: Any) -> Any:
    @functools.wraps(encode)
    def counting(self: Any, sentences: Any, *arguments: Any, **options: Any) -> Any:
        given = [sentences] if isinstance(sentences, str) else sentences
        texts = [text for text in given if not text.startswith(os.environ["BENCH_PROBE"])]
        if texts:
            with open(os.environ["BENCH_COUNTS"], "a") as counts:
                counts.write(f"{len(texts)} {sum(map(len, texts))}\n")
        return encode(self, sentences, *arguments, **options)

    return counting


if "BENCH_COUNTS" in os.environ:
    sys.meta_path.insert(0, _CountEncode())
