"""``headwater work``: one worker process from start to drained end."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from celery.signals import worker_ready, worker_shutting_down
from celery.worker import state
from prometheus_client.registry import Collector

from headwater import notify
from headwater.broker import make_app
from headwater.errors import ModelStalled
from headwater.local import Progress
from headwater.settings import Settings
from worker.runtime import Runtime
from worker.serving import ApiPlace
from worker.tasks import register

__all__ = ["Ending", "run_worker"]

log = logging.getLogger(__name__)


class Ending:
    """How a worker comes to its end: by a signal, or by itself, as when the index moves. Only the first is an end for
    whoever manages it."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def drain(self, status: int = 0) -> None:
        """Take no new hints, finish those under way, and leave ``run_worker``. Any thread may call it, at any time."""
        state.should_stop = status  # type: ignore[assignment]  # the stub knows its first value only

    def told(self, **_: Any) -> None:
        """Celery has a signal to end this process."""
        self._asked.set()
        notify.stopping()

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked.is_set()


def run_worker(
    settings: Settings,
    *,
    serve: bool,
    status: Callable[[], dict[str, Any]] | None = None,
    progress: Progress | None = None,
    numbers: Collector | None = None,
    place: ApiPlace | None = None,
    ending: Ending | None = None,
) -> None:
    """Take hints until SIGTERM, SIGINT or ``ending``, which drain; a second SIGINT ends at once. Raises HeadwaterError.

    A model that hangs ends the process, once it has drained, with the status of ModelStalled.
    """
    ending, stalled = ending or Ending(), threading.Event()
    worker_shutting_down.connect(ending.told, weak=False)
    runtime = Runtime(
        settings,
        status=status,
        progress=progress,
        numbers=numbers,
        on_stall=lambda: _stall(stalled, ending),
        place=place,
    )
    app = make_app(settings)
    register(app, runtime.parts, runtime.census, runtime.refuses)
    worker_ready.connect(lambda sender, **_: runtime.consuming.ready(sender), weak=False)
    try:
        runtime.start(serve=serve)
        gc.freeze()  # what the libraries made stays: a collection that looks through all of it stops every thread
        worker = app.Worker(
            hostname=f"headwater-{os.getpid()}@{socket.gethostname()}",
            pool_cls="threads",
            concurrency=settings.concurrency,
            loglevel=settings.log_level.upper(),
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=not settings.celery_events,
            quiet=True,
        )
        log.info("the worker takes hints")
        notify.ready()
        worker.start()
    finally:
        runtime.close()
    if stalled.is_set():
        logging.shutdown()
        os._exit(ModelStalled.exit_code)  # a thread hangs in native code: an orderly end would wait for it, or crash


def _stall(stalled: threading.Event, ending: Ending) -> None:
    """No new hints, and those under way hear at once that the model does not answer."""
    log.error("the model gave no answer in time: this worker ends when it has reported so, to be started anew")
    stalled.set()
    ending.drain(ModelStalled.exit_code)
