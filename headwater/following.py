"""Following the current generation of an index from any host: what the server tells of it, and when it moves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from headwater.aliases import Aliases
from headwater.errors import HeadwaterError, IndexUnavailable
from headwater.failpoints import reach
from headwater.generations import Made, drop_expired, drop_generation, pin, pinned_to, pins, under_way
from headwater.settings import Settings
from headwater.state import Layout, Pointer, find_layout, known_layout

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from headwater.index_server import ServerIndex
    from headwater.server_reads import ServerReads

__all__ = [
    "Adopting",
    "Expiry",
    "Follow",
    "adopt",
    "at_server",
    "begin_anew",
    "current",
    "drop_left",
    "followed_in",
    "made_of",
    "on_server",
    "remove",
    "tell_pins",
]

log = logging.getLogger(__name__)

#: seconds between two looks for generations that nobody needs any more
_DROP_S = 60.0
#: looks at the alias after which every host has followed it, with the other model loaded
_FOLLOWING_POLLS = 12


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
        told = index.aliases.noted(generation, "pins")
        if generation > 1 and not told and not _is_known(settings, generation):
            raise IndexUnavailable(f"the collection of generation {generation} is not there, or is being made just now")
        return pinned_to(settings, generation, told)


def _is_known(settings: Settings, generation: int) -> bool:
    """Whether this host's state tells the settings of a generation."""
    layout = known_layout(settings)
    return layout is not None and bool(pins(Layout(layout.root, generation)))


def adopt(aliases: Aliases, layout: Layout) -> int:
    """The generation that is the current one on the server, noted in this host's state directory with its settings."""
    pointer, named = Pointer.read(layout), aliases.current()
    if named is None or named == pointer.generation:
        return pointer.generation
    pin(Layout(layout.root, named).create(), aliases.noted(named, "pins"))
    pointer.moved_to(named).write(layout)
    return named


def made_of(settings: Settings, layout: Layout) -> Made:
    """What a generation was made with, as its worker noted beside the embedded index or in the collection."""
    with on_server(settings) as index:
        return Made.read(layout) if index is None else Made.of(index.aliases.noted(layout.generation, "made"))


def tell_pins(settings: Settings, layout: Layout) -> bool:
    """Let other hosts learn the settings of a generation from its collection. False if that is not there yet."""
    with on_server(settings) as index:
        return index is None or index.aliases.note(layout.generation, "pins", pins(layout))


def remove(settings: Settings) -> Callable[[Layout], None]:
    """What removes all of a generation, at the server and the broker as well."""

    def drop(layout: Layout) -> None:
        _drop_on_servers(settings.model_copy(update={"generation": layout.generation}), layout.generation)
        drop_generation(layout)

    return drop


def _drop_on_servers(settings: Settings, generation: int) -> None:
    with on_server(settings) as index:
        if index is None:
            return
        sources = {settings.source}
        with contextlib.suppress(IndexUnavailable):  # it was never made
            index.open_existing()
            sources |= set(index.values("source"))
        if settings.broker_url is not None:
            from headwater.broker import forget

            forget(settings, sources)
        index.aliases.drop(generation)


def drop_left(settings: Settings, root: Path, keep_s: float) -> list[int]:
    """Remove generations that nobody needs any more, on the server as well, where every host has had the time to follow
    the alias away from them. Returns their numbers."""
    spared = under_way(Layout(root))
    if settings.qdrant_url is None:
        return drop_expired(root, keep_s, spared, remove(settings))
    before = time.time() - _FOLLOWING_POLLS * settings.alias_poll_s
    with contextlib.closing(_Asked(settings)) as asked:  # it asks only if there is one to be removed
        return drop_expired(
            root, keep_s, spared, remove(settings), lambda layout: asked.aliases.left(layout.generation, before)
        )


def followed_in(settings: Settings, layout: Layout) -> float:
    """Seconds until every host has had the time to follow the last move, and to load another model."""
    previous = Pointer.read(layout).previous
    with on_server(settings) as index:
        if index is None or previous is None or (at := index.aliases.left_at(previous)) is None:
            return 0.0
    return max(0.0, at + _FOLLOWING_POLLS * settings.alias_poll_s - time.time())


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
        return cls(settings, _adopting(settings, find_layout(settings)), on_move)

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
    def _reads(self) -> ServerReads:
        from headwater.server_reads import ServerReads

        return ServerReads.of(self._settings)

    @property
    def aliases(self) -> Aliases:
        """Raises IndexUnavailable and SettingsError."""
        return Aliases(cast("QdrantClient", self._reads), self._settings.collection, self._reads.ask)

    def close(self) -> None:
        if "_reads" in vars(self):
            self._reads.close()


def _adopting(settings: Settings, layout: Layout) -> Callable[[], int]:
    """Tells the current generation, and notes it in the state directory where a server says it."""
    if settings.qdrant_url is None:
        return lambda: Pointer.read(layout).generation
    asked = _Asked(settings)
    return lambda: adopt(asked.aliases, layout)


class _Often(threading.Thread):
    """Does something every so many seconds until it is stopped. What cannot be done now is tried the next time."""

    def __init__(self, name: str, pause_s: float, step: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._pause_s = pause_s
        self._step = step
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._pause_s):
            try:
                self._step()
            except (HeadwaterError, OSError) as error:
                log.info("%s: not now: %s", self.name, error)

    def stop(self) -> None:
        """Soon; what is under way is not waited for."""
        self._ended.set()


class Adopting(_Often):
    """Notes in the state directory whatever generation is the current one on the server: a command that was to move the
    index may have been killed between the two, or another host has moved it."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        super().__init__("current generation", settings.alias_poll_s, _adopting(settings, layout))


class Expiry(_Often):
    """Removes generations of which the time is over."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        drop = partial(drop_left, settings, layout.root, settings.keep_generation_s)
        super().__init__("old generations", _DROP_S, drop)


def current(settings: Settings) -> int:
    """The generation that is asked now: on a server by its alias, else by the pointer."""
    with on_server(settings) as index:
        if index is None:
            return Pointer.read(find_layout(settings)).generation
        return index.aliases.current() or settings.generation or 1


def begin_anew(to_end: Callable[[], bool], **options: str) -> None:
    """Become the same command once more, in the same process, which then follows what is current now; with these values
    of ``options``. Returns if ``to_end``: somebody has asked this process to end meanwhile."""
    reach("follow:anew")
    for number in (signal.SIGTERM, signal.SIGINT):  # all is closed: from now on one ends this process, or the new one
        signal.signal(number, signal.SIG_DFL)
    if to_end():
        return
    arguments = sys.argv[1:]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if flag in arguments:
            del arguments[arguments.index(flag) : arguments.index(flag) + 2]
        arguments += [flag, value]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "headwater", *arguments])
