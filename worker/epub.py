"""EPUB books (EPUB 3.3, and 2): the chapters in reading order, each a page, as web pages are read.

Own code, since kreuzberg 4.10 breaks off at books whose language is not written in ASCII.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

from headwater.decode import Undecodable, decode
from worker.extracted import Extracted, Input, Refused, flat, markdown_title, one_line
from worker.package import MAX_LIST_BYTES, XML_ERRORS, Broken, Package, TooLarge, local, xml_parser
from worker.webpage import read_page

__all__ = ["read_epub"]

_CONTAINER = "META-INF/container.xml"
_PAGES = frozenset(("application/xhtml+xml", "text/html", "application/xml", "text/x-oeb1-document"))
#: encryption that hides nothing but fonts (EPUB 3.3, 4.4)
_FONTS_ONLY = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
#: fields of Dublin Core that are kept, with our name of each
_FIELDS = {
    "creator": "author", "date": "created", "language": "language", "description": "description",
    "subject": "keywords", "publisher": "publisher", "identifier": "identifier",
}  # fmt: skip


@dataclass(slots=True)
class _Book:
    """What the package document says."""

    #: id of an item -> its address and media type
    items: dict[str, tuple[str, str]] = field(default_factory=dict)
    spine: list[str] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)

    def pages(self) -> list[str]:
        """Addresses in reading order; of a book without a usable order, in that of its list."""
        ordered = [self.items[name] for name in self.spine if name in self.items] or list(self.items.values())
        return list(dict.fromkeys(address for address, kind in ordered if kind in _PAGES))


def read_epub(found: Input) -> Extracted:
    """The book with a heading or title for each chapter where it has one, and its metadata."""
    try:
        package = Package(found.data)
        place, book = _book(package)
    except TooLarge as error:
        raise Refused("too large", "an epub document beyond the limits of its reader") from error
    except Broken as error:
        raise Refused("damaged", "a damaged epub document") from error
    addresses = [posixpath.normpath(posixpath.join(posixpath.dirname(place), address)) for address in book.pages()]
    if _is_protected(package, addresses):
        raise Refused("encrypted", "protected against copying (DRM)")
    chapters, broken = _chapters(package, addresses)
    text, pages = "", list[int]()
    for chapter in chapters:
        pages.append(len(text))
        text += chapter.strip("\n") + "\n\n"
    own = " ".join(book.fields.get("title", [])[:1])
    metadata = {ours: _value(book.fields.get(theirs, [])) for theirs, ours in _FIELDS.items()}
    partial = f"{broken} chapter{'s'[: broken > 1]} could not be read" if broken else None
    title = one_line(own) or one_line(markdown_title(text))
    pages = [min(start, len(text.rstrip())) for start in pages]
    return Extracted(found.kind, text.rstrip() + "\n", 0, title, flat(metadata), tuple(pages), False, partial)


def _value(values: list[str]) -> object:
    return values[0] if len(values) == 1 else values


def _book(package: Package) -> tuple[str, _Book]:
    """Where the package document is and what it says. Raises Broken."""
    place = ""

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal place
        if local(name) == "rootfile" and not place:
            place = attributes.get("full-path", "")

    parser = xml_parser()
    parser.StartElementHandler = start
    with suppress(*XML_ERRORS):
        parser.Parse(package.read(_CONTAINER, MAX_LIST_BYTES), True)
    place = place or next((name for name in package.names() if name.endswith(".opf")), "")
    return place, _read_package(package.read(place, MAX_LIST_BYTES))


def _read_package(source: bytes) -> _Book:
    """Up to a damaged place."""
    book = _Book()
    words: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        words.clear()
        if local(name) == "item":
            address = unquote(attributes.get("href", ""))
            book.items.setdefault(attributes.get("id", address), (address, attributes.get("media-type", "")))
        elif local(name) == "itemref":
            book.spine.append(attributes.get("idref", ""))

    def end(name: str) -> None:
        value = " ".join("".join(words).split())
        if value and name.lower().startswith("dc:"):
            book.fields.setdefault(local(name).lower(), []).append(value)
        words.clear()

    parser = xml_parser()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = words.append
    with suppress(*XML_ERRORS):
        parser.Parse(source, True)
    return book


def _is_protected(package: Package, addresses: list[str]) -> bool:
    """Whether the chapters themselves are encrypted."""
    try:
        source = package.read("META-INF/encryption.xml", MAX_LIST_BYTES)
    except Broken:
        return False
    hidden: set[str] = set()
    method = ""

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal method
        if local(name) == "EncryptionMethod":
            method = attributes.get("Algorithm", "")
        elif local(name) == "CipherReference" and method not in _FONTS_ONLY:
            hidden.add(unquote(attributes.get("URI", "")))

    parser = xml_parser()
    parser.StartElementHandler = start
    with suppress(*XML_ERRORS):
        parser.Parse(source, True)
    return bool(addresses) and hidden.issuperset(addresses)


def _chapters(package: Package, addresses: list[str]) -> tuple[list[str], int]:
    """The text of each chapter, empty for one that cannot be read, and how many these are."""
    chapters, broken = [], 0
    for address in addresses:
        try:
            page = read_page(decode(b"".join(package.steps(address))).text)
        except (Broken, Undecodable):
            chapters.append("")
            broken += 1
            continue
        chapters.append(page.text)
    return chapters, broken
