"""``headwater serve``: the query API alone, in a process that writes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from prometheus_client.registry import Collector

from headwater.api import ApiServer, make_api
from headwater.index import open_index
from headwater.local import LocalEngine, Progress
from headwater.metrics import PROCESS, QUERY, IndexPoints, join, listen
from headwater.settings import Settings
from headwater.state import Service, find_layout, noted_folder

__all__ = ["serve_index"]


def serve_index(
    settings: Settings,
    status: Callable[[], dict[str, Any]],
    progress: Progress,
    *,
    on_url: Callable[[str], object],
    ended: threading.Event,
    numbers: Collector,
) -> None:
    """Answer until ``ended`` is set. Raises HeadwaterError if the index or the model cannot be had."""
    layout = find_layout(settings).create()
    server = ApiServer(settings)
    index = open_index(settings, layout)
    seen = settings.model_copy(update={"folder": settings.folder or noted_folder(layout)})
    engine = LocalEngine.open(index, seen, progress, at_once=True)
    ready: Future[LocalEngine] = Future()
    ready.set_result(engine)
    token = layout.read_token()
    hosts = settings.allowed_hosts
    told = join(QUERY, PROCESS, IndexPoints(index.count), numbers)
    end_metrics = listen(settings, told)
    server.start(
        make_api(
            ready,
            status=status,
            flush=index.checkpoint,
            token=token,
            allowed_hosts=hosts,
            index=index,
            numbers=told,
        )
    )
    Service(server.url, os.getpid()).write(layout)
    on_url(server.url)
    try:
        ended.wait()
    finally:
        layout.service.unlink(missing_ok=True)
        server.stop()
        end_metrics()
        engine.close()
