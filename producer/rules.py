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

from headwater.document import path_to_text
from headwater.errors import SettingsError

__all__ = ["IGNORE_FILES", "Rules", "Verdict"]

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rule that decides on a path, for people, and the path or directory above it that the rule names.

    ``rule`` is None where nothing speaks against the path and no line takes it in again.
    """

    admitted: bool
    at: bytes
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class _IgnoreFile:
    """The patterns of one ignore file, and for each the number of its line."""

    path: bytes
    spec: GitIgnoreSpec
    lines: tuple[tuple[int, str], ...]

    def line(self, index: int) -> str:
        """The line that pattern number ``index`` came from, as ``FILE:LINE: PATTERN``."""
        number, pattern = self.lines[index]
        return f"{path_to_text(self.path)}:{number}: {_printable(pattern)}"


@dataclass
class Rules:
    """The rules of one folder. Ignore files are read once and again after ``forget``."""

    root: bytes
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: absolute directories that are never documents (the state directory, when it lies inside the folder)
    denied_directories: frozenset[bytes] = frozenset()
    _files: dict[bytes, tuple[_IgnoreFile, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._denials = _compile(DEFAULT_DENIALS, "the default denials")
        self._include = _compile(self.include, "include")
        self._exclude = _compile(self.exclude, "exclude")

    def forget(self) -> None:
        """Read the ignore files again at the next question."""
        self._files.clear()

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

    def explain(self, path: bytes, *, is_directory: bool = False) -> Verdict:
        """Which rule decides on a path; says "not admitted" exactly where ``admits`` (for a directory:
        ``admits_directory`` of it and of all above it) does."""
        if not path:
            return Verdict(True, path)
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            verdict = self._explained(b"/".join(parts[:depth]), is_directory=True)
            if not verdict.admitted:
                return verdict
        verdict = self._explained(path, is_directory=is_directory)
        if not verdict.admitted or is_directory or not self.include:
            return verdict
        return self._explained_include(path, verdict)

    def _explained(self, path: bytes, *, is_directory: bool) -> Verdict:
        """The first of the rules, in the order in which ``_denied`` asks them, that decides."""
        if os.path.join(self.root, path) in self.denied_directories:
            return Verdict(False, path, "the state directory of the index")
        name = _name(path, is_directory=is_directory)
        for spec, patterns, kind in (
            (self._denials, DEFAULT_DENIALS, "the default denials"),
            (self._exclude, self.exclude, "the setting exclude (HEADWATER_EXCLUDE)"),
        ):
            found = spec.check_file(name)
            if found.include:
                return Verdict(False, path, f"{kind}: {_pattern(patterns, found.index)}")
        decided = self._deciding_line(path, name)
        if decided is None:
            return Verdict(True, path)
        ignored, file, number = decided
        return Verdict(not ignored, path, file.line(number))

    def _explained_include(self, path: bytes, verdict: Verdict) -> Verdict:
        found = self._include.check_file(os.fsdecode(path))
        kind = "the setting include (HEADWATER_INCLUDE)"
        if found.include:
            return verdict if verdict.rule else Verdict(True, path, f"{kind}: {_pattern(self.include, found.index)}")
        if found.index is not None:
            return Verdict(False, path, f"{kind}: {_pattern(self.include, found.index)}")
        return Verdict(False, path, f"{kind}: no pattern of it matches ({', '.join(self.include)})")

    def _denied(self, path: bytes, *, is_directory: bool) -> bool:
        if os.path.join(self.root, path) in self.denied_directories:
            return True
        name = _name(path, is_directory=is_directory)
        if self._denials.match_file(name) or self._exclude.match_file(name):
            return True
        decided = self._deciding_line(path, name)
        return decided is not None and decided[0]

    def _deciding_line(self, path: bytes, name: str) -> tuple[bool, _IgnoreFile, int] | None:
        """Ask the ignore files from the deepest directory up; the first that says anything decides: whether it
        keeps the path out, and by which line."""
        directory = os.path.dirname(path)
        while True:
            for file in reversed(self._files_of(directory)):
                inner = name[len(os.fsdecode(directory)) + 1 :] if directory else name
                found = file.spec.check_file(inner)
                if found.include is not None and found.index is not None:
                    return found.include, file, found.index
            if not directory:
                return None
            directory = os.path.dirname(directory)

    def _files_of(self, directory: bytes) -> tuple[_IgnoreFile, ...]:
        if directory not in self._files:
            found = (self._read(os.path.join(directory, name)) for name in IGNORE_FILES)
            self._files[directory] = tuple(file for file in found if file is not None)
        return self._files[directory]

    def _read(self, path: bytes) -> _IgnoreFile | None:
        """The rules of one ignore file (relative to the root); as for git, a link or what is no regular file holds
        none."""
        full = os.path.join(self.root, path)
        try:
            descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EACCES:
                log.warning("the ignore file %s cannot be read: its rules are not applied", os.fsdecode(full))
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            with open(descriptor, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False) as file:
                texts = [line.removesuffix("\r") for line in file.read().split("\n")]
        finally:
            os.close(descriptor)
        lines = tuple((number, text) for number, text in enumerate(texts, 1) if text and _is_pattern(text))
        return _IgnoreFile(path, GitIgnoreSpec.from_lines(text for _, text in lines), lines)


def _name(path: bytes, *, is_directory: bool) -> str:
    """A path as patterns see it: a directory ends with a slash."""
    return os.fsdecode(path) + ("/" if is_directory else "")


def _pattern(patterns: tuple[str, ...], index: int | None) -> str:
    """The pattern with this number; like the matcher's own list, the one here leaves out empty texts."""
    assert index is not None, "a pattern decided"
    return [pattern for pattern in patterns if pattern][index]


def _printable(pattern: str) -> str:
    return path_to_text(pattern.encode("utf-8", "surrogateescape"))


def _is_pattern(line: str) -> bool:
    """A line that is no pattern matches nothing, as for git: it must not stop the service."""
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True
