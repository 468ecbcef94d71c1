"""File systems of one's own under a session's directories. Needs root; a fault that cannot mount says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["bind", "copy_image", "filled", "make_image", "mount_image", "remount", "tmpfs", "unmount", "unmount_below"]

_IMAGE_BYTES = 1 << 30
_SNAPSHOT_TRIES = 20


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def tmpfs(directory: Path, megabytes: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))


def bind(source: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(source), str(directory))


def remount(directory: Path, option: str) -> None:
    _run("mount", "-o", f"remount,{option}", str(directory))


def unmount(directory: Path) -> None:
    _run("umount", "-l", str(directory))


def unmount_below(directory: Path) -> None:
    """Every mount at or below a directory, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([m for m in mounts if m == str(directory) or m.startswith(f"{directory}/")]):
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("umount", "-l", mount)


def make_image(image: Path) -> None:
    """A file that holds an empty ext4 file system."""
    with open(image, "wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run("mkfs.ext4", "-q", str(image))


def mount_image(image: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(directory))


def copy_image(image: Path, target: Path) -> None:
    """The image as a power cut would leave it: what the file system has written to its device, and nothing more.

    The writers are held still, but the kernel may still write back, so it is copied until two copies are equal.
    """
    again = target.with_suffix(".again")
    for _ in range(_SNAPSHOT_TRIES):
        for copy in (target, again):
            _run("cp", "--sparse=always", str(image), str(copy))
        if subprocess.run(["cmp", "-s", str(target), str(again)], timeout=60).returncode == 0:
            again.unlink()
            return
    raise RuntimeError("the image did not hold still")


@contextmanager
def filled(directory: Path, left_bytes: int) -> Iterator[None]:
    """The file system at a directory with only so much left."""
    filler = directory / "filler"
    with open(filler, "wb") as file:
        while (free := shutil.disk_usage(directory).free - left_bytes) > 0:
            try:
                file.write(os.urandom(4096) * max(1, min(free, 8 << 20) // 4096))
                file.flush()
            except OSError:
                break
    try:
        yield
    finally:
        filler.unlink()
