"""The files behind the hits, as they are now: to check a citation against, and to see that a hit is stale."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote_to_bytes

from headwater.decode import Undecodable, decode
from headwater.document import rfc3339

__all__ = ["Sources"]


class Sources:
    """Files of folders by the paths that hits show. Safe to use from several threads."""

    def __init__(self, folders: Mapping[str, Path], *, most_bytes: int = 64 * 1024 * 1024) -> None:
        """``folders`` by their names in the collection (``headwater.document.in_collection``)."""
        self._roots = {source: os.fsencode(os.path.realpath(folder)) for source, folder in folders.items()}
        self._most_bytes = most_bytes

    def sees(self, path: str) -> bool:
        """Whether the path is one of these folders'."""
        return self._place(path) is not None

    def modified(self, path: str) -> str | None:
        """When the file was changed, as the index notes it; None if it is not there."""
        found = self._file(path)
        return None if found is None else rfc3339(found[1].st_mtime_ns)

    def text(self, path: str) -> str | None:
        """The characters of a text file, as the worker reads them; None if there is no such file any more, or it is no
        text. Raises OSError if that cannot be seen now."""
        found = self._file(path)
        if found is None and not self._is_here(path):
            raise FileNotFoundError(f"the folder of {path} is not there")
        if found is None or not stat.S_ISREG(found[1].st_mode) or found[1].st_size > self._most_bytes:
            return None
        try:
            with open(found[0], "rb") as file:
                return decode(file.read()).text
        except (FileNotFoundError, Undecodable):
            return None

    def is_gone(self, path: str) -> bool:
        """Whether the folder is there and the file is not."""
        return self._file(path) is None and self._is_here(path)

    def _place(self, path: str) -> tuple[bytes, str] | None:
        """The folder of a path, and the path in it."""
        if "" in self._roots:
            return self._roots[""], path
        source, _, inner = path.partition("/")
        root = self._roots.get(source)
        return None if root is None else (root, inner)

    def _is_here(self, path: str) -> bool:
        place = self._place(path)
        return place is not None and os.path.isdir(place[0])

    def _file(self, path: str) -> tuple[bytes, os.stat_result] | None:
        """By the path itself, or by the form in which a name that is not UTF-8 is shown; never out of the folder."""
        found = self._place(path)
        if found is None:
            return None
        root, inner = found
        for name in dict.fromkeys((inner.encode("utf-8", "surrogateescape"), unquote_to_bytes(inner))):
            try:
                place = os.path.realpath(os.path.join(root, name))
                if os.path.commonpath((place, root)) == root:
                    return place, os.stat(place)
            except (OSError, ValueError):
                continue
        return None
