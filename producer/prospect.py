"""What a run would find to do, from a scan and a ledger that is only read: the first half of a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headwater.settings import Settings
from headwater.state import Layout
from producer.diff import Changes, Seen, diff, open_only
from producer.entries import Entries, Entry
from producer.guard import DeletionGuard, Identity
from producer.rules import Rules
from producer.scanner import Scanner

__all__ = ["Prospect", "look_ahead", "prospect"]

#: reasons to read all documents again
ANOTHER_CUT = "the model or the way of cutting has changed"
NO_INDEX = "the index is gone"


@dataclass(frozen=True)
class Prospect:
    """Paths by what a run would make of them. Those of ``read`` it would read and extract, in this order."""

    changes: Changes = field(default_factory=Changes)
    #: settled documents that a run would read again although their files are as they were, and why
    again: tuple[bytes, ...] = ()
    again_because: str | None = None
    #: documents that waited before
    waiting: tuple[bytes, ...] = ()
    #: new or changed entries that are no files, with the reason
    refused: Mapping[bytes, str] = field(default_factory=dict)
    #: documents that would go: gone from the folder, and those whose removal is still to be done
    deleted: tuple[bytes, ...] = ()
    #: content hash that the index has, or that failed, by path; only of documents to be read
    content: Mapping[bytes, str] = field(default_factory=dict)
    #: documents whose content (that of ``content``) has no tries left, with the reason
    spent: Mapping[bytes, str] = field(default_factory=dict)
    #: documents that the ledger has, before the run
    known: int = 0
    #: why a run would hold the deletions back
    held_because: str | None = None

    @property
    def read(self) -> tuple[bytes, ...]:
        changes = self.changes
        found = (*(new for _, new in changes.moved), *changes.created, *changes.changed, *self.waiting, *self.again)
        return tuple(path for path in dict.fromkeys(found) if path not in self.refused)

    @property
    def unchanged(self) -> int:
        """Documents that a run would leave alone."""
        touched = {*(old for old, _ in self.changes.moved), *self.changes.changed, *self.waiting, *self.again}
        return self.known - len(touched | set(self.deleted))


def look_ahead(root: bytes, settings: Settings, layout: Layout) -> Prospect:
    """Scan the folder and compare. Raises FolderError if it cannot be read, HeadwaterError if the ledger cannot."""
    rules = Rules(root, settings.include, settings.exclude, frozenset({os.fsencode(layout.root)}))
    scanner = Scanner(root, rules)
    seen = scanner.scan()
    if not layout.ledger.exists():
        return prospect(seen, {}, None, settings.attempts)
    with Entries(layout.ledger) as ledger:
        rows = {entry.path: entry for entry in ledger.below(b"")}
        again = _why_all_again(ledger, settings, layout)
        before = Identity.parse(ledger.meta("root") or "")
    known = {path: row.fingerprint for path, row in rows.items() if row.operation == "index"}
    shown = open_only(known, seen, scanner.closed) if scanner.closed else known
    hidden = {path: row for path, row in rows.items() if path in known and path not in shown}
    ahead = prospect(seen, {path: row for path, row in rows.items() if path not in hidden}, again, settings.attempts)
    return replace(ahead, held_because=_why_held(ahead, before, os.stat(root), settings))


def _why_held(ahead: Prospect, before: Identity | None, now: os.stat_result, settings: Settings) -> str | None:
    """As the producer does after a scan, where nobody has accepted anything."""
    guard = DeletionGuard(settings.deletion_share)
    identity = Identity(now.st_dev, now.st_ino)
    return guard.reason(len(ahead.changes.deleted), ahead.known, before, identity, accepted=0, clock_s=0.0)


def _why_all_again(ledger: Entries, settings: Settings, layout: Layout) -> str | None:
    """As the producer does when it starts."""
    fingerprint = settings.pipeline_fingerprint()
    if (ledger.meta("pipeline") or fingerprint) != fingerprint:
        return ANOTHER_CUT
    if ledger.meta("index_id") and not settings.qdrant_url and not layout.manifest.exists():
        return NO_INDEX
    return None


def prospect(
    seen: Mapping[bytes, Seen], rows: Mapping[bytes, Entry], again_because: str | None, attempts: int
) -> Prospect:
    """Sort what a scan saw by what the ledger knows."""
    live = {path: row for path, row in rows.items() if row.operation == "index"}
    changes = diff({path: row.fingerprint for path, row in live.items()}, seen)
    new = {*changes.created, *changes.changed, *(path for _, path in changes.moved)}
    kept = {path: row for path, row in live.items() if path in seen and path not in new}
    pending = {path for path, row in rows.items() if row.operation == "delete" and row.waiting}
    again = tuple(path for path, row in kept.items() if not row.waiting) if again_because else ()
    waiting = tuple(path for path, row in kept.items() if row.waiting)
    read = {*new, *waiting, *again}
    return Prospect(
        changes=changes,
        again=again,
        again_because=again_because,
        waiting=waiting,
        refused={path: reason for path in read if (reason := seen[path].refusal) is not None},
        deleted=(*changes.deleted, *sorted(pending - set(seen))),
        content={path: row.content_hash for path, row in rows.items() if row.content_hash is not None},
        spent={
            path: row.reason or "it failed before"
            for path, row in rows.items()
            if path in read and again_because != ANOTHER_CUT and _is_spent(row, attempts)
        },
        known=len(live) + len(pending),
    )


def _is_spent(row: Entry, attempts: int) -> bool:
    return row.state == "failed" and row.content_hash is not None and row.attempts >= attempts
