"""The folder's changes as they happen: a generator of sets of dirty paths.

Watching is only a hint (scanning is the truth), so the handler does nothing but a dict write, and whatever may have
lost an event asks for a scan. A path is settled when no event came for a moment, or at once when it was saved: written
to in its place and closed, or a new file renamed onto it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from headwater.metrics import watches_lost

__all__ = ["Dirty", "Watcher"]

_EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
#: more dirty paths than this at once are forgotten for one scan: a storm must not fill memory
_MOST_DIRTY = 50_000
#: a new directory is looked at again after this long: files may have come in before its watch stood
_SECOND_LOOK_S = 0.5
#: how often the watch itself is examined
_EXAMINE_S = 1.0
#: a file of this name in the folder, made and removed at once, must come back as an event
HEARTBEAT_FILE = b".headwater-heartbeat"
#: how long it may take
_HEARTBEAT_ANSWER_S = 5.0
#: pause between two looks at the marks, so that a stream of events does not keep a core busy
_BREATH_S = 0.003


@dataclass(frozen=True, slots=True)
class Dirty:
    """Paths (relative, bytes) that may have changed. ``rescan`` says why only a scan will do, or is None."""

    paths: frozenset[bytes]
    rescan: str | None = None


@dataclass(frozen=True, slots=True)
class _Mark:
    """The events of a path since it was handed out last; times in seconds of the monotonic clock."""

    first: float
    last: float
    #: the path came into being: what follows may be a rename, or the other half of "deleted and written anew"
    new: bool = False
    #: nothing more is to be expected of whoever changed it
    saved: bool = False


@dataclass
class _Marks(FileSystemEventHandler):
    """Path -> its mark. The dict and its values may be read in other threads."""

    times: dict[bytes, _Mark] = field(default_factory=dict)
    new_directories: dict[bytes, float] = field(default_factory=dict)
    wake: threading.Event = field(default_factory=threading.Event)
    heard_at: float = 0.0

    def on_any_event(self, event: FileSystemEvent) -> None:
        now = time.monotonic()
        paths = [os.fsencode(name) for name in (event.src_path, event.dest_path) if name]
        if any(path.endswith(HEARTBEAT_FILE) for path in paths):
            self.heard_at = now
            return
        marks = [self.times.get(path, _Mark(now, now)) for path in paths]
        new = marks[0].new or isinstance(event, FileCreatedEvent | FileDeletedEvent)
        saved = (isinstance(event, FileClosedEvent) and not new) or (isinstance(event, FileMovedEvent) and new)
        for path, mark in zip(paths, marks, strict=True):
            self.times[path] = _Mark(mark.first, now, mark.new or new, saved)
            if event.is_directory:
                self.new_directories[path] = now + _SECOND_LOOK_S
        self.wake.set()

    def __hash__(self) -> int:
        return id(self)


class _Overflow(logging.Handler):
    """watchdog tells of a lost event only in its log: this handler turns that line into a flag."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().lower()
        self.seen = self.seen or "overflow" in message or "unable to rebuild" in message


class Watcher:
    """Watches one folder with all below it. Subscribe (``start``) before the first scan."""

    def __init__(self, root: Path, debounce_ms: int, debounce_max_ms: int, heartbeat_s: float = 0.0) -> None:
        self._root = root
        self._prefix = os.fsencode(root) + b"/"
        self._debounce_s = debounce_ms / 1000
        self._debounce_max_s = debounce_max_ms / 1000
        self._marks = _Marks()
        #: when a path was handed out, for as long as that keeps it from being handed out at once again
        self._handed: dict[bytes, float] = {}
        self._overflow = _Overflow()
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._gone = False
        self._to_renew = False
        self._stopping = threading.Event()
        self._heartbeat_s = heartbeat_s
        self._beat_at = time.monotonic() + heartbeat_s
        self._beaten_at: float | None = None

    def start(self) -> None:
        """Subscribe. Raises OSError if the folder is not there or cannot be watched at all."""
        self._identity = self._stat()
        logging.getLogger("watchdog").addHandler(self._overflow)
        self._observer = Observer()
        self._observer.schedule(self._marks, str(self._root), recursive=True, event_filter=_EVENTS)
        self._observer.start()

    def stop(self) -> None:
        """Unsubscribe; ``changes`` then ends."""
        self._stopping.set()
        self._marks.wake.set()
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        logging.getLogger("watchdog").removeHandler(self._overflow)
        if self._observer is not None:
            with contextlib.suppress(RuntimeError):  # join of an observer that never started
                self._observer.stop()
                self._observer.join(timeout=5)
            self._observer = None

    def unwatched(self, directories: Iterable[bytes]) -> list[bytes]:
        """Those of the directories (relative to the root) that have no watch, sorted; none where nobody can know."""
        emitters = [] if self._observer is None else list(self._observer.emitters)
        watched = [_watched_by(emitter) for emitter in emitters]
        if None in watched:
            return []
        known: set[bytes] = set().union(*(paths for paths in watched if paths is not None))
        return sorted(path for path in directories if (self._prefix + path).rstrip(b"/") not in known)

    def renew(self) -> None:
        """Watch everything anew, soon, and ask for a scan: a directory that should have a watch has none."""
        self._to_renew = True

    @property
    def quiet(self) -> bool:
        """No event waits to be handed out."""
        return not self._marks.times

    def changes(self) -> Iterator[Dirty]:
        """Blocks until paths have settled, and yields them; ends after ``stop``."""
        examine_at = time.monotonic() + _EXAMINE_S
        while not self._stopping.is_set():
            self._marks.wake.wait(self._wait_s(examine_at))
            self._marks.wake.clear()
            time.sleep(_BREATH_S)
            if (settled := self._settled()) is not None:
                yield settled
            if time.monotonic() >= examine_at:
                examine_at = time.monotonic() + _EXAMINE_S
                if (reason := self._lost()) is not None:
                    yield Dirty(frozenset(), rescan=reason)

    def _wait_s(self, examine_at: float) -> float:
        """Until the first marked path settles, or the next examination."""
        now = time.monotonic()
        due = [examine_at, *self._marks.new_directories.copy().values()]
        due += [self._due(path, mark) for path, mark in self._marks.times.copy().items()]
        return max(0.001, min(due) - now)

    def _due(self, path: bytes, mark: _Mark) -> float:
        """When a path counts as settled. One that keeps changing waits, however it is saved."""
        if mark.saved and path not in self._handed:
            return mark.last
        return min(mark.last + self._debounce_s, mark.first + self._debounce_max_s)

    def _settled(self) -> Dirty | None:
        now = time.monotonic()
        if len(self._marks.times) > _MOST_DIRTY:
            self._marks.times.clear()
            self._marks.new_directories.clear()
            watches_lost.labels("storm").inc()
            return Dirty(frozenset(), rescan="a storm of events")
        self._handed = {path: at for path, at in self._handed.items() if now - at < self._debounce_s}
        ready = [path for path, mark in self._marks.times.copy().items() if self._due(path, mark) <= now]
        for path in ready:
            self._marks.times.pop(path, None)
            self._handed[path] = now
        again = [path for path, due in self._marks.new_directories.copy().items() if due <= now]
        for path in again:
            self._marks.new_directories.pop(path, None)
        found = frozenset(self._relative(path) for path in (*ready, *again))
        return Dirty(found) if found else None

    def _relative(self, path: bytes) -> bytes:
        return path.removeprefix(self._prefix) if path.startswith(self._prefix) else b""

    def _lost(self) -> str | None:
        """Why events may have been lost since the last look, after watching anew where that is needed."""
        if self._overflow.seen:
            self._overflow.seen = False
            watches_lost.labels("overflow").inc()
            return "the kernel's event queue overflowed"
        identity = self._stat()
        if identity is None:
            gone, self._gone = self._gone, True
            return None if gone else "the folder is gone"
        if identity != self._identity or self._gone:
            return self._watch_again("replaced", "the folder was replaced")
        if self._observer is None or not self._alive(self._observer):
            return self._watch_again("lost", "the watch was lost")
        if self._to_renew:
            self._to_renew = False
            return self._watch_again("unwatched", "a directory had no watch")
        return self._beat()

    def _beat(self) -> str | None:
        """A watch may be deaf without any sign: what we do to the folder ourselves must come back as an event."""
        now = time.monotonic()
        if self._beaten_at is not None:
            if self._marks.heard_at >= self._beaten_at:
                self._beaten_at = None
            elif now > self._beaten_at + _HEARTBEAT_ANSWER_S:
                self._beaten_at = None
                return self._watch_again("deaf", "the watch does not answer")
        elif self._heartbeat_s and now >= self._beat_at:
            self._beat_at = now + self._heartbeat_s
            self._beaten_at = now if self._touch_heartbeat() else None
        return None

    def _touch_heartbeat(self) -> bool:
        """False where the folder may not be written to: then there is no heartbeat."""
        path = os.path.join(os.fsencode(self._root), HEARTBEAT_FILE)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.unlink(path)
        except OSError:
            return False
        return True

    def _alive(self, observer: BaseObserver) -> bool:
        emitters = observer.emitters
        readers = [reader for emitter in emitters if (reader := getattr(emitter, "_inotify_fd", None)) is not None]
        return observer.is_alive() and all(thread.is_alive() for thread in (*emitters, *readers))

    def _watch_again(self, cause: str, reason: str) -> str | None:
        self._unsubscribe()
        _forget_dead_reader()
        try:
            self.start()
        except OSError:
            return None  # not back yet: the next examination tries again
        self._gone = False
        watches_lost.labels(cause).inc()
        return reason

    def _stat(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._root)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _forget_dead_reader() -> None:
    """watchdog shares one reading thread per process and would hand out a dead one for ever."""
    with contextlib.suppress(ImportError):  # no inotify here
        from watchdog.observers.inotify_c import InotifyFD

        if InotifyFD._instance is not None and not InotifyFD._instance.is_alive():
            InotifyFD._instance = None


def _watched_by(emitter: object) -> set[bytes] | None:
    """The paths that watchdog's inotify emitter watches; None for another kind of emitter.

    It keeps two maps. After renames one upon the other that it heard of late, two paths can have one watch: events come
    under the path that the watch has, and the other one is deaf.
    """
    inotify = getattr(emitter, "_inotify", None)
    by_path: dict[bytes, int] | None = getattr(inotify, "_active_callbacks_by_path", None)
    if by_path is None:
        return None
    by_watch: dict[int, bytes] = inotify._active_callbacks_by_watch  # type: ignore[union-attr]  # it has the other map
    return {path for path, watch in by_path.copy().items() if by_watch.get(watch) == path}
