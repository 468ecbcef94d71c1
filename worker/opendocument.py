"""OpenDocument (text, spreadsheet, presentation, drawing, formula; packed or flat) and OpenOffice 1 as Markdown.

Own code, since kreuzberg 4.10 reads text and spreadsheets only, without headers, comments and frames.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from worker.extracted import Extracted, Input, Member, Refused, flat, markdown_title, one_line
from worker.odfbody import Body, prefixed
from worker.odfcrypt import Manifest
from worker.writing import joined, unread
from worker.xmlevents import Handler, read_xml

__all__ = ["read_flat", "read_package"]

#: A part is read up to this many bytes.
MAX_PART_BYTES = 400 << 20
#: Objects within objects deeper than this, and beyond this many, are left out.
MAX_DEPTH = 3
MAX_OBJECTS = 1000
_PIECE_BYTES = 1 << 16
#: Words in a header or on a master slide that stand for something else.
_PLACEHOLDER = re.compile(r"<[^<>]{0,40}>|\?\?\?|[-\s/]*")
_MACRO = re.compile(r"Basic/[^/]+/(?!script-l|dialog-l)[^/]+\.xml")
#: What damaged ZIP members raise.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OSError, ValueError,
    OverflowError,
)  # fmt: skip


def read_flat(found: Input) -> Extracted:
    """A document that is one XML file; `found.data` is UTF-8, whatever it says itself."""
    body, properties = Body(), _Properties()
    whole = read_xml(found.data, body, prefixed, "utf-8")
    read_xml(found.data, properties, prefixed, "utf-8")
    return _document(found.kind, body, properties, 0 if whole else 1)


def read_package(found: Input) -> Extracted:
    try:
        package = _Package(found)
    except _BROKEN as error:
        raise Refused("damaged", "a damaged ZIP container") from error
    body = Body(lambda path: package.object_blocks(path, 1))
    package.read("content.xml", body)
    styles, properties = Body(), _Properties()
    package.read("styles.xml", styles)
    package.read("meta.xml", properties)
    body.furniture += [*styles.blocks, *styles.furniture]
    for name in package.macros():
        package.read(name, body)
    return _document(found.kind, body, properties, package.broken, package.members(body.attached))


class _Package:
    """The ZIP container and what could not be read of it."""

    def __init__(self, found: Input) -> None:
        self.broken = 0
        self._archive = zipfile.ZipFile(io.BytesIO(found.data))
        self._names = frozenset(self._archive.namelist())
        self._passwords = found.passwords
        self._objects = 0
        manifest = "META-INF/manifest.xml"
        self._manifest = Manifest(self._bytes(manifest, 8 << 20) if manifest in self._names else b"")
        if self._manifest.any_encrypted() and ("content.xml" not in self._names or not self._passwords):
            raise Refused("encrypted", "protected by a password")

    def read(self, name: str, handler: Handler) -> None:
        """Tell `handler` what a part has; a missing part has nothing."""
        if name not in self._names:
            return
        try:
            self.broken += not read_xml(self._pieces(name), handler, prefixed)
        except _BROKEN:
            self.broken += 1

    def macros(self) -> list[str]:
        return [name for name in self._archive.namelist() if _MACRO.fullmatch(name)][:MAX_OBJECTS]

    def object_blocks(self, path: str, depth: int) -> list[str]:
        """The text of an embedded chart, formula, sheet ..."""
        self._objects += 1
        if depth > MAX_DEPTH or self._objects > MAX_OBJECTS:
            return []
        inner = Body(lambda deeper: self.object_blocks(posixpath.join(path, deeper), depth + 1))
        self.read(posixpath.normpath(posixpath.join(path, "content.xml")), inner)
        return inner.blocks

    def members(self, paths: list[str]) -> Iterator[Member]:
        for name in dict.fromkeys(posixpath.normpath(path) for path in paths):
            if name in self._names:
                yield Member(name, lambda limit, name=name: self._member(name, limit))  # type: ignore[misc]

    def _member(self, name: str, limit: int) -> bytes:
        try:
            return b"".join(self._pieces(name, limit))[:limit]
        except _BROKEN as error:
            raise Refused("damaged", "a damaged ZIP member") from error

    def _pieces(self, name: str, limit: int = MAX_PART_BYTES) -> Iterator[bytes]:
        if self._manifest.is_encrypted(name):
            plain = self._manifest.decrypted(name, self._bytes(name, limit), self._passwords)
            yield from islice(plain, limit // _PIECE_BYTES + 1)
            return
        with self._archive.open(name) as file:
            while limit > 0 and (piece := file.read(_PIECE_BYTES)):
                limit -= len(piece)
                yield piece

    def _bytes(self, name: str, limit: int) -> bytes:
        with self._archive.open(name) as file:
            return file.read(limit)


def _document(kind: str, body: Body, properties: _Properties, broken: int, members: Iterable[Member] = ()) -> Extracted:
    blocks = list(body.blocks)
    if broken and not blocks:
        raise Refused("damaged", f"a damaged {kind} document")
    title = one_line(properties.fields.get("title")) or one_line(markdown_title("\n\n".join(blocks[:50])))
    furniture = [block for block in dict.fromkeys(body.furniture) if not _PLACEHOLDER.fullmatch(block)]
    blocks += ["## Headers and footers", *furniture] if furniture else []
    blocks += ["## Macros", *(f"```\n{macro.strip()}\n```" for macro in body.macros)] if body.macros else []
    lines = properties.lines()
    blocks += ["## Properties", *lines] if lines else []
    text, pages = joined(blocks, body.pages)
    partial = unread(broken)
    return Extracted(kind, text, 0, title, properties.metadata(), pages, False, partial, members=members)


_FIELDS = {
    "dc:title": "title",
    "dc:subject": "subject",
    "dc:description": "description",
    "dc:language": "language",
    "dc:creator": "editor",
    "dc:date": "modified",
    "meta:initial-creator": "author",
    "meta:creation-date": "created",
    "meta:keyword": "keywords",
    "meta:user-defined": "",
}


class _Properties:
    """The fields of meta.xml, those that users define included."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._keywords: list[str] = []
        self._open: list[str] = []
        self._name = ""
        self._words: list[str] = []
        self._pages = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(name)
        self._name = attributes.get("meta:name", "")
        self._words.clear()
        if name == "meta:document-statistic":
            self._pages = attributes.get("meta:page-count", "")

    def end(self, name: str) -> None:
        self._open.pop()
        value = " ".join("".join(self._words).split())
        self._words.clear()
        if not value or name not in _FIELDS or "office:meta" not in self._open[:3]:
            return
        if name == "meta:keyword":
            self._keywords.append(value)
        elif name == "meta:user-defined":
            self._own.setdefault(self._name, value)
        else:
            self.fields.setdefault(_FIELDS[name], value)

    def words(self, text: str) -> None:
        self._words.append(text)

    def metadata(self) -> dict[str, object]:
        named: dict[str, object] = {key: value for key, value in self.fields.items() if key not in ("title", "editor")}
        named["author"] = self.fields.get("author") or self.fields.get("editor")
        named["keywords"] = self._keywords
        named["pages"] = int(self._pages) if self._pages.isdecimal() and len(self._pages) < 10 else None
        return flat(named)

    def lines(self) -> list[str]:
        """What a person would search for, as text."""
        named = {key.title(): self.fields.get(key, "") for key in ("subject", "description")}
        named["Keywords"] = ", ".join(self._keywords)
        return [f"- {key}: {value}" for key, value in (named | self._own).items() if value]
