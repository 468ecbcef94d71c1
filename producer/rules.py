"""Which paths are documents: default denials, ignore files at every level, include and exclude globs.

Ignore files follow git's rules (gitignore(5)): deeper files win over shallower ones, a later line wins over an
earlier one, and nothing inside an excluded directory can be taken in again.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from pathspec import GitIgnoreSpec

from headwater.errors import SettingsError

__all__ = ["IGNORE_FILES", "Rules"]

log = logging.getLogger(__name__)

IGNORE_FILES = (b".gitignore", b".headwaterignore")

#: never documents, whatever other rules say: version control, dependencies, editors' temporary files, secrets
DEFAULT_DENIALS = (
    # dot files and dot directories: version control, editors, caches, secrets such as .env*, own state
    ".*",
    # dependencies and build output
    "node_modules/",
    "__pycache__/",
    "*.pyc",
    # editors' and downloaders' temporary files (vim, emacs, JetBrains, LibreOffice, Office, browsers)
    "*~",
    "\\#*#",
    "*.swp",
    "*.swo",
    "*.swx",
    "4913",
    "*___jb_tmp___",
    "*___jb_old___",
    "~$*",
    "*.tmp",
    "*.temp",
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.goutputstream-*",
    # keys and key stores
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.gpg",
    "*.asc",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
)


def _compile(patterns: Iterable[str], where: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error) as error:
        raise SettingsError(f"a pattern in {where} is not valid: {error}") from None


@dataclass
class Rules:
    """The rules of one folder. Ignore files are read once and again after ``forget``."""

    root: bytes
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: absolute directories that are never documents (the state directory, when it lies inside the folder)
    denied_directories: frozenset[bytes] = frozenset()
    _specs: dict[bytes, tuple[GitIgnoreSpec, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._denials = _compile(DEFAULT_DENIALS, "the default denials")
        self._include = _compile(self.include, "include")
        self._exclude = _compile(self.exclude, "exclude")

    def forget(self) -> None:
        """Read the ignore files again at the next question."""
        self._specs.clear()

    def admits(self, path: bytes) -> bool:
        """Whether a file at this path (relative to the root) is a document, with all directories above it."""
        parts = path.split(b"/")
        above = (b"/".join(parts[:depth]) for depth in range(1, len(parts)))
        return all(self.admits_directory(directory) for directory in above) and self.admits_file(path)

    def admits_directory(self, path: bytes) -> bool:
        """Whether to look into a directory whose parents are admitted."""
        return not self._denied(path, is_directory=True)

    def admits_file(self, path: bytes) -> bool:
        """Whether a file whose directories are admitted is a document."""
        if self._denied(path, is_directory=False):
            return False
        return not self.include or self._include.match_file(os.fsdecode(path))

    def _denied(self, path: bytes, *, is_directory: bool) -> bool:
        if os.path.join(self.root, path) in self.denied_directories:
            return True
        name = os.fsdecode(path) + ("/" if is_directory else "")
        if self._denials.match_file(name) or self._exclude.match_file(name):
            return True
        return self._ignored(path, name)

    def _ignored(self, path: bytes, name: str) -> bool:
        """Ask the ignore files from the deepest directory up; the first that says anything decides."""
        directory = os.path.dirname(path)
        while True:
            for spec in reversed(self._specs_of(directory)):
                inner = name[len(os.fsdecode(directory)) + 1 :] if directory else name
                verdict = spec.check_file(inner).include
                if verdict is not None:
                    return verdict
            if not directory:
                return False
            directory = os.path.dirname(directory)

    def _specs_of(self, directory: bytes) -> tuple[GitIgnoreSpec, ...]:
        if directory not in self._specs:
            found = (self._read(os.path.join(self.root, directory, name)) for name in IGNORE_FILES)
            self._specs[directory] = tuple(spec for spec in found if spec is not None)
        return self._specs[directory]

    def _read(self, path: bytes) -> GitIgnoreSpec | None:
        """The rules of one ignore file; as for git, a link or what is no regular file holds none."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EACCES:
                log.warning("the ignore file %s cannot be read: its rules are not applied", os.fsdecode(path))
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            with open(descriptor, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False) as file:
                lines = [line.removesuffix("\r") for line in file.read().split("\n")]
        finally:
            os.close(descriptor)
        return GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    """A line that is no pattern matches nothing, as for git: it must not stop the service."""
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True
