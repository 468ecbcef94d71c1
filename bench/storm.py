"""A storm of new files into a watched folder: memory of producer and broker while they come and are indexed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from bench.service import Running, make_free_model, memory_mb
from bench.small import WORDS, write_paragraphs
from headwater.settings import Settings
from headwater.state import find_layout

_EVERY_S = 0.5


def run(work: Path, files: int) -> dict[str, Any]:
    """Write so many files of one paragraph into 100 directories of a folder that a service follows."""
    folder, state = work / "folder", work / "state"
    folder.mkdir()
    with Running(folder, state, HEADWATER_MODEL=str(make_free_model(work, WORDS))) as service:
        service.wait_ready()
        service.wait_all()
        watch = _Watch(service, state)
        began = time.perf_counter()
        watch.start()
        write_paragraphs(folder, files, directories=100)
        written = time.perf_counter() - began
        in_step = service.wait_all(files) - began
        watch.stop()
        results = {
            "files": files,
            "written_s": written,
            "in_step_s": in_step,
            "embedded": service.peek()["embedded_texts_total"],
            "producer_before_mb": watch.before,
            "producer_peak_mb": watch.peak,
            "producer_after_mb": memory_mb(watch.pids),
            **_broker(state),
        }
    _show(results)
    return results


class _Watch(threading.Thread):
    """Looks at the producer's memory all the time."""

    def __init__(self, service: Running, state: Path) -> None:
        super().__init__(daemon=True)
        self.pids = service.children("headwater watch")
        self.before = self.peak = memory_mb(self.pids)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.peak = max(self.peak, memory_mb(self.pids))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _broker(state: Path) -> dict[str, float]:
    """What the broker itself says: bytes that it held at most (INFO memory), now and when it was empty."""
    with redis.Redis(unix_socket_path=str(find_layout(Settings.load(state_dir=state)).socket)) as client:
        memory = client.info("memory")
    return {
        "broker_peak_mb": memory["used_memory_peak"] / 1e6,
        "broker_after_mb": memory["used_memory"] / 1e6,
        "broker_empty_mb": memory["used_memory_startup"] / 1e6,
    }


def _show(results: dict[str, Any]) -> None:
    table = Table(title=f"storm of {results['files']} new files", show_header=False)
    table.add_row("written within", f"{results['written_s']:.1f} s")
    table.add_row("in step after", f"{results['in_step_s']:.1f} s, {results['embedded']} texts embedded")
    producer = [results[f"producer_{when}_mb"] for when in ("before", "peak", "after")]
    table.add_row("producer before, at most, after", " / ".join(f"{figure:.0f}" for figure in producer) + " MB")
    broker = [results[f"broker_{when}_mb"] for when in ("empty", "peak", "after")]
    table.add_row("broker empty, at most, after", " / ".join(f"{figure:.1f}" for figure in broker) + " MB")
    Console().print(table)
