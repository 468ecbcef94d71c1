"""EPUB books: the documents of the spine in their order, each a page. Own code over the reader of web pages."""

from __future__ import annotations

import io
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from urllib.parse import unquote

from headwater.decode import Undecodable, decode
from worker.extracted import Extracted, Input, Refused, flat, markdown_title, one_line
from worker.webpage import read_page
from worker.writing import joined, unread
from worker.xmlevents import read_xml

__all__ = ["read_epub"]

#: All documents of a book together are read up to this many bytes.
MAX_BYTES = 256 << 20
#: What the container and the package file are read up to.
_MAX_PACKAGE_BYTES = 16 << 20
_FIELDS = {
    "creator": "author",
    "date": "created",
    "subject": "keywords",
    "description": "description",
    "language": "language",
}
_FONTS = re.compile(rb'Algorithm="http://(?:www\.idpf\.org/2008/embedding|ns\.adobe\.com/pdf/enc#RC)"')
_ALGORITHMS = re.compile(rb"<(?:\w+:)?EncryptionMethod\b")
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, KeyError)


def read_epub(found: Input) -> Extracted:
    try:
        with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
            if _is_encrypted(archive):
                raise Refused("encrypted", "protected by digital rights management")
            return _book(archive)
    except _BROKEN as error:
        raise Refused("damaged", "a damaged epub document") from error


def _is_encrypted(archive: zipfile.ZipFile) -> bool:
    """Whether more than the fonts are; those are for screens only."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return False
    listed = _read(archive, "META-INF/encryption.xml", _MAX_PACKAGE_BYTES)
    return len(_ALGORITHMS.findall(listed)) > len(_FONTS.findall(listed))


def _book(archive: zipfile.ZipFile) -> Extracted:
    container, package = _Container(), _Package()
    read_xml(_read(archive, "META-INF/container.xml", _MAX_PACKAGE_BYTES), container, _local)
    whole = read_xml(_read(archive, container.path, _MAX_PACKAGE_BYTES), package, _local)
    texts, broken, left = list[str](), int(not whole), MAX_BYTES
    for path in package.documents(posixpath.dirname(container.path)):
        try:
            data = _read(archive, path, left)
            left -= len(data)
            texts.append(read_page(decode(data).text).text.strip() if data.strip() else "")
        except (*_BROKEN, Undecodable):
            broken += 1
    texts = [text for text in texts if text]
    if broken and not texts:
        raise Refused("damaged", "a damaged epub document")
    text, pages = joined(texts, range(len(texts)))
    partial = unread(broken)
    title = one_line(next(iter(package.fields.get("title", ())), None)) or one_line(markdown_title(text))
    return Extracted("epub", text, 0, title, package.metadata(), pages, False, partial)


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as file:
        return file.read(max(limit, 0))


def _local(namespace: str, local: str) -> str:
    return local


class _Container:
    """Where the package file is."""

    def __init__(self) -> None:
        self.path = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "rootfile" and not self.path:
            self.path = attributes.get("full-path", "")

    def end(self, name: str) -> None:
        pass

    def words(self, text: str) -> None:
        pass


class _Package:
    """The metadata of a book, its files and the order in which they are read."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self._paths: dict[str, str] = {}
        self._spine: list[str] = []
        self._words: list[str] = []
        self._in_metadata = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._words.clear()
        if name == "metadata":
            self._in_metadata = True
        elif name == "item":
            self._paths[attributes.get("id", "")] = attributes.get("href", "")
        elif name == "itemref":
            self._spine.append(attributes.get("idref", ""))

    def end(self, name: str) -> None:
        value = " ".join("".join(self._words).split())
        self._words.clear()
        if name == "metadata":
            self._in_metadata = False
        elif self._in_metadata and value and (name == "title" or name in _FIELDS):
            self.fields.setdefault(name, []).append(value)

    def words(self, text: str) -> None:
        self._words.append(text)

    def documents(self, folder: str) -> list[str]:
        """The paths of the spine, each once."""
        hrefs = (self._paths[item] for item in dict.fromkeys(self._spine) if item in self._paths)
        return [posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0]))) for href in hrefs]

    def metadata(self) -> dict[str, object]:
        named: dict[str, object] = {ours: self.fields.get(theirs, [None])[0] for theirs, ours in _FIELDS.items()}
        named["author"] = ", ".join(self.fields.get("creator", ()))
        named["keywords"] = self.fields.get("subject")
        return flat(named)
