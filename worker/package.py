"""The ZIP container of Office documents: its parts, how they refer to each other, and limits on both. Pure: no I/O."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree.ElementTree import ParseError, fromstring

__all__ = ["Broken", "Package", "Relation", "TooLarge", "local"]

#: Bytes that one part may unpack to, and all parts that are read together.
MAX_PART_BYTES = 64 << 20
MAX_PACKAGE_BYTES = 256 << 20
#: Bytes of a part that lists relations or properties, and relations of one part that are followed.
MAX_LIST_BYTES = 4 << 20
MAX_RELATIONS = 10_000
_STEP_BYTES = 1 << 16


class Broken(Exception):
    """A part that is missing, damaged or encrypted."""


class TooLarge(Broken):
    """A part that unpacks to more than is allowed."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What one part says about another: `type` is the last word of its address, `target` the name of a part
    or, when `external`, an address."""

    id: str
    type: str
    target: str
    external: bool


def local(name: str) -> str:
    """The name of an element or attribute without prefix or namespace."""
    return name.rpartition("}")[2].rpartition(":")[2]


class Package:
    """Parts by their names, of which case, slashes and a leading slash do not matter."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._parts = {_key(info.filename): info for info in self._zip.infolist()}
        except Exception as error:  # a hostile directory finds struct, unicode, value errors ...
            raise Broken("no ZIP directory") from error
        self._left = MAX_PACKAGE_BYTES

    def names(self) -> Iterator[str]:
        """All parts in the order of the container, in lower case."""
        return iter(self._parts)

    def full(self, name: str) -> str:
        """The name of a part as the container writes it, with the usual slashes."""
        info = self._parts.get(_key(name))
        return (info.filename if info else name).replace("\\", "/").lstrip("/")

    def size(self, name: str) -> int:
        """Bytes that the part says to have, 0 when there is none."""
        info = self._parts.get(_key(name))
        return info.file_size if info else 0

    def steps(self, name: str) -> Iterator[bytes]:
        """The part piece by piece, up to the limits."""
        left = min(MAX_PART_BYTES, self._left)
        try:
            with self._zip.open(self._parts[_key(name)]) as file:
                while step := file.read(_STEP_BYTES):
                    left, self._left = left - len(step), self._left - len(step)
                    if left < 0:
                        raise TooLarge("too large")
                    yield step
        except (Broken, MemoryError):
            raise
        except Exception as error:  # zlib, lzma, checksum, password: a hostile archive finds them all
            raise Broken(str(error)) from error

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The first bytes of a part, not counted against the limit of the package."""
        try:
            with self._zip.open(self._parts[_key(name)]) as file:
                return file.read(max(0, limit_bytes))
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise Broken(str(error)) from error

    def relations(self, name: str = "") -> list[Relation]:
        """What a part refers to; without a name, what the package does. Empty when that cannot be read."""
        folder, base = posixpath.split(name)
        try:
            source = self.read(posixpath.join(folder, "_rels", base + ".rels"), MAX_LIST_BYTES)
            listed = fromstring(source)  # noqa: S314 - expat bounds entities, the limit the rest
        except (Broken, ParseError, ValueError):
            return []
        return [_relation(item.attrib, folder) for item in list(listed)[:MAX_RELATIONS]]


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _relation(attributes: dict[str, str], folder: str) -> Relation:
    external = attributes.get("TargetMode", "").lower() == "external"
    target = attributes.get("Target", "")
    if not external:
        target = _key(posixpath.normpath(posixpath.join("/", folder, unquote(target).replace("\\", "/"))))
    return Relation(attributes.get("Id", ""), attributes.get("Type", "").rpartition("/")[2], target, external)
