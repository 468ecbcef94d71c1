"""``headwater work``: one worker process from start to drained end."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from headwater.broker import make_app
from headwater.settings import Settings
from worker.runtime import Runtime
from worker.tasks import register

__all__ = ["run_worker"]

log = logging.getLogger(__name__)


def run_worker(settings: Settings, *, serve: bool, status: Callable[[], dict[str, Any]] | None = None) -> None:
    """Take hints until SIGTERM or SIGINT, which drains; a second one ends at once. Raises HeadwaterError."""
    runtime = Runtime(settings, status=status)
    app = make_app(settings)
    register(app, runtime.parts, runtime.census)
    try:
        runtime.start(serve=serve)
        worker = app.Worker(
            hostname=f"headwater-{os.getpid()}@{socket.gethostname()}",
            pool_cls="threads",
            concurrency=settings.concurrency,
            loglevel=settings.log_level.upper(),
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
            quiet=True,
        )
        log.info("the worker takes hints")
        worker.start()
    finally:
        runtime.close()
