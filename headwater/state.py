"""The state directory: where things lie in it, who holds it, and which service runs on it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import quote

from headwater.errors import AlreadyRunning, DiskFull, HeadwaterError, SettingsError
from headwater.settings import Settings

__all__ = [
    "Layout",
    "Lock",
    "Pointer",
    "Service",
    "Troubles",
    "check_free_space",
    "find_layout",
    "noted_folder",
    "used_now",
]

#: sun_path of a Unix socket holds 108 bytes (unix(7))
_SOCKET_PATH_BYTES = 100
#: locks that each generation has for itself
_OWN_LOCKS = ("producer", "worker")


@dataclass(frozen=True)
class Layout:
    """Paths inside one state directory, as one generation of its index has them (docs/reindex.md)."""

    root: Path
    generation: int = 1

    @property
    def home(self) -> Path:
        """What belongs to one generation alone lies here."""
        return self.root if self.generation == 1 else self.generations / str(self.generation)

    @property
    def generations(self) -> Path:
        return self.root / "generations"

    @property
    def pointer(self) -> Path:
        """Which generation is the current one."""
        return self.root / "current.json"

    @property
    def configuration(self) -> Path:
        """What the generation was made with last."""
        return self.home / "configuration.json"

    @property
    def pinned(self) -> Path:
        """Settings of the generation that go before all others."""
        return self.home / "pinned.json"

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.sqlite3"

    @property
    def index(self) -> Path:
        """The Edge shard."""
        return self.home / "index"

    @property
    def manifest(self) -> Path:
        """Which model and schema the index was made with."""
        return self.home / "index.json"

    @property
    def kept(self) -> Path:
        """Vectors of texts that have left the index."""
        return self.home / "kept.sqlite3"

    @property
    def broker(self) -> Path:
        return self.home / "broker"

    @property
    def sandboxes(self) -> Path:
        """Homes of the extraction children."""
        return self.home / "sandbox"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def service(self) -> Path:
        return self.root / "service.json"

    @property
    def private_service(self) -> Path:
        """Of a generation that is not the current one yet."""
        return self.home / "private.json"

    @property
    def reindex(self) -> Path:
        """How far a reindex is that is under way."""
        return self.root / "reindex.json"

    @property
    def rollback(self) -> Path:
        """Where a rollback leads that is under way."""
        return self.root / "rollback.json"

    @property
    def serving(self) -> Path:
        """Which generation is to answer questions while ``up`` runs."""
        return self.root / "serving.json"

    @property
    def troubles(self) -> Path:
        return self.home / "troubles.json"

    @property
    def token(self) -> Path:
        return self.root / "token"

    def lock(self, name: str) -> Path:
        """Producer and worker are those of a generation; the others are for all."""
        return (self.home if name in _OWN_LOCKS else self.root) / f"{name}.lock"

    @property
    def socket(self) -> Path:
        """Unix socket of the embedded broker, in a directory of mode 0700."""
        inside = self.broker / "valkey.sock"
        if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES and _is_utf8(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def broker_url(self) -> str:
        return f"redis+socket://{quote(str(self.socket))}"

    def create(self) -> Layout:
        """Make the directories, private to the user. Raises SettingsError or DiskFull with a clear sentence."""
        try:
            for directory in (self.root, self.home, self.broker, self.logs, self.socket.parent):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the state directory {self.root} cannot be made ({error.strerror}): "
                "name another with --state-dir or HEADWATER_STATE_DIR"
            ) from None
        _check_private(self.socket.parent)
        if not os.access(self.root, os.W_OK):
            raise SettingsError(f"the state directory {self.root} is not writable: name another with --state-dir")
        return self

    def read_token(self) -> str:
        """The secret that callers show who want to change state through the API; made on first use, mode 0600."""
        if not (token := self._token()):
            made = self.token.with_name(f"token.{os.getpid()}.tmp")
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave an empty one, which everybody would know
            if self.token.exists():
                os.replace(made, self.token)
            else:
                with contextlib.suppress(FileExistsError):  # another process was first
                    os.link(made, self.token)
                made.unlink()
            token = self._token()
        return token

    def _token(self) -> str:
        """The token there is; empty if there is none."""
        try:
            return self.token.read_text("ascii").strip().strip("\0")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""


def _is_utf8(path: Path) -> bool:
    """Whether a URL can name the path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_private(directory: Path) -> None:
    status = directory.stat()
    if status.st_uid != os.getuid():
        raise SettingsError(f"{directory} belongs to another user: name another state directory with --state-dir")
    if status.st_mode & 0o077:
        directory.chmod(0o700)


def state_home() -> Path:
    """Where state directories are made by default (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "headwater"


def default_root(folder: Path) -> Path:
    """The default state directory of a folder."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]
    return state_home() / f"{folder.name or 'root'}-{digest}"


def find_layout(settings: Settings) -> Layout:
    """The state directory that a command means: the given one, else that of the given folder, else that of the
    folder around the working directory, else the one used last; and in it the generation that the settings name, else
    the current one. Raises SettingsError if there is none."""
    if (layout := known_layout(settings)) is None:
        raise SettingsError("no index is known here: run 'headwater up FOLDER' first, or name one with --state-dir")
    return layout


def known_layout(settings: Settings) -> Layout | None:
    """As ``find_layout``; None if there is none."""
    layout = _found_layout(settings)
    if layout is None:
        return None
    if settings.generation is not None:
        return Layout(layout.root, settings.generation)
    return Pointer.read(layout).layout(layout.root)


def _found_layout(settings: Settings) -> Layout | None:
    if settings.state_dir is not None:
        return Layout(settings.state_dir)
    if settings.folder is not None:
        return Layout(default_root(settings.folder))
    for directory in (Path.cwd(), *Path.cwd().parents):
        if (found := default_root(directory)).is_dir():
            return Layout(found)
    return _used_last()


@dataclass(frozen=True)
class Pointer:
    """Which generation is the current one, and which was before it. ``moved_at`` in seconds since the epoch;
    ``at_once``: it is to be served before it has caught up with the folder."""

    generation: int = 1
    previous: int | None = None
    moved_at: float = 0.0
    at_once: bool = False

    def layout(self, root: Path) -> Layout:
        return Layout(root, self.generation)

    def moved_to(self, generation: int, *, at_once: bool = False) -> Pointer:
        """With this generation as the current one; if it is already, the one before it stays what it was."""
        if generation == self.generation:
            return replace(self, at_once=at_once)
        return Pointer(generation, self.generation, time.time(), at_once)

    def write(self, layout: Layout) -> None:
        write_atomically(layout.pointer, json.dumps(asdict(self)))

    @classmethod
    def read(cls, layout: Layout) -> Pointer:
        """Raises SettingsError if the file cannot be understood: which index is meant must not be guessed."""
        try:
            return cls(**json.loads(layout.pointer.read_text("utf-8")))
        except FileNotFoundError:
            return cls()
        except NotADirectoryError:  # whoever makes the state directory says so
            return cls()
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(
                f"{layout.pointer}, which names the current index, cannot be read ({error}): restore it, or delete it "
                "to go back to the first one"
            ) from None


def noted_folder(layout: Layout) -> Path | None:
    """The folder that the ledger was made for; None if it notes none, or it is not there now."""
    try:
        with contextlib.closing(sqlite3.connect(f"{layout.ledger.absolute().as_uri()}?mode=ro", uri=True)) as ledger:
            row = ledger.execute("SELECT value FROM meta WHERE name = 'folder'").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None or not os.path.isdir(row[0]) else Path(row[0])


@contextlib.contextmanager
def used_now(layout: Layout) -> Iterator[None]:
    """Note the state directory as the one used last; a start that failed before there was an index was no use."""
    before = _used_last()
    remember(layout)
    try:
        yield
    except HeadwaterError:
        if before is not None and not layout.manifest.exists():
            remember(before)
        raise


def _used_last() -> Layout | None:
    last = state_home() / "last"
    return Layout(Path(last.read_text("utf-8").strip())) if last.exists() else None


def remember(layout: Layout) -> None:
    """Note the state directory as the one used last, for commands that name none (a convenience only)."""
    home = state_home()
    with contextlib.suppress(OSError, UnicodeError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(home / "last", str(layout.root))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text in one step, so that a reader sees the old or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class Lock:
    """An exclusive lock on a state directory that ends with the process, however it ends (flock(2))."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._path = layout.lock(name)
        self._layout = layout
        self._file: IO[str] | None = None

    def acquire(self, wait_s: float = 0.5) -> Lock:
        """Take the lock, waiting up to ``wait_s``. Raises AlreadyRunning that names the holder's pid."""
        deadline = time.monotonic() + wait_s
        self._file = open(self._path, "a+", encoding="ascii")  # noqa: SIM115  held until release
        while not self._try():
            if time.monotonic() >= deadline:
                sentence = self._sentence()
                self.release()
                raise AlreadyRunning(sentence)
            time.sleep(0.05)
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def _try(self) -> bool:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _sentence(self) -> str:
        assert self._file is not None
        self._file.seek(0)
        pid = self._file.read().strip() or "unknown"
        return (
            f"Headwater already runs on {self._layout.root} (pid {pid}): "
            "stop it first, or name another state directory with --state-dir"
        )

    @classmethod
    def holder(cls, layout: Layout, name: str) -> str | None:
        """The pid of the live process that holds the lock, as text; None if none does."""
        if not cls.is_held(layout, name):
            return None
        return layout.lock(name).read_text("ascii").strip() or None

    @classmethod
    def is_held(cls, layout: Layout, name: str) -> bool:
        """Whether a live process holds the lock."""
        try:
            with open(layout.lock(name), encoding="ascii") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class Service:
    """Where the running service's query API listens."""

    url: str
    pid: int
    generation: int = 1

    def write(self, layout: Layout) -> None:
        self.write_to(layout.service)

    def write_to(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self)))

    def withdraw(self, path: Path) -> None:
        """Tell no more of it; another one that tells of itself there since stays."""
        if Service.read_from(path) in (self, None):
            path.unlink(missing_ok=True)

    @classmethod
    def read(cls, layout: Layout) -> Service | None:
        """The service that runs now, or None if none does (a stale file counts as none)."""
        return cls.read_from(layout.service)

    @classmethod
    def read_from(cls, path: Path) -> Service | None:
        """As ``read``, of the file at ``path``."""
        try:
            raw = json.loads(path.read_text("utf-8"))
            url, pid, generation = raw["url"], raw["pid"], raw.get("generation", 1)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        known = isinstance(url, str) and isinstance(pid, int) and isinstance(generation, int)
        return cls(url, pid, generation) if known and _is_alive(pid) else None


@dataclass(frozen=True)
class Troubles:
    """Why parts of the service were started anew again and again, as sentences of the supervisor."""

    sentences: tuple[str, ...]

    def write(self, layout: Layout) -> None:
        """On a full disk this is lost, and with it nothing but the hint in the status."""
        with contextlib.suppress(OSError):
            if self.sentences:
                write_atomically(layout.troubles, json.dumps(self.sentences))
            else:
                layout.troubles.unlink(missing_ok=True)

    @classmethod
    def read(cls, layout: Layout) -> Troubles:
        try:
            return cls(tuple(str(sentence) for sentence in json.loads(layout.troubles.read_text("utf-8"))))
        except (OSError, ValueError, TypeError):
            return cls(())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0 and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Ended, but its parent has not taken note yet: in a container the first process may take seconds, or for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return False


def free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def check_free_space(path: Path, needed: int) -> None:
    """Raises DiskFull if the file system at ``path`` has less than ``needed`` bytes left.

    A full disk under a memory-mapped file is SIGBUS, not an error, so this is asked before every write.
    """
    free = free_bytes(path)
    if free < needed:
        raise DiskFull(
            f"the disk of the state directory {path} has {free // 1024**2} MiB left and Headwater needs "
            f"{needed // 1024**2} MiB: free some space or name another with --state-dir"
        )
