"""What a producer expects of the workers of its folder, kept at the broker, so that each can compare before it takes a
hint: how documents are read and cut, and some files as the producer sees them. Pure but for looking at files."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headwater.document import ROUNDING_NS, path_from_wire, path_to_text, path_to_wire

__all__ = ["Expected", "SeenFile", "differences"]

#: longest value of a setting in a sentence
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file of the folder (path relative to it) as the producer has it: bytes, and nanoseconds since the epoch."""

    path: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Expected:
    """``pipeline`` is the fingerprint of the producer's settings of reading and cutting, ``parts`` what it is made of;
    ``files`` some files that are in the folder now."""

    pipeline: str
    parts: Mapping[str, str] = field(default_factory=dict)
    files: tuple[SeenFile, ...] = ()

    def to_json(self) -> str:
        files = [[path_to_wire(file.path), file.size, file.mtime_ns] for file in self.files]
        return json.dumps({"pipeline": self.pipeline, "parts": dict(self.parts), "files": files})

    @classmethod
    def from_json(cls, text: str | bytes) -> Expected | None:
        """None if it does not have the agreed form: then nothing is expected."""
        try:
            raw = json.loads(text)
            files = tuple(SeenFile(path_from_wire(path), int(size), int(at)) for path, size, at in raw["files"])
            parts = {str(name): str(value) for name, value in raw["parts"].items()}
            return cls(str(raw["pipeline"]), parts, files)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None

    def missing(self, root: Path) -> str | None:
        """Why a folder cannot be the producer's; None if it may be. One file that is as the producer has it, or newer,
        is enough: others may be edited, deleted or on their way just now."""
        try:
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            return f"cannot be opened ({error.strerror})"
        found = [_look(root, file) for file in self.files]
        if not found or None in found:
            return None
        example = f"{path_to_text(self.files[0].path)}, {found[0]}"
        return f"is empty here; the producer's has {example}" if empty else f"is another one here: of {example}"


def _look(root: Path, file: SeenFile) -> str | None:
    """What is wrong with a file; None if it is as it should be, or newer."""
    try:
        status = os.stat(os.path.join(os.fsencode(root), file.path), follow_symlinks=False)
    except (OSError, ValueError):
        return "nothing is seen"
    if not stat.S_ISREG(status.st_mode):
        return "no file is seen"
    later_ns = status.st_mtime_ns - file.mtime_ns
    if later_ns > ROUNDING_NS or (later_ns >= -ROUNDING_NS and status.st_size == file.size):
        return None
    return "another version is seen"


def differences(producer: Mapping[str, str], own: Mapping[str, str]) -> str:
    """What of two sets of ``Settings.pipeline_parts`` is not alike, for a sentence."""
    names = [name for name in {**own, **producer} if producer.get(name) != own.get(name)]
    told = (f"{name} is {_shown(producer, name)} there and {_shown(own, name)} here" for name in names)
    return "; ".join(told)


def _shown(parts: Mapping[str, str], name: str) -> str:
    value = parts.get(name, "unknown")
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
