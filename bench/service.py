"""A running service to measure: started in the background on a folder, asked over its API, ended in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headwater.state import Layout, Service
from producer.status import read_status

_ROOT = Path(__file__).resolve().parents[1]
_DEADLINE_S = 1800.0


def make_free_model(directory: Path) -> Path:
    """A static embedding model: it looks words up, so that embedding costs next to nothing."""
    sys.path.insert(0, str(_ROOT / "tests" / "support"))
    from tiny_model import make_static_model

    return make_static_model(directory)


def wait_until(condition: Callable[[], Any], what: str, every_s: float = 0.005) -> float:
    """Poll; the moment (``time.perf_counter``) at which it was true."""
    ends = time.perf_counter() + _DEADLINE_S
    while not condition():
        if time.perf_counter() > ends:
            raise SystemExit(f"not within {_DEADLINE_S:.0f} s: {what}")
        time.sleep(every_s)
    return time.perf_counter()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Running:
    """``headwater up`` on a folder. Use as a context manager; a state directory may be used again."""

    def __init__(self, folder: Path, state: Path, **environment: str) -> None:
        self.layout = Layout(state)
        self._environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        self._command = [sys.executable, "-m", "headwater", "up", str(folder), "--json", "--state-dir", str(state)]

    def __enter__(self) -> Running:
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, cwd=_ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        if self._process.wait(timeout=120) != 0:
            raise SystemExit(f"the service failed: see {self.layout.logs}")

    def wait_ready(self) -> float:
        """Wait until the model is loaded."""
        return wait_until(self._is_ready, "the service is ready")

    def _is_ready(self) -> bool:
        service = Service.read(self.layout)
        if service is None:
            return False
        try:
            with urllib.request.urlopen(f"{service.url}/readyz") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait_in_step(self, documents: int = 0) -> float:
        """Wait until that many documents are indexed and nothing is due."""

        def in_step() -> bool:
            status = self.status()
            return status["in_step"] and status["checked"] and status["documents"]["indexed"] >= documents

        return wait_until(in_step, "in step", 0.02)

    def status(self) -> dict[str, Any]:
        return read_status(self.layout, running=True)

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        service = Service.read(self.layout)
        assert service is not None
        request = urllib.request.Request(
            service.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def pids(self, part: str) -> list[int]:
        """Processes of this service whose command line contains ``part``."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    environment = (entry / "environ").read_bytes().decode("utf-8", "replace")
                except (OSError, UnicodeDecodeError):
                    continue
                if part in command and str(self.layout.root) in command + environment:
                    found.append(int(entry.name))
        return found

    def memory_mb(self, part: str) -> float:
        """Proportional memory (proc(5), Pss) of a part's processes, in MB."""
        total = 0
        for pid in self.pids(part):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1000

    def last_scan(self) -> tuple[int, float, int]:
        """Files, seconds and changes of the producer's last scan, from its log."""
        log = (self.layout.logs / "producer.log").read_text()
        files, seconds, changes = re.findall(r"scanned (\d+) files in ([0-9.]+) s, (\d+) changes", log)[-1]
        return int(files), float(seconds), int(changes)
