"""The Celery app of the worker: ``celery -A worker.app worker``. (``headwater work`` adds the query API.)"""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown

from headwater.broker import make_app
from headwater.errors import ModelStalled
from headwater.logs import log_to_stderr
from headwater.settings import Settings
from worker.runtime import Runtime
from worker.service import Ending
from worker.tasks import register

__all__ = ["app"]

_settings = Settings.load()
_runtime = Runtime(_settings, on_stall=partial(Ending().drain, ModelStalled.exit_code))
app = make_app(_settings)
register(app, _runtime.parts, _runtime.census, _runtime.refuses)


@setup_logging.connect(weak=False)
def _log(**_: Any) -> None:
    log_to_stderr(_settings)


@worker_init.connect(weak=False)
def _start(**_: Any) -> None:
    _runtime.start()


@worker_ready.connect(weak=False)
def _ready(sender: Any, **_: Any) -> None:
    _runtime.consuming.ready(sender)


@worker_shutdown.connect(weak=False)
def _close(**_: Any) -> None:
    _runtime.close()
