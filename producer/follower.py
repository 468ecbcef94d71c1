"""Folder -> ledger: scans and looks, compares with what is known, holds deletions back that look wrong, and notes
what is wanted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Literal

from headwater import metrics
from headwater.document import Fingerprint
from headwater.errors import FolderError
from headwater.failpoints import reach
from headwater.settings import Settings
from producer.diff import Changes, Seen, diff, open_only
from producer.guard import DeletionGuard, Identity
from producer.latency import Latency
from producer.ledger import Ledger
from producer.mounts import network_file_system
from producer.rules import IGNORE_FILES
from producer.scanner import Scanner
from producer.watcher import Watcher

__all__ = ["Follower"]

log = logging.getLogger(__name__)

#: changes that are seen as they happen are live work while no more of it than this waits; a storm of new files is bulk
#: work beyond the first number, so that an edit of a known file keeps its place ahead of it
_LIVE_ARRIVALS = 32
_LIVE_CHANGES = 64
#: what is not watched is looked at this often
_POLL_S = 10.0
#: the watch of a new directory stands after this long, if it can be had
_WATCH_SETTLES_S = 2.0
#: after a renewal that did not help (the limit of watches), so long none is tried again
_RENEW_PAUSE_S = 600.0
#: a folder that is gone, or whose deletions are held, is looked at this often
_AWAY_RESCAN_S = 2.0
#: so many deletions in one set of events are left to a scan a moment later, which sees all of them
_MANY_DELETED = 32
_DELETIONS_SETTLE_S = 1.0

Note = Callable[[str, str | None], None]


class Follower:
    """Keeps the ledger's wants in step with the folder. ``note`` keeps or clears the reason why a part is degraded.
    Not thread-safe: the producer's loop owns it."""

    def __init__(self, settings: Settings, ledger: Ledger, scanner: Scanner, watcher: Watcher, note: Note) -> None:
        self._root = settings.required_folder()
        self._rescan_s = settings.rescan_s
        self._ledger = ledger
        self._scanner = scanner
        self._watcher = watcher
        self._note = note
        self._guard = DeletionGuard(settings.deletion_share)
        self._rescan_at = 0.0
        self._poll_at = float("inf")
        self._unwatched: list[bytes] = []
        self._renew_at = 0.0
        self._network = network_file_system(self._root)
        self.latency = Latency()

    def keep_up(self) -> None:
        """Called at each turn of the loop: scan by the timer, poll what is not watched, see what a person accepted."""
        now = time.monotonic()
        if now >= self._rescan_at:
            self.scan("the timer")
        elif now >= self._poll_at:
            self._poll()
        if self._ledger.accepted_deletions():
            self.scan("deletions were accepted")

    # -- the whole folder ------------------------------------------------------------------------------------

    def scan(self, reason: str, *, unheard: bool = True) -> None:
        """Compare the whole folder with the ledger. A folder that cannot be read deletes nothing. ``unheard``: what it
        finds is what events should have told."""
        log.info("scan: %s", reason)
        started = time.monotonic()
        self._rescan_at = time.monotonic() + self._rescan_s
        before = self._identity()
        try:
            seen = self._scanner.scan()
        except FolderError as error:
            self._away(str(error))
            return
        if before is None or before != self._identity():
            self._away("the folder was replaced while it was read")
            return
        self._note("folder", None)
        known = self._ledger.known(seen=seen)
        changes = diff(self._open_only(known, seen), seen)
        held = self._held(changes, len(known), before)
        wanted = changes.without_deletions() if held else changes
        self.latency.noticed(wanted, known, seen)
        if unheard and not self._network:
            self.latency.missed(wanted, known, seen)
        self._want(wanted, seen, found_by="scan")
        self._conclude(held, len(changes.deleted), before)
        self._check_watches()
        took = time.monotonic() - started
        metrics.scan_seconds.observe(took)
        metrics.scanned_files.set(len(seen))
        log.info("scanned %d files in %.3f s, %d changes", len(seen), took, len(changes))

    def _away(self, reason: str) -> None:
        self._note("folder", reason)
        self._rescan_at = time.monotonic() + _AWAY_RESCAN_S

    def _held(self, changes: Changes, known: int, now: Identity) -> str | None:
        accepted = self._ledger.accepted_deletions()
        clock = time.monotonic()
        held = self._guard.reason(len(changes.deleted), known, self._known_identity(), now, accepted, clock)
        if held is None:
            self._guard.passed(len(changes.deleted), clock)
        return held

    def _conclude(self, held: str | None, deleted: int, identity: Identity) -> None:
        """After a scan: in step with the folder, or degraded for what is held."""
        with self._ledger.transaction():
            if held is None:
                self._ledger.set_metas({"scanned": "1", "root": str(identity)})
                self._ledger.release_deletions()
            else:
                self._ledger.hold_deletions(deleted, held)
        if held is None:
            self._note("deletions", None)
            return
        self._rescan_at = time.monotonic() + _AWAY_RESCAN_S
        self._note(
            "deletions",
            f"{held}: their deletion is held and they can still be found; bring the folder back, or run "
            "'headwater accept-deletions' if they are meant to go",
        )

    def _identity(self) -> Identity | None:
        try:
            status = os.stat(self._root)
        except OSError:
            return None
        return Identity(status.st_dev, status.st_ino)

    def _known_identity(self) -> Identity | None:
        return Identity.parse(self._ledger.meta("root") or "")

    # -- some paths ------------------------------------------------------------------------------------------

    def look(self, paths: frozenset[bytes]) -> None:
        """Compare dirty paths, and what is below them, with the ledger."""
        if any(os.path.basename(path) in IGNORE_FILES for path in paths):
            self.scan("the ignore rules changed", unheard=False)
            return
        identity = self._identity()
        if identity is None or identity != (self._known_identity() or identity):
            self.scan("the folder is not the one it was")
            return
        seen: dict[bytes, Seen] = {}
        known: dict[bytes, Fingerprint | None] = {}
        listed = self._scanner.listed
        for path in _topmost(paths):
            seen |= self._scanner.look(path)
            known |= self._ledger.known(below=path)
        if self._scanner.listed > listed:  # directories that are new or back: are they watched, a moment from now?
            self._poll_at = min(self._poll_at, time.monotonic() + _WATCH_SETTLES_S)
        changes = diff(self._open_only(known, seen), seen)
        if len(changes.deleted) >= _MANY_DELETED or (changes.deleted and self._ledger.meta("scanned") == "0"):
            changes = changes.without_deletions()
            self._ledger.set_meta("scanned", "0")
            self._rescan_at = min(self._rescan_at, time.monotonic() + _DELETIONS_SETTLE_S)
        self._guard.passed(len(changes.deleted), time.monotonic())
        self.latency.noticed(changes, known, seen)
        self._want(changes, seen, found_by="watch")

    def _open_only(
        self, known: dict[bytes, Fingerprint | None], seen: dict[bytes, Seen]
    ) -> dict[bytes, Fingerprint | None]:
        """Without the documents below directories that cannot be listed now: unseen is not gone."""
        return open_only(known, seen, self._scanner.closed) if self._scanner.closed else known

    def _want(self, changes: Changes, seen: dict[bytes, Seen], found_by: Literal["scan", "watch"]) -> None:
        if not len(changes):
            return
        reach("producer:scanned")
        with self._ledger.transaction():
            for part, most in ((changes.in_place(), _LIVE_CHANGES), (changes.arrivals(), _LIVE_ARRIVALS)):
                if len(part):
                    live = found_by == "watch" and self._ledger.waiting("live", most) + len(part) <= most
                    self._ledger.want(part, seen, "live" if live else "bulk")
        reach("producer:wanted")

    # -- what is not watched ---------------------------------------------------------------------------------

    def _check_watches(self) -> None:
        """Directories without a watch are polled, and a person is told."""
        unwatched = self._watcher.unwatched(self._scanner.directories)
        gone = {path for path in unwatched if not self._scanner.is_directory(path)}
        self._scanner.directories -= gone
        before, self._unwatched = self._unwatched, [path for path in unwatched if path not in gone]
        now = time.monotonic()
        metrics.watched_directories.set(len(self._scanner.directories) - len(self._unwatched))
        metrics.unwatched_directories.set(len(self._unwatched))
        metrics.polling.set(bool(self._unwatched or self._network))
        self._poll_at = now + _POLL_S if self._unwatched or self._network else float("inf")
        if not self._unwatched:
            self._renew_at = min(self._renew_at, now + _POLL_S)
            self._note("watch", None)
        elif now >= self._renew_at:
            self._renew_at = now + _RENEW_PAUSE_S
            self._watcher.renew()  # and then a scan, which comes here again
        else:
            if not set(self._unwatched) <= set(before):
                self._poll_at = now  # what happened there until now was told by nobody
            self._note(
                "watch",
                f"{len(self._unwatched)} of {len(self._scanner.directories)} directories are not watched and are "
                f"looked at every {_POLL_S:.0f} s: raise fs.inotify.max_user_watches",
            )

    def _poll(self) -> None:
        if self._network:
            self.scan(f"the folder is on {self._network}, which does not tell of changes by other hosts")
            return
        self.look(frozenset(self._unwatched))
        self._check_watches()


def _topmost(paths: frozenset[bytes]) -> list[bytes]:
    """The paths without those that lie below another one of them."""
    kept: list[bytes] = []
    for path in sorted(paths):
        if not (kept and (kept[-1] == b"" or path.startswith(kept[-1] + b"/"))):
            kept.append(path)
    return kept
