"""The folder as it is: a walk that yields each admitted entry with its fingerprint.

Never follows a symbolic link, never opens a file, and takes what vanishes on the way as gone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from headwater.document import Fingerprint
from headwater.errors import FolderError
from producer.diff import Seen
from producer.rules import Rules

__all__ = ["Scanner"]

_SYMLINK = "symbolic link: not followed"
_SPECIAL = "not a regular file (pipe, socket or device)"


@dataclass
class Scanner:
    """Looks at the folder through the rules."""

    root: bytes
    rules: Rules
    #: directories that the last full scan and the looks since then have visited
    directories: set[bytes] = field(default_factory=set)
    #: directories listed so far, however often
    listed: int = 0
    #: directories that could not be listed since the last full scan began
    closed: set[bytes] = field(default_factory=set)

    def scan(self) -> dict[bytes, Seen]:
        """The whole folder. Raises FolderError if it is not there or cannot be read."""
        return dict(self.walk())

    def walk(self) -> Iterator[tuple[bytes, Seen]]:
        """As ``scan``, one entry at a time."""
        self.rules.forget()
        self.directories.clear()
        self.closed.clear()
        try:
            os.stat(self.root)
            os.listdir(self.root)
        except OSError as error:
            where = os.fsdecode(self.root)
            raise FolderError(f"the folder {where} cannot be read ({error.strerror}): bring it back") from None
        yield from self._walk(b"")

    def look(self, path: bytes) -> dict[bytes, Seen]:
        """What is at or below one path now: empty if nothing is there, or nothing that the rules admit."""
        full = os.path.join(self.root, path)
        try:
            status = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError:
            self.closed.add(os.path.dirname(path))
            return {}
        if self._crosses_link(path):
            return {}
        if stat.S_ISDIR(status.st_mode):
            return dict(self._walk(path)) if self._directory_admitted(path) else {}
        return {path: _seen(status)} if self.rules.admits(path) else {}

    def is_directory(self, path: bytes) -> bool:
        """Whether a directory is there now; one behind a link is not."""
        try:
            return stat.S_ISDIR(os.lstat(os.path.join(self.root, path)).st_mode)
        except OSError:
            return False

    def _directory_admitted(self, path: bytes) -> bool:
        if not path:
            return True
        parts = path.split(b"/")
        return all(self.rules.admits_directory(b"/".join(parts[: n + 1])) for n in range(len(parts)))

    def _crosses_link(self, path: bytes) -> bool:
        """A path below a linked directory is no document: links are not followed."""
        directory = os.path.dirname(path)
        while directory:
            if os.path.islink(os.path.join(self.root, directory)):
                return True
            directory = os.path.dirname(directory)
        return False

    def _walk(self, top: bytes) -> Iterator[tuple[bytes, Seen]]:
        pending = [top]
        while pending:
            directory = pending.pop()
            self.directories.add(directory)
            self.listed += 1
            try:
                entries = self._entries(directory)
            except OSError as error:
                if not directory:
                    raise FolderError(
                        f"the folder {os.fsdecode(self.root)} cannot be listed: {error.strerror}"
                    ) from None
                yield self._closed(directory, error)
                continue
            for entry in entries:
                path = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if self.rules.admits_directory(path):
                        pending.append(path)
                elif self.rules.admits_file(path):
                    yield from self._file(path, entry)

    def _closed(self, directory: bytes, error: OSError) -> tuple[bytes, Seen]:
        """A directory that we may not list: said so, and what was known below it is kept."""
        self.closed.add(directory)
        try:
            status = os.lstat(os.path.join(self.root, directory))
            mark = Fingerprint(0, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        except OSError:
            mark = Fingerprint(0, 0, 0, 0)
        return directory, Seen(mark, f"the directory cannot be listed: {error.strerror}")

    def _entries(self, directory: bytes) -> list[os.DirEntry[bytes]]:
        try:
            with os.scandir(os.path.join(self.root, directory)) as entries:
                os.stat(os.path.join(self.root, directory, b"."))  # may we look into it, besides listing it?
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []  # vanished between listing and looking: gone is gone

    def _file(self, path: bytes, entry: os.DirEntry[bytes]) -> Iterator[tuple[bytes, Seen]]:
        try:
            yield path, _seen(entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return


def _seen(status: os.stat_result) -> Seen:
    mark = Fingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    if stat.S_ISLNK(status.st_mode):
        return Seen(mark, _SYMLINK)
    return Seen(mark, None if stat.S_ISREG(status.st_mode) else _SPECIAL)
