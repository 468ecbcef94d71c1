"""The worker's end of the pipes to an extraction child: whole frames, or an end, by a deadline.

The other end may be hostile: it may stop in the middle of a frame, claim any size, or send what is no frame.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

from worker.frames import SIZES, encoded_frame

__all__ = ["Ended", "Exchange", "Garbled", "Late"]

#: an honest answer is at most 20 million characters of text, six bytes each where they are not ASCII
MOST_ANSWER_BYTES = 256 * 1024 * 1024
#: seconds between calls of ``on_wait``
_WAIT_S = 0.1
_PIECE = 1024 * 1024


class Late(Exception):
    """The deadline has passed."""


class Ended(Exception):
    """The other end has closed its pipes, in the middle of a frame or between two."""


class Garbled(Exception):
    """What came is no answer; the message says why."""


class Exchange:
    """Sends requests to one pipe and receives answers from another. ``on_wait`` is called ten times a second while an
    exchange lasts; what it raises ends it."""

    def __init__(self, to: int, back: int, on_wait: Callable[[], None] = lambda: None) -> None:
        self._to = to
        self._back = back
        self._on_wait = on_wait
        self._look_at = 0.0
        for pipe in (to, back):
            os.set_blocking(pipe, False)

    def silent(self) -> bool:
        """Whether the other end is there and has nothing to say."""
        return not _ready(self._back, select.POLLIN, 0)

    def send(self, header: dict[str, Any], body: bytes, deadline: float) -> None:
        """Send one frame by ``deadline`` (monotonic). Raises Late or Ended."""
        for part in (encoded_frame(header, body), body):
            view = memoryview(part)
            while view:
                self._wait(self._to, select.POLLOUT, deadline)
                try:
                    view = view[os.write(self._to, view[:_PIECE]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise Ended from None

    def receive(self, deadline: float) -> dict[str, Any]:
        """The header of the next frame, all of it by ``deadline``. Raises Late, Ended or Garbled."""
        header_size, body_size = SIZES.unpack(self._read(SIZES.size, deadline))
        if body_size or header_size > MOST_ANSWER_BYTES:
            raise Garbled(f"it announced {header_size + body_size} bytes")
        try:
            header = json.loads(self._read(header_size, deadline))
        except (ValueError, RecursionError) as error:
            raise Garbled("it was not JSON") from error
        if not isinstance(header, dict):
            raise Garbled("it was not an object")
        return header

    def _read(self, size: int, deadline: float) -> bytes:
        read = bytearray()
        while len(read) < size:
            self._wait(self._back, select.POLLIN, deadline)
            try:
                piece = os.read(self._back, min(_PIECE, size - len(read)))
            except OSError:
                raise Ended from None
            if not piece:
                raise Ended
            read += piece
        return bytes(read)

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise Late
            if now >= self._look_at:
                self._on_wait()
                self._look_at = now + _WAIT_S
            if _ready(pipe, event, min(deadline - now, _WAIT_S)):
                return


def _ready(pipe: int, event: int, wait_s: float) -> bool:
    """By poll: select knows no file descriptor above 1023."""
    poller = select.poll()
    poller.register(pipe, event)
    return bool(poller.poll(wait_s * 1000))
