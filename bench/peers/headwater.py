"""Headwater itself, asked in the peers' protocol: ``headwater up``, with ``--once`` for a sync."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.peers.protocol import HITS, main
from headwater.client import RemoteEngine
from headwater.points import RemotePoints, pages
from headwater.state import Layout, Service

_POLL_S = 0.05


class Headwater:
    """The service, in processes of its own; all answers come from its query API."""

    def __init__(self, folder: Path, state: Path) -> None:
        options = ["--json", "--state-dir", str(state)]
        self._command = [sys.executable, "-P", "-m", "headwater", "up", str(folder), *options]
        self._layout = Layout(state)
        self._up: subprocess.Popen[bytes] | None = None
        self._engine: RemoteEngine | None = None

    def sync(self) -> None:
        subprocess.run([*self._command, "--once"], check=True, stdin=subprocess.DEVNULL)

    def watch(self) -> None:
        self._up = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        while (service := Service.read(self._layout)) is None:
            time.sleep(_POLL_S)
        self._engine = RemoteEngine(service.url, self._layout.read_token())

    def search(self, text: str) -> list[str]:
        return [hit.text for hit in self._service().search(text, HITS, "dense", None, None, None)]

    def chunks(self) -> list[tuple[str, str]]:
        found = [point.payload for page in pages(RemotePoints(self._service().post, None)) for point in page]
        return [(str(payload["path"]), str(payload["text"])) for payload in found if "text" in payload]

    def _service(self) -> RemoteEngine:
        if self._engine is None:
            self.watch()
        assert self._engine is not None
        return self._engine

    def close(self) -> None:
        if self._up is not None:
            self._up.send_signal(signal.SIGINT)
            self._up.wait()


if __name__ == "__main__":
    main(Headwater)
