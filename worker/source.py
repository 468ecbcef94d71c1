"""Reads a document's bytes: confined to the folder, never through a link, and never a mix of two versions."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass

from headwater.document import Fingerprint, path_to_text
from headwater.errors import FolderError
from headwater.failpoints import reach

__all__ = ["Source", "SourceGone", "SourceRefused", "SourceUnreadable", "read_source"]

#: a file written this lately is read a moment later: the next write in the same tick would leave its times as they are
_SETTLE_NS = 12_000_000
#: a file that keeps changing is read again this often before the turn passes to other work
_TRIES = 5
_BLOCK_BYTES = 1 << 20
_SPECIAL = "not a regular file (pipe, socket or device)"


class SourceGone(Exception):
    """Nothing is at the path."""


class SourceRefused(Exception):
    """Something is there that is not a document for us; ``fingerprint`` is its stat, if that is known."""

    def __init__(self, reason: str, fingerprint: Fingerprint | None = None) -> None:
        super().__init__(reason)
        self.fingerprint = fingerprint


class SourceUnreadable(Exception):
    """The file is there but cannot be read now."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file's bytes and the stat that goes with exactly these bytes."""

    data: bytes
    fingerprint: Fingerprint


def read_source(root: bytes, path: bytes, max_file_bytes: int) -> Source:
    """Read the file at ``path`` below ``root``.

    Raises SourceGone, SourceRefused or SourceUnreadable with a reason for people, or FolderError if the folder itself
    cannot be opened.
    """
    for _ in range(_TRIES):
        descriptor = _open(root, path)
        try:
            source = _read(descriptor, path, max_file_bytes)
        finally:
            os.close(descriptor)
        if source is not None:
            return source
    raise SourceUnreadable("the file changes faster than it can be read")


def _open(root: bytes, path: bytes) -> int:
    """Open without following any link: a component that is one, or that leads upwards, is refused."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or b"\0" in path:
        raise SourceRefused("the path does not stay in the folder")
    directory = _open_root(root)
    try:
        for part in parts[:-1]:
            inner = _open_part(part, directory, os.O_DIRECTORY | os.O_NOFOLLOW)
            os.close(directory)
            directory = inner
        return _open_part(parts[-1], directory, os.O_NOFOLLOW | os.O_NONBLOCK)
    finally:
        os.close(directory)


def _open_root(root: bytes) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as error:
        raise FolderError(
            f"the folder {os.fsdecode(root)} cannot be opened ({error.strerror}): bring it back"
        ) from None


def _open_part(name: bytes, directory: int, flags: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=directory)
    except FileNotFoundError:
        raise SourceGone from None
    except OSError as error:
        if error.errno == errno.ENOTDIR or (error.errno == errno.ELOOP and flags & os.O_DIRECTORY):
            raise SourceGone from None  # nothing is in the folder there: links are not followed
        if error.errno == errno.ELOOP:
            raise SourceRefused("symbolic link: not followed", _mark_of(name, directory)) from None
        if error.errno == errno.ENXIO:
            raise SourceRefused(_SPECIAL, _mark_of(name, directory)) from None
        raise SourceUnreadable(f"the file cannot be opened: {error.strerror}") from None


def _read(descriptor: int, path: bytes, max_file_bytes: int) -> Source | None:
    """The bytes between two equal stats; None if the file changed meanwhile."""
    before = _settled(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise SourceRefused(_SPECIAL, _mark(before))
    if before.st_size > max_file_bytes:
        reason = f"larger than the limit of {max_file_bytes} bytes (HEADWATER_MAX_FILE_BYTES)"
        raise SourceRefused(reason, _mark(before))
    try:
        reach("worker:reading", path_to_text(path))
        data = _all_bytes(descriptor, before.st_size)
    except OSError as error:
        raise SourceUnreadable(f"the file cannot be read: {error.strerror}") from None
    after = os.fstat(descriptor)
    if _mark(before) != _mark(after) or len(data) != after.st_size:
        return None
    return Source(data, _mark(after))


def _settled(descriptor: int) -> os.stat_result:
    """The stat, once the last change lies a clock tick back (the kernel's file times are that coarse)."""
    status = os.fstat(descriptor)
    age = time.time_ns() - status.st_ctime_ns
    if 0 <= age < _SETTLE_NS:
        time.sleep((_SETTLE_NS - age) / 1e9)
        status = os.fstat(descriptor)
    return status


def _all_bytes(descriptor: int, size: int) -> bytes:
    blocks: list[bytes] = []
    left = size + 1
    while left > 0 and (block := os.read(descriptor, min(left, _BLOCK_BYTES))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def _mark(status: os.stat_result) -> Fingerprint:
    return Fingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _mark_of(name: bytes, directory: int) -> Fingerprint:
    """Raises SourceGone if it went meanwhile."""
    try:
        return _mark(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except OSError:
        raise SourceGone from None
