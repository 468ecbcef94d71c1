"""A running service to measure: the tests' driver of real processes, and figures of their memory and scans."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from driver import Headwater, wait_until  # the path is set above
from tiny_model import make_static_model

__all__ = ["Running", "make_free_model", "make_static_model", "memory_mb", "percentile"]

_DEADLINE_S = 1800.0


def make_free_model(directory: Path, words: Sequence[str]) -> Path:
    """A model of no cost, for rows about everything else: a table of these words, that are parted at blanks."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    unknown = "[UNK]"
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate([unknown, *words])}, unk_token=unknown))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32), Normalize()], device="cpu")
    model.save(str(directory / "model"))
    return directory / "model"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def memory_mb(pids: Iterable[int], kind: str = "Pss") -> float:
    """Proportional memory of processes in MB (proc(5)): all of it (Pss), or without mapped files (Pss_Anon)."""
    found = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        found += sum(map(int, re.findall(rf"^{kind}: +(\d+)", text, re.MULTILINE)))
    return found / 1000


class Running(Headwater):
    """``headwater up`` on a folder, from ``with`` to its end; a state directory may be used again."""

    def __init__(self, folder: Path, state: Path, **environment: str) -> None:
        super().__init__(folder, state, environment={"HF_HUB_OFFLINE": "1", **environment})

    def __enter__(self) -> Running:
        self.started = time.perf_counter()
        self.up(in_step=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self.stop() != 0:
            raise SystemExit(f"the service failed: {self.logs()}")

    def wait_ready(self) -> float:
        """Wait until the model is loaded; the moment (``time.perf_counter``)."""
        wait_until(lambda: self.alive() and self.ready(), "the service is ready", _DEADLINE_S)
        return time.perf_counter()

    def wait_all(self, documents: int = 0) -> float:
        """Wait until so many documents are indexed and nothing is due; the moment."""

        def done() -> bool:
            found = self.peek()
            return found["in_step"] and found["checked"] and found["documents"]["indexed"] >= documents

        wait_until(done, "in step", _DEADLINE_S)
        return time.perf_counter()

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.peek()["api"] + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def last_scan(self) -> tuple[int, float, int]:
        """Files, seconds and changes of the producer's last scan, from its log."""
        log = (self.state / "logs" / "producer.log").read_text()
        files, seconds, changes = re.findall(r"scanned (\d+) files in ([0-9.]+) s, (\d+) changes", log)[-1]
        return int(files), float(seconds), int(changes)
