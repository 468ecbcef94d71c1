"""XPS documents and Visio drawings: packages whose pages are drawn words. Pure: no I/O."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

from worker.drawnwords import PartWords
from worker.extracted import Extracted, Input, Refused, one_line
from worker.package import XML_ERRORS, Broken, Package, local, xml_parser
from worker.properties import properties
from worker.writing import unread

__all__ = ["read_visio", "read_xps"]

#: Pages and lists of pages that are read of one document.
MAX_PAGES = 10_000
#: Parts of the font size: a wider gap is a space; what a glyph is taken to measure where it does not say.
_SPACE_WIDTH, _GLYPH_WIDTH = 0.15, 0.5
#: Points by which glyphs of one line may differ in height.
_SAME_LINE = 2.0


def read_xps(found: Input) -> Extracted:
    package = _package(found)
    names = set(package.names())
    said = [target for target in _xps_pages(package) if target in names]
    pages = said or sorted((name for name in names if name.endswith(".fpage")), key=_natural)
    return _read(found.kind, package, pages[:MAX_PAGES], _xps_words)


def read_visio(found: Input) -> Extracted:
    package = _package(found)
    listing = "visio/pages/pages.xml"
    targets = {relation.id: relation.target for relation in package.relations(listing)}
    words = PartWords({})
    try:
        words.read(package.steps(listing))
    except Broken as error:
        raise Refused("damaged", "a damaged Visio drawing") from error
    pages = [targets[relation] for _, relation in words.listed[:MAX_PAGES] if relation in targets]
    return _read(found.kind, package, pages, _visio_words)


def _package(found: Input) -> Package:
    try:
        return Package(found.data)
    except Broken as error:
        raise Refused("damaged", f"a damaged {found.kind} document") from error


#: The words of a page, and whether they are all.
_Reader = Callable[[Package, str], tuple[str, bool]]


def _read(kind: str, package: Package, parts: list[str], reader: _Reader) -> Extracted:
    texts: list[str] = []
    starts, at, broken = [], 0, 0
    for part in parts:
        text, whole = reader(package, part)
        broken += not whole
        starts.append(at)
        if text:
            texts.append(text)
            at += len(text) + 2
    text = "\n\n".join(texts)
    named, custom = properties(package)
    title = one_line(str(named.pop("title", "")))
    metadata = {**custom, **named, "pages": len(parts)}
    partial = unread(broken, "page")
    return Extracted(kind, text, 0, title, metadata, tuple(min(s, len(text)) for s in starts), False, partial)


def _visio_words(package: Package, part: str) -> tuple[str, bool]:
    words = PartWords({})
    try:
        whole = words.read(package.steps(part))
    except Broken:
        whole = False
    return "\n\n".join(paragraph.text for paragraph in words.paragraphs), whole


# XPS ------------------------------------------------------------------------------------------------------


def _xps_pages(package: Package) -> Iterator[str]:
    """Pages in the order in which the lists of documents and of their pages have them."""
    roots = (relation.target for relation in package.relations() if relation.type == "fixedrepresentation")
    for root in roots:
        for document in _sources(package, root):
            yield from _sources(package, document)


def _sources(package: Package, part: str) -> list[str]:
    """The parts that a list refers to."""
    found: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if local(name) in ("DocumentReference", "PageContent") and len(found) < MAX_PAGES:
            target = posixpath.join("/", posixpath.dirname(part), attributes.get("Source", ""))
            found.append(posixpath.normpath(target).lstrip("/").lower())

    _parse(package, part, start)
    return found


def _parse(package: Package, part: str, start: Callable[[str, dict[str, str]], None]) -> bool:
    """False when the part could be read only up to some place."""
    parser = xml_parser()
    parser.StartElementHandler = start
    try:
        for step in package.steps(part):
            parser.Parse(step, False)
        parser.Parse(b"", True)
    except (Broken, *XML_ERRORS):
        return False
    return True


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d{0,9})(\D*)", name)]


def _xps_words(package: Package, part: str) -> tuple[str, bool]:
    page = _XpsPage()
    whole = _parse(package, part, page.start)
    return "\n".join(" ".join(line.split()) for line in "".join(page.words).splitlines()), whole


class _XpsPage:
    """Glyphs in the order of the page; a new height is a new line, a gap a space."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._x = self._y = 0.0

    def start(self, full: str, attributes: dict[str, str]) -> None:
        if local(full) != "Glyphs" or not attributes.get("UnicodeString"):
            return
        words = attributes["UnicodeString"].removeprefix("{}")
        size = _number(attributes.get("FontRenderingEmSize", "")) or 10.0
        x, y = _number(attributes.get("OriginX", "")), _number(attributes.get("OriginY", ""))
        if self.words and abs(y - self._y) > _SAME_LINE:
            self.words.append("\n")
        elif self.words and abs(x - self._x) > size * _SPACE_WIDTH:
            self.words.append(" ")
        self.words.append(words)
        self._x, self._y = x + _width(words, attributes.get("Indices", ""), size), y


def _width(words: str, indices: str, size: float) -> float:
    """Each glyph as "index,advance"; the advance, in hundredths of the font size, may be missing."""
    advances = [glyph.split(",")[1] if "," in glyph else "" for glyph in indices.split(";")] if indices else []
    advances += [""] * (len(words) - len(advances))
    return sum((_number(each) / 100 if each else _GLYPH_WIDTH) * size for each in advances)


def _number(source: str) -> float:
    return float(source) if re.fullmatch(r"-?\d{0,9}(?:\.\d{0,20})?", source) and re.search(r"\d", source) else 0.0
