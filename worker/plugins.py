"""Readers of others: functions that a package registers for a media type, as entry points of ``headwater.readers``.

    [project.entry-points."headwater.readers"]
    "text/x-fountain" = "screenplay:read"

The function is a ``worker.extracted.Reader``. It is called for documents whose content shows this media type, in place
of the reader that they would have, and for those that nothing recognises by content and whose names end as ``reads``
says. It runs where all readers do: in the extraction child, confined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from headwater.settings import READERS
from worker.extracted import Reader

__all__ = ["for_media_type", "for_name", "reads"]

_ENDINGS = "headwater_endings"


def reads(*endings: str) -> Callable[[Reader], Reader]:
    """Marks a reader as one for documents whose names end so: ``@reads("fountain", "spmd")``."""

    def mark(reader: Reader) -> Reader:
        setattr(reader, _ENDINGS, tuple(ending.lower().lstrip(".") for ending in endings))
        return reader

    return mark


def for_media_type(mime: str) -> Reader | None:
    """The reader that is registered for a media type."""
    return _registered().get(mime) if mime else None


def for_name(name: str) -> tuple[str, Reader] | None:
    """The media type and the reader for a document that only its name tells anything of."""
    ending = name.lower().rpartition(".")[2]
    found = (row for row in _registered().items() if ending in getattr(row[1], _ENDINGS, ()))
    return next(found, None)


@cache
def _registered() -> dict[str, Reader]:
    """By media type. Of two for the same, the first by the name of its function: the same on every machine."""
    found: dict[str, Reader] = {}
    for point in sorted(entry_points(group=READERS), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name.lower(), _load(point))
    return found


def _load(point: EntryPoint) -> Reader:
    """Raises OSError: no document is to blame for a package that is broken."""
    try:
        reader: Reader = point.load()
    except Exception as error:  # whatever somebody else's module does when it is imported
        raise OSError(f"the reader {point.value} for {point.name} cannot be loaded: {error}") from error
    return reader
