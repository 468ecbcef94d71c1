"""The ZIP container of Office documents: its parts, how they refer to each other, and limits on both. Pure: no I/O."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.parsers import expat

__all__ = ["XML_ERRORS", "Broken", "Item", "Package", "Relation", "TooLarge", "items", "local", "xml_parser"]

#: Bytes that one part may unpack to, and all parts that are read together.
MAX_PART_BYTES = 64 << 20
MAX_PACKAGE_BYTES = 256 << 20
#: Bytes of a part that lists relations or properties, and relations of one part that are followed.
MAX_LIST_BYTES = 16 << 20
MAX_RELATIONS = 100_000
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


#: What parsing raises for a damaged part; the latter two: an encoding nobody knows, an entity.
XML_ERRORS = (expat.ExpatError, LookupError, ValueError)


def xml_parser() -> expat.XMLParserType:
    """A parser that stops at entities of a document's own, which Office documents have not: they multiply."""

    def refuse(*declared: object) -> None:
        raise ValueError("an entity")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.EntityDeclHandler = refuse
    return parser


@dataclass(slots=True)
class Item:
    """A child of the root of a part that is a list, and all words in it by the name of the child they are in."""

    name: str
    attributes: dict[str, str]
    words: list[tuple[str, str]] = field(default_factory=list)


def items(source: bytes) -> list[Item]:
    """The children of the root up to a damaged place. No tree is built: one that is deep enough crashes
    the interpreter."""
    found: list[Item] = []
    names: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        names.append(local(name))
        if len(names) == 2:
            found.append(Item(names[1], attributes))

    def end(name: str) -> None:
        names.pop()

    def characters(words: str) -> None:
        if len(names) > 1:
            found[-1].words.append((names[2] if len(names) > 2 else "", words))

    parser = xml_parser()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    with suppress(*XML_ERRORS):
        parser.Parse(source, True)
    return found


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
            listed = items(self.read(posixpath.join(folder, "_rels", base + ".rels"), MAX_LIST_BYTES))
        except Broken:
            return []
        return [_relation(item.attributes, folder) for item in listed[:MAX_RELATIONS]]


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _relation(attributes: dict[str, str], folder: str) -> Relation:
    external = attributes.get("TargetMode", "").lower() == "external"
    target = attributes.get("Target", "")
    if not external:
        target = _key(posixpath.normpath(posixpath.join("/", folder, unquote(target).replace("\\", "/"))))
    return Relation(attributes.get("Id", ""), attributes.get("Type", "").rpartition("/")[2], target, external)
