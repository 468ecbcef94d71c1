"""Which folder, and which path in it, a person means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from headwater.document import path_to_text
from headwater.errors import FolderError, QueryError
from headwater.settings import Settings
from headwater.state import Layout, Lock, default_root, find_layout

__all__ = ["Place", "find_place", "path_inside"]


@dataclass(frozen=True)
class Place:
    """A folder with its state directory. The folder may be missing just now, and the ledger not be made yet."""

    settings: Settings
    layout: Layout
    folder: Path

    @property
    def root(self) -> bytes:
        return os.fsencode(self.folder)

    @property
    def running(self) -> bool:
        """Whether a process follows the folder."""
        return any(Lock.is_held(self.layout, name) for name in ("up", "producer"))


def find_place(folder: Path | None, state_dir: Path | None, path: str | None = None) -> Place:
    """The place that the options name, else the one around an absolute ``path``, else as for all commands.

    Raises SettingsError or FolderError if there is none.
    """
    settings = Settings.load(folder=folder, state_dir=state_dir)
    around = None
    if settings.folder is None and settings.state_dir is None and path is not None and os.path.isabs(path):
        above = Path(os.path.realpath(os.path.dirname(path)))
        around = next((each for each in (above, *above.parents) if default_root(each).is_dir()), None)
    layout = find_layout(settings) if around is None else Layout(default_root(around))
    return Place(settings, layout, settings.folder or around or _noted_folder(layout))


def _noted_folder(layout: Layout) -> Path:
    """The folder that the ledger was made for."""
    from producer.entries import Entries

    noted = None
    if layout.ledger.exists():
        with Entries(layout.ledger) as entries:
            noted = entries.meta("folder")
    if noted is None:
        raise FolderError(f"the state directory {layout.root} tells of no folder yet: name one with --folder")
    return Path(noted)


def path_inside(text: str, folder: Path, cwd: Path, known: Callable[[bytes], bool]) -> bytes:
    """The path relative to the folder that ``text`` means: seen from the working directory, else from the folder; a
    name that is not UTF-8 also in the form in which it is shown (``%XX``).

    The first that is ``known`` counts. Raises QueryError if it lies outside.
    """
    candidates = list(dict.fromkeys(_candidates(text, folder, cwd)))
    if not candidates:
        raise QueryError(f"{text} does not lie in the folder {folder}: give a path in it, or another --folder")
    return next((path for path in candidates if known(path)), candidates[0])


def _candidates(text: str, folder: Path, cwd: Path) -> Iterator[bytes]:
    for start in (cwd, folder):
        # the directory may be reached by another name; the last part may itself be a link, which is what is asked for
        full = os.path.normpath(os.path.join(start, text))
        real = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        for path in (full, real):
            inner = _below(os.fsencode(path), os.fsencode(folder))
            if inner is not None:
                yield inner
                if "%" in text:
                    yield unquote_to_bytes(path_to_text(inner))


def _below(path: bytes, folder: bytes) -> bytes | None:
    """The path relative to the folder, empty for the folder itself; None if it lies outside."""
    if path == folder:
        return b""
    prefix = folder.rstrip(b"/") + b"/"
    return path.removeprefix(prefix) if path.startswith(prefix) else None
