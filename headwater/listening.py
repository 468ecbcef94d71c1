"""The socket on which the query API listens: bound once, and handed on to whoever answers."""

from __future__ import annotations

import os
import socket

from headwater.errors import SettingsError
from headwater.settings import Settings

__all__ = ["inherited", "lasting", "listen", "url_of"]


def listen(host: str, port: int) -> socket.socket:
    """Raises SettingsError if the port is taken or the address is none of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # taken over by each connection: else an answer's second packet waits for the acknowledgement of its first, 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # callers that come before the server is up wait in line
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"the query API cannot listen on {host} port {port} ({error.strerror}): "
            "name another with --port, or 0 for any free one"
        ) from None
    return listener


def lasting(host: str, port: int) -> int:
    """The descriptor of a socket that stays when this process becomes another command: callers wait in line meanwhile.
    Raises SettingsError as ``listen``."""
    descriptor = listen(host, port).detach()
    os.set_inheritable(descriptor, True)
    return descriptor


def inherited(descriptor: int) -> socket.socket:
    """The parent's socket, which it keeps: of several processes that take connections there each gets some."""
    return socket.socket(fileno=os.dup(descriptor))


def url_of(listener: socket.socket, settings: Settings) -> str:
    """Where callers on this machine reach it."""
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    reachable = "127.0.0.1" if settings.host in ("0.0.0.0", "") else name
    return f"http://{reachable}:{listener.getsockname()[1]}"
