"""Who answers while ``headwater work --serve`` begins anew: a query server on the same socket, from the index that the
worker is to have then. So the worker that ends answers until the other one does, and that until the new worker does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from headwater.settings import Settings

__all__ = ["dismiss", "end_with_parent", "stand_in"]

log = logging.getLogger(__name__)

#: seconds between two looks whether the worker is still there
_LOOK_S = 1.0


def stand_in(settings: Settings, descriptor: int) -> int | None:
    """Start a query server on the listening socket, and wait until it answers; its pid. None if it cannot be had, as
    with an embedded index, which only one process may hold: then callers wait in line."""
    if settings.qdrant_url is None:
        return None
    given = {"HEADWATER_HOST": settings.host, "HEADWATER_METRICS_PORT": "0"}
    for name, value in (("FOLDER", settings.folder), ("STATE_DIR", settings.state_dir)):
        given |= {} if value is None else {f"HEADWATER_{name}": str(value)}
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "headwater", "serve", "--api-fd", str(descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**environment, **given},
        pass_fds=[descriptor],
    )
    assert process.stdout is not None, "it was asked for"
    if process.stdout.readline():  # its URL
        return process.pid
    log.warning("nobody answers while this worker begins anew (status %d): callers wait", process.wait())
    return None


def dismiss(pid: int) -> None:
    """Let a stand-in finish what it answers, and end."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def end_with_parent(end: Callable[[], object]) -> None:
    """Call ``end`` when the process that started this one is no more. (The kernel's own signal would come when the
    thread ends that did so.)"""
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        end()

    threading.Thread(target=look, name="parent", daemon=True).start()
