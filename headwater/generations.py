"""The generations of an index: each is a whole index of the folder with settings of its own, and one is current."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from headwater.errors import SettingsError
from headwater.settings import Settings
from headwater.state import Layout, Lock, Pointer, known_layout, write_atomically

__all__ = [
    "MAKING",
    "Made",
    "Note",
    "Return",
    "as_pinned",
    "drop_expired",
    "drop_generation",
    "existing",
    "making",
    "overruled",
    "pin",
    "pinned_to",
    "pins",
    "serve",
    "serving",
    "under_way",
    "unpin",
]

#: the settings that make an index what it is: a reindex may change them, and then they stay with the new index
MAKING = (
    "model", "truncate_dim", "document_prompt", "query_prompt", "chunk_tokens", "heading_context", "language", "ocr",
    "max_file_bytes", "archive_depth", "archive_members", "archive_bytes", "password_file", "quantization",
)  # fmt: skip
#: files of the first generation, which share the root of the state directory with what belongs to all
_FIRST = ("ledger.sqlite3*", "index*", "kept.sqlite3*", "sandbox", "configuration.json", "pinned.json")


def making(settings: Settings) -> dict[str, Any]:
    """The values of ``MAKING``, as JSON has them."""
    return settings.model_dump(mode="json", include=set(MAKING))


@dataclass(frozen=True)
class Made:
    """What an index was made with, as its worker found at its last start."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    #: fingerprints of the whole way from bytes to points, and of the way to chunks
    pipeline: str | None = None
    cutting: str | None = None

    def write(self, layout: Layout) -> None:
        write_atomically(layout.configuration, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, layout: Layout) -> Made:
        """Empty if nothing is noted (an index of an earlier version, say): then nothing is taken for granted."""
        try:
            return cls.of(json.loads(layout.configuration.read_text("utf-8")))
        except (OSError, ValueError):
            return cls()

    @classmethod
    def of(cls, raw: Any) -> Made:
        """From its JSON form; empty if it is none."""
        try:
            return cls(**raw)
        except TypeError:
            return cls()


def pins(layout: Layout) -> dict[str, Any]:
    """Settings of this generation that go before all others. Raises SettingsError if they cannot be read."""
    try:
        found = json.loads(layout.pinned.read_text("utf-8"))
        return {name: found[name] for name in MAKING if name in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{layout.pinned}, which holds settings of the index, cannot be read ({error}): restore it"
        ) from None


def pin(layout: Layout, values: Mapping[str, Any]) -> None:
    """Let these settings, as JSON has them, stay with this generation; those that it has already stay as well."""
    write_atomically(layout.pinned, json.dumps({**pins(layout), **values}, indent=1))


def unpin(layout: Layout, names: Iterable[str]) -> None:
    """Take these settings from the environment again."""
    write_atomically(
        layout.pinned, json.dumps({n: v for n, v in pins(layout).items() if n not in set(names)}, indent=1)
    )


def as_pinned(settings: Settings) -> Settings:
    """The settings as the generation that they mean has them, as the state directory knows it. (On a host that has no
    state of the producer's, the server knows: ``headwater.following``.)"""
    if (layout := known_layout(settings)) is None:
        return settings
    return pinned_to(settings, layout.generation, pins(layout))


def pinned_to(settings: Settings, generation: int, values: Mapping[str, Any]) -> Settings:
    """The settings for one generation with these of its own."""
    if generation == 1 and not values:
        return settings
    given = {name: Path(value) if name == "password_file" and value else value for name, value in values.items()}
    return settings.model_copy(update={"generation": generation, **given})


def overruled(given: Settings, values: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that somebody gives and the index has otherwise."""
    asked = making(given)
    return [
        f"the index has {name}={json.dumps(value)} since 'headwater reindex', and {json.dumps(asked[name])}, which "
        f"the settings say, is not used: set HEADWATER_{name.upper()} as it is, or run 'headwater reindex' to change it"
        for name, value in values.items()
        if name in given.model_fields_set and asked[name] != value
    ]


@dataclass(frozen=True)
class Note:
    """A reindex under way: it makes ``generation`` beside ``source``. ``phase`` is "preparing", "filling", "filled" (it
    has caught up) or "checked" (the shadow check was passed)."""

    generation: int
    source: int
    pins: Mapping[str, Any]
    source_pins: Mapping[str, Any]
    phase: str = "preparing"

    def write(self, layout: Layout) -> None:
        write_atomically(layout.reindex, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, layout: Layout) -> Note | None:
        """None if no reindex is under way. Raises SettingsError if it cannot be read."""
        return _read(layout.reindex, cls, "a reindex")


@dataclass(frozen=True)
class Return:
    """A rollback under way: from ``source`` back to ``generation``."""

    generation: int
    source: int

    def write(self, layout: Layout) -> None:
        write_atomically(layout.rollback, json.dumps(asdict(self)))

    @classmethod
    def read(cls, layout: Layout) -> Return | None:
        """None if no rollback is under way. Raises SettingsError if it cannot be read."""
        return _read(layout.rollback, cls, "a rollback")


_Noted = TypeVar("_Noted")


def _read(path: Path, kind: Callable[..., _Noted], what: str) -> _Noted | None:
    """What is noted there; None if nothing is."""
    try:
        return kind(**json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{path}, the note of {what}, cannot be read ({error}): delete it to begin anew") from None


def serving(layout: Layout) -> int | None:
    """The generation that is to answer questions, as ``up`` has noted; None if nothing is."""
    try:
        return int(json.loads(layout.serving.read_text("utf-8"))["generation"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def serve(layout: Layout) -> None:
    """Note that this generation is to answer from now on."""
    write_atomically(layout.serving, json.dumps({"generation": layout.generation}))


# -- those that are there ----------------------------------------------------------------------------------


def existing(root: Path) -> list[int]:
    """The generations of which anything is in this state directory."""
    first = [1] if Layout(root).ledger.exists() or Layout(root).manifest.exists() else []
    later = Layout(root).generations
    numbers = (int(entry.name) for entry in (later.iterdir() if later.is_dir() else ()) if entry.name.isdecimal())
    return first + sorted(numbers)


def drop_generation(layout: Layout) -> None:
    """Remove all of it. It may be done again after a crash."""
    if layout.socket.parent != layout.broker:
        shutil.rmtree(layout.socket.parent, ignore_errors=True)
    if layout.generation != 1:
        shutil.rmtree(layout.home, ignore_errors=True)
        return
    for path in _first_files(layout):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _first_files(layout: Layout) -> Iterator[Path]:
    for pattern in _FIRST:
        yield from layout.root.glob(pattern)


def drop_expired(
    root: Path,
    keep_s: float,
    spared: Collection[int | None] = (),
    drop: Callable[[Layout], None] = drop_generation,
    may_go: Callable[[Layout], bool] = lambda _: True,
) -> list[int]:
    """Remove generations that nobody needs: neither current, nor ``spared``, nor in use, nor the previous one that was
    left less than ``keep_s`` ago; and of them only those that ``may_go``. Returns their numbers."""
    pointer = Pointer.read(Layout(root))
    if not pointer.moved_at:
        return []  # none was ever left
    needed = {pointer.generation, *spared}
    if time.time() - pointer.moved_at < keep_s:
        needed.add(pointer.previous)
    old = [Layout(root, number) for number in existing(root) if number not in needed]
    unused = [layout for layout in old if not any(Lock.is_held(layout, name) for name in ("producer", "worker"))]
    dropped = [layout for layout in unused if may_go(layout)]
    for layout in dropped:
        drop(layout)
    if pointer.previous in {layout.generation for layout in dropped}:
        replace(pointer, previous=None).write(Layout(root))
    return [layout.generation for layout in dropped]


def under_way(layout: Layout) -> set[int]:
    """The generations that a reindex or a rollback works on just now."""
    return {note.generation for note in (Note.read(layout), Return.read(layout)) if note is not None}
