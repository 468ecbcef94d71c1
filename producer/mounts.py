"""Which file systems tell of changes: inotify hears nothing of what other hosts do on a network file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["network_file_system"]

#: types (proc(5), mountinfo) whose files other hosts change without an event here
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs",
     "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs", "virtiofs"}
)  # fmt: skip


def network_file_system(folder: Path) -> str | None:
    """The type of the network file system that holds the folder; None if it is a local one or cannot be known."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            kind = type_at(os.fsencode(folder), file)
    except OSError:
        return None
    return kind if kind in _NETWORK else None


def type_at(path: bytes, mountinfo: Iterable[bytes]) -> str | None:
    """The file system type of the innermost mount that holds ``path``; of equal mount points the last one counts."""
    found: tuple[int, str] | None = None
    for mount_point, kind in _mounts(mountinfo):
        inside = path == mount_point or path.startswith(mount_point.rstrip(b"/") + b"/")
        if inside and (found is None or len(mount_point) >= found[0]):
            found = len(mount_point), kind
    return None if found is None else found[1]


def _mounts(lines: Iterable[bytes]) -> Iterator[tuple[bytes, str]]:
    for line in lines:
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and kind:
            mount_point = fields[4].decode("unicode_escape", "replace").encode("latin-1", "replace")  # \040 is a space
            yield mount_point, kind[0].decode("ascii", "replace")
