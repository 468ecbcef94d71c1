"""Tells the service manager how far this process is, by the protocol of sd_notify(3); nothing without one."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
from urllib.parse import urlsplit

from headwater.state import Layout, Lock, Service

__all__ = ["WhenReady", "ready", "stopping"]

#: seconds; the API is on this machine
_ANSWER_S = 1.0


def ready() -> None:
    """The service does what it is there for."""
    _tell("READY=1")


def stopping() -> None:
    """It finishes what is under way, and ends."""
    _tell("STOPPING=1")


class WhenReady:
    """Says that ``up`` is ready: the folder is held, the index open, the model loaded. Make it before any child is
    started: from then on none of them has a manager to talk to."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._told = _manager() is None

    def look(self) -> None:
        """Call it often, until it has been told and afterwards."""
        if not self._told and Lock.is_held(self._layout, "producer") and self._answers():
            ready()
            self._told = True

    def _answers(self) -> bool:
        service = Service.read(self._layout)
        if service is None:
            return False
        connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=_ANSWER_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False  # it is just starting, or just ending


@functools.cache
def _manager() -> str | None:
    """Its socket, taken out of the environment: it asked this process, and none of its children."""
    return os.environ.pop("NOTIFY_SOCKET", None)


def _tell(state: str) -> None:
    address = _manager()
    if not address:
        return
    # an at sign stands for the zero byte of the abstract namespace (unix(7))
    place = f"\0{address[1:]}" if address.startswith("@") else address
    # a manager that has gone needs not be told
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode(), place)
