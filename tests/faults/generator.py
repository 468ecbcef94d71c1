"""Edits a folder at random, for ever, from a seed. It keeps no promise to the checker, which reads the disk itself.

Every line of every document carries a sentinel ``<document nonce>-v<version>-L<line>``. A version is never used twice,
so a line says by itself which writing of which document it comes from.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Generator"]

_WORDS = [
    "river",
    "stone",
    "paper",
    "window",
    "garden",
    "ladder",
    "copper",
    "harbour",
    "winter",
    "candle",
    "market",
    "bridge",
    "feather",
    "lantern",
    "meadow",
    "barrel",
    "thunder",
    "velvet",
    "compass",
    "orchard",
    "pepper",
    "saddle",
    "timber",
    "walnut",
    "anchor",
    "blanket",
    "cottage",
    "desert",
    "engine",
    "forest",
]
_DIRECTORIES = ("", "a", "b c", "a/deep/er", "über/тест")
#: names are few, so that a path is often made again after it was deleted
_NAMES = 24
_MOST_DOCUMENTS = 60
#: sections never share a chunk, so this many make more chunks than are embedded at once (256)
_LONG_SECTIONS = 300
_KEPT_VERSIONS = 40
_NONCE = re.compile(rb"([0-9a-f]{12})-v\d+-L\d+")


class Generator:
    """``step`` makes one edit; ``start`` and ``stop`` a thread that makes them at ``rate`` a second, in bursts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.edits = 0
        self._version = 0
        self._old: list[bytes] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._actions = self._weighted()

    def _weighted(self) -> list[Callable[[], None]]:
        weights: dict[Callable[[], None], int] = {
            self.create: 16,
            self.overwrite: 10,
            self.replace: 10,
            self.edit_part: 14,
            self.append: 8,
            self.truncate: 4,
            self.rename: 10,
            self.swap: 5,
            self.copy: 6,
            self.delete: 9,
            self.touch: 4,
            self.restore: 4,
            self.make_directory: 3,
            self.rename_directory: 4,
            self.remove_directory: 1,
        }
        return [action for action, weight in weights.items() for _ in range(weight)]

    # -- running ---------------------------------------------------------------------------------------------

    def reseed(self, seed: int) -> None:
        """Go on as another run, whose edits depend on this seed and on what the folder holds."""
        with self._lock:
            self.random.seed(seed)

    def start(self, rate: float = 25.0) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, args=(rate,), name="generator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, rate: float) -> None:
        while not self._ending.is_set():
            burst = self.random.choice((1, 1, 1, 2, 5, 12))
            for _ in range(burst):
                self.step()
            self._ending.wait(self.random.expovariate(rate / burst))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        """One edit. What is no longer there when its turn comes (a fault may have moved the folder) is left alone."""
        with self._lock, contextlib.suppress(OSError):
            if len(self.documents()) > _MOST_DOCUMENTS:
                self.delete()
            else:
                self.random.choice(self._actions)()
            self.edits += 1

    def long_document(self) -> None:
        """A new document with more chunks than are embedded at once."""
        with self._lock, contextlib.suppress(OSError):
            self._write(self._free_path(), self._text(self._new_nonce(), _LONG_SECTIONS))

    # -- what is there ---------------------------------------------------------------------------------------

    def documents(self) -> list[Path]:
        """Documents in the directories that are ours, in an order that does not depend on the file system."""
        return sorted(path for path in self.folder.rglob("doc*") if path.is_file())

    def _some(self) -> Path:
        found = self.documents()
        if not found:
            raise FileNotFoundError("no document")
        return self.random.choice(found)

    def _free_path(self) -> Path:
        directory = self.folder / self.random.choice((*_DIRECTORIES, *self._made_directories()))
        directory.mkdir(parents=True, exist_ok=True)
        suffix = self.random.choice((".md", ".md", ".txt"))
        return directory / f"doc{self.random.randrange(_NAMES)}{suffix}"

    def _made_directories(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("dir*") if path.is_dir())

    # -- texts -----------------------------------------------------------------------------------------------

    def _new_nonce(self) -> str:
        return f"{self.random.getrandbits(48):012x}"

    def _nonce_of(self, path: Path) -> str:
        found = _NONCE.search(path.read_bytes())
        return found.group(1).decode() if found else self._new_nonce()

    def _next_version(self) -> int:
        self._version = max(self._version + 1, time.time_ns() // 1_000_000)
        return self._version

    def _line(self, nonce: str, version: int, line: int) -> str:
        words = " ".join(self.random.choices(_WORDS, k=self.random.randint(3, 12)))
        return f"{nonce}-v{version}-L{line} {words}"

    def _text(self, nonce: str, sections: int | None = None) -> bytes:
        """Headings and paragraphs; every line that is not empty has its sentinel."""
        if sections is None:
            sections = _LONG_SECTIONS if self.random.random() < 0.015 else self.random.randint(1, 6)
        version, line, lines = self._next_version(), 0, []
        for _ in range(sections):
            line += 1
            lines += ["# " + self._line(nonce, version, line), ""]
            for _ in range(1 if sections == _LONG_SECTIONS else self.random.randint(1, 4)):
                for _ in range(self.random.randint(1, 4)):
                    line += 1
                    lines.append(self._line(nonce, version, line))
                lines.append("")
        return "\n".join(lines).encode()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._remember(data)

    def _remember(self, data: bytes) -> None:
        self._old.append(data)
        if len(self._old) > _KEPT_VERSIONS:
            self._old.pop(self.random.randrange(_KEPT_VERSIONS))

    # -- edits -----------------------------------------------------------------------------------------------

    def create(self) -> None:
        path = self._free_path()
        path.unlink(missing_ok=True)
        self._write(path, self._text(self._new_nonce()))

    def overwrite(self) -> None:
        """In place, in two writes with a moment between them: a reader may see the mix, but not at rest."""
        path = self._some()
        data = self._text(self._nonce_of(path))
        with open(path, "r+b", buffering=0) as file:
            file.write(data[: len(data) // 2])
            time.sleep(self.random.choice((0, 0, 0.002, 0.03)))
            file.write(data[len(data) // 2 :])
            file.truncate()
        self._remember(data)

    def replace(self) -> None:
        path = self._some()
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_bytes(self._text(self._nonce_of(path)))
        os.replace(temporary, path)

    def edit_part(self) -> None:
        """New lines for one section; the others stay as they are."""
        path = self._some()
        sections = path.read_bytes().split(b"\n# ")
        number = self.random.randrange(len(sections))
        sections[number] = self._text(self._nonce_of(path), 1).removeprefix(b"# " if number else b"")
        self._write(path, b"\n# ".join(sections))

    def append(self) -> None:
        path = self._some()
        with open(path, "ab") as file:
            file.write(b"\n\n" + self._text(self._nonce_of(path), 1))

    def truncate(self) -> None:
        """To some of its lines, now and then to none."""
        path = self._some()
        ends = [found.end() for found in re.finditer(rb"\n", path.read_bytes())]
        os.truncate(path, self.random.choice(ends) if ends and self.random.random() < 0.9 else 0)

    def rename(self) -> None:
        source, target = self._some(), self._free_path()
        os.replace(source, target)

    def swap(self) -> None:
        one, other = self._some(), self._some()
        aside = one.with_name(f"{one.name}.tmp")
        os.replace(one, aside)
        if one != other:
            os.replace(other, one)
        os.replace(aside, other)

    def copy(self) -> None:
        source, target = self._some(), self._free_path()
        if source != target:
            self.random.choice((shutil.copy, shutil.copy2))(source, target)

    def delete(self) -> None:
        self._some().unlink()

    def touch(self) -> None:
        os.utime(self._some())

    def restore(self) -> None:
        if self._old:
            self._write(self._some(), self.random.choice(self._old))

    def make_directory(self) -> None:
        directory = self.folder / f"dir{self.random.randrange(6)}"
        self._write(directory / f"doc{self.random.randrange(_NAMES)}.md", self._text(self._new_nonce()))

    def rename_directory(self) -> None:
        found = self._made_directories()
        if found:
            target = self.folder / f"dir{self.random.randrange(6)}"
            shutil.rmtree(target, ignore_errors=True)
            os.replace(self.folder / self.random.choice(found), target)

    def remove_directory(self) -> None:
        found = self._made_directories()
        if found:
            shutil.rmtree(self.folder / self.random.choice(found), ignore_errors=True)
