"""What changed between the ledger and the folder. Pure: no I/O.

Order matters to nobody but the embedding cache: a rename is one change, so that the new path finds the old vectors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headwater.document import Fingerprint

__all__ = ["Changes", "Seen", "diff", "open_only"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A directory entry that the rules admit. ``refusal`` says why it can never be read as a document."""

    fingerprint: Fingerprint
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths by what happened to them. ``moved`` pairs (old, new); no path is in two of the fields."""

    created: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = ()
    moved: tuple[tuple[bytes, bytes], ...] = ()
    deleted: tuple[bytes, ...] = ()

    def without_deletions(self) -> Changes:
        """The same with the deleted paths left as they are."""
        return replace(self, deleted=())

    def arrivals(self) -> Changes:
        """Only the paths that were not there before."""
        return Changes(created=self.created, moved=self.moved)

    def in_place(self) -> Changes:
        """Only what happened to paths that were known."""
        return Changes(changed=self.changed, deleted=self.deleted)

    def __len__(self) -> int:
        return len(self.created) + len(self.changed) + len(self.moved) + len(self.deleted)


def diff(known: Mapping[bytes, Fingerprint | None], seen: Mapping[bytes, Seen]) -> Changes:
    """Compare what the ledger knows with what the folder shows, over the same set of paths.

    A known fingerprint of None is never equal: such a document is due whatever the folder shows.
    """
    new = [path for path in seen if path not in known]
    gone = [path for path in known if path not in seen]
    changed = tuple(path for path, entry in seen.items() if path in known and known[path] != entry.fingerprint)
    pairs = _Pairs(known, seen, gone)
    by_inode = {path: old for path in new if (old := pairs.take_same_inode(path)) is not None}
    moved = [(old, path) for path in new if (old := by_inode.get(path) or pairs.take_same_size(path)) is not None]
    old_paths, new_paths = {old for old, _ in moved}, {path for _, path in moved}
    return Changes(
        created=tuple(path for path in new if path not in new_paths),
        changed=changed,
        moved=tuple(moved),
        deleted=tuple(path for path in gone if path not in old_paths),
    )


def open_only(
    known: Mapping[bytes, Fingerprint | None], seen: Mapping[bytes, Seen], closed: Collection[bytes]
) -> dict[bytes, Fingerprint | None]:
    """What is known, without the documents below directories that cannot be listed now: unseen is not gone."""
    above = tuple(directory + b"/" if directory else b"" for directory in closed)
    return {path: mark for path, mark in known.items() if path in seen or not path.startswith(above)}


@dataclass
class _Pairs:
    """Finds the path that a new path came from: the same inode, else the same size (the content then decides).

    A wrong pair by size costs nothing: it only means that the new path is written before the old one goes.
    """

    known: Mapping[bytes, Fingerprint | None]
    seen: Mapping[bytes, Seen]
    gone: list[bytes]
    by_inode: dict[tuple[int, int], bytes] = field(default_factory=dict)
    by_size: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    taken: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in self.gone:
            if (mark := self.known[path]) is not None:
                self.by_inode[mark.inode, mark.size] = path
                self.by_size[mark.size].append(path)

    def take_same_inode(self, path: bytes) -> bytes | None:
        mark = self.seen[path].fingerprint
        return self._take(path, [self.by_inode.get((mark.inode, mark.size))])

    def take_same_size(self, path: bytes) -> bytes | None:
        same_size = self.by_size.get(self.seen[path].fingerprint.size, [])
        while same_size and same_size[-1] in self.taken:
            same_size.pop()
        return self._take(path, same_size[-1:])

    def _take(self, path: bytes, candidates: Sequence[bytes | None]) -> bytes | None:
        if self.seen[path].refusal is not None:
            return None
        found = next((old for old in candidates if old is not None and old not in self.taken), None)
        if found is not None:
            self.taken.add(found)
        return found
