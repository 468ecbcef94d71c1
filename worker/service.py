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

__all__ = ["run_worker"]

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    *,
    serve: bool,
    status: Callable[[], dict[str, Any]] | None = None,
    progress: Progress | None = None,
    numbers: Collector | None = None,
    place: ApiPlace | None = None,
) -> None:
    """Take hints until SIGTERM or SIGINT, which drains; a second one ends at once. Raises HeadwaterError.

    A model that hangs ends the process, once it has drained, with the status of ModelStalled.
    """
    stalled = threading.Event()
    runtime = Runtime(
        settings,
        status=status,
        progress=progress,
        numbers=numbers,
        on_stall=lambda: _drain(stalled),
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


@worker_shutting_down.connect(weak=False)
def _tell(**_: Any) -> None:
    notify.stopping()


def _drain(stalled: threading.Event) -> None:
    """The way of a SIGTERM: no new hints, and those under way hear at once that the model does not answer."""
    log.error("the model gave no answer in time: this worker ends when it has reported so, to be started anew")
    stalled.set()
    state.should_stop = ModelStalled.exit_code  # type: ignore[assignment]  # the stub knows its first value only
