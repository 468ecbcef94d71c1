"""Following the current generation of an index from any host: what the server tells of it, and when it moves."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, cast

from headwater.aliases import Aliases
from headwater.errors import HeadwaterError
from headwater.generations import Made, drop_generation, pin, pinned_to
from headwater.settings import Settings
from headwater.state import Layout, Pointer, find_layout

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from headwater.index_server import ServerIndex

__all__ = ["Follow", "adopt", "at_server", "begin_anew", "made_of", "on_server", "remove"]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def on_server(settings: Settings) -> Iterator[ServerIndex | None]:
    """The server's side of the index, not opened; None for an embedded one."""
    if settings.qdrant_url is None:
        yield None
        return
    from headwater.index import open_index

    index: ServerIndex = open_index(settings)  # type: ignore[assignment]  # a server's, as there is a URL
    try:
        yield index
    finally:
        index.close()


def at_server(settings: Settings) -> Settings:
    """The settings as the generation that they mean has them, as its collection knows. Raises IndexUnavailable."""
    with on_server(settings) as index:
        if index is None:
            return settings
        generation = settings.generation or index.aliases.current() or 1
        return pinned_to(settings, generation, index.aliases.noted(generation, "pins"))


def adopt(aliases: Aliases, layout: Layout) -> int:
    """The generation that is the current one on the server, noted in this host's state directory with its settings."""
    pointer, current = Pointer.read(layout), aliases.current()
    if current is None or current == pointer.generation:
        return pointer.generation
    pin(Layout(layout.root, current).create(), aliases.noted(current, "pins"))
    Pointer(current, pointer.generation, time.time()).write(layout)
    return current


def made_of(settings: Settings, layout: Layout) -> Made:
    """What a generation was made with, as its worker noted beside the embedded index or in the collection."""
    with on_server(settings) as index:
        return Made.read(layout) if index is None else Made.of(index.aliases.noted(layout.generation, "made"))


def remove(settings: Settings) -> Callable[[Layout], None]:
    """What removes all of a generation, on the server as well."""

    def drop(layout: Layout) -> None:
        with on_server(settings) as index:
            if index is not None:
                index.aliases.drop(layout.generation)
        drop_generation(layout)

    return drop


class Follow(threading.Thread):
    """Calls ``on_move`` once when another generation is the current one than that of the settings."""

    def __init__(self, settings: Settings, current: Callable[[], int], on_move: Callable[[], None]) -> None:
        super().__init__(name="generation", daemon=True)
        self._own = settings.generation or 1
        self._pause_s = settings.alias_poll_s
        self._current = current
        self._on_move = on_move
        self.moved = False

    @classmethod
    def of(cls, settings: Settings, on_move: Callable[[], None]) -> Follow:
        """By the server's alias, which is noted in the state directory, or by the pointer there."""
        layout = find_layout(settings)
        if settings.qdrant_url is None:
            return cls(settings, lambda: Pointer.read(layout).generation, on_move)
        asked = _Asked(settings)
        return cls(settings, lambda: adopt(asked.aliases, layout), on_move)

    @classmethod
    def at(cls, settings: Settings, on_move: Callable[[], None]) -> Follow:
        """By the server's alias alone, for a process that has no state."""
        if settings.qdrant_url is None:
            return cls.of(settings, on_move)
        asked = _Asked(settings)
        return cls(settings, lambda: asked.aliases.current() or settings.generation or 1, on_move)

    def run(self) -> None:
        while not self.moved:
            time.sleep(self._pause_s)
            try:
                self.moved = self._current() != self._own
            except (HeadwaterError, OSError) as error:
                log.info("which index is the current one could not be asked: %s", error)
        log.info("another generation of the index is the current one")
        self._on_move()


class _Asked:
    """The server's aliases, by one client for all looks. It is made at the first, whose failure the follower tells."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def aliases(self) -> Aliases:
        """Raises IndexUnavailable and SettingsError."""
        from headwater.server_reads import ServerReads

        reads = ServerReads.of(self._settings)
        return Aliases(cast("QdrantClient", reads), self._settings.collection, reads.ask)


def begin_anew() -> None:
    """Become the same command once more, in the same process, which then follows what is current now."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "headwater", *sys.argv[1:]])
