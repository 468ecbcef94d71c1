"""XML as people read it: documents become Markdown, data keeps its own characters."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass

from worker import vocabulary
from worker.extracted import Extracted, Input, flat, markdown_title, one_line
from worker.markup import Tag, attributes, tokens
from worker.page import Page
from worker.webpage import read_markup
from worker.xmlshape import Shape, measured

__all__ = ["read_xml"]

#: A leaf of a vocabulary without paragraphs is shown with its name up to so many characters.
LABELLED_CHARS = 100
#: Empty cells that a cell may leave before it in its row.
MAX_GAP = 256

_HTML = re.compile(r"</[a-z][a-z0-9]*\s*>|<(?:br|img|p|hr)\b", re.I)
#: Attributes with words for readers.
_TOLD = ("alt", "title", "label", "caption", "summary")
#: Leaves that are fields of the document, the first of each.
_FIELDS = {
    "creator": "author",
    "initial-creator": "author",
    "author": "author",
    "created": "created",
    "creation-date": "created",
    "date": "created",
    "lastsaved": "modified",
    "modified": "modified",
    "subject": "subject",
    "keywords": "keywords",
    "description": "description",
    "language": "language",
    "lang": "language",
}
#: Properties that people search for, beside custom ones.
_SEARCHED = ("subject", "keywords", "description", "category", "company", "manager", "keyword")
#: Codes in the header of a sheet: fonts, sizes, positions, page numbers.
_SHEET_CODE = re.compile(r"&(?:\"[^\"]{0,100}\"|\d{1,3}|[A-Za-z])")
#: Parts of an Office package without words of the document.
_UNREAD_PART = re.compile(
    r"styles|theme|settings|fonttable|numbering|slidelayout|slidemaster|notesmaster|handoutmaster|props|glossary|\.rels|app\.xml",
    re.I,
)
_CAMEL = re.compile(r"(?<=[a-z\d])(?=[A-Z])")


def read_xml(found: Input) -> Extracted:
    text = found.data.decode("utf-8", "replace")
    shape = measured(text)
    if not shape.is_document():
        return Extracted("xml", text)
    document = _Document(shape)
    for token in tokens(text):
        document.read(token)
    content, pages = document.close()
    if not content.strip():
        return Extracted("xml", text)  # all that it has are attributes
    own = None if shape.root == "workbook" else markdown_title(content)  # "Sheet1" is no title
    title = one_line(document.title) or one_line(own)
    return Extracted("xmldoc", content, 0, title, flat(document.metadata), pages, own_lines=False)


@dataclass(slots=True)
class _Open:
    """An element that has not ended yet."""

    name: str
    #: what the page is told at its end; "" for none
    tag: str
    #: whether text below it goes on in its line: "p" in a paragraph, "h" in a heading, else ""
    flow: str
    #: whether it has a heading of its own
    headed: bool = False


class _Document:
    """Writes a page from the tags and text of a document."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        #: whether names of elements say nothing that the reader of a document misses
        self._is_structured = shape.root != "xbrl" and (shape.root in vocabulary.DOCUMENTS or shape.structured)
        self._page = Page()
        self._open: list[_Open] = []
        self._names: Counter[str] = Counter()  # how many of each are open
        self._headed = 0  # how many of the open ones have a heading
        self._skipping = 0  # how many are open within a part that nobody reads
        self._leaf: list[str] | None = None  # text of the element that was opened last, while it has no children
        self._gap = 0  # cells of the open row so far
        self._properties: list[str] = []
        self._told: set[str] = set()  # words of attributes: "figure" once is enough
        self._label = ""  # the name of the element that was opened last, as it is written
        self.title: str | None = None
        self.metadata: dict[str, object] = {}

    def read(self, token: Tag | str) -> None:
        if isinstance(token, str):
            self._text(token)
        elif token.closing:
            if self._names[token.name]:
                while self._end() != token.name:
                    pass
        else:
            self._start(token)
            if token.empty:
                self._end()

    def close(self) -> tuple[str, tuple[int, ...]]:
        while self._open:
            self._end()
        self._page.close()
        for words in self._properties:
            self._block("p", words)
        return self._page.paged()

    def _text(self, text: str) -> None:
        here = self._open[-1] if self._open else _Open("", "", "")
        if self._skipping or (self._shape.root in vocabulary.OFFICE and not self._said_in_office(here.name)):
            return
        if self._leaf is not None:
            self._leaf.append(text)
        elif here.flow or text.strip():
            twice = here.flow == "h" and self._shape.root in vocabulary.WITH_HTML
            self._page.words(html.unescape(text) if twice else text)

    def _said_in_office(self, name: str) -> bool:
        return name in ("t", "deltext") or self._in_properties()

    def _in_properties(self) -> bool:
        return len(self._open) > 1 and self._open[-2].name in vocabulary.PROPERTIES

    def _start(self, tag: Tag) -> None:
        self._flush()
        root, flow = self._shape.root, self._open[-1].flow if self._open else ""
        found = attributes(tag) if tag.source else {}
        self._names[tag.name] += 1
        if self._skipping or vocabulary.skipped(root, tag.name) or _UNREAD_PART.search(self._part(tag.name, found)):
            self._skipping += 1
            self._open.append(_Open(tag.name, "", ""))
            if root == "workbook" and tag.name in ("header", "footer"):
                self._block("p", _SHEET_CODE.sub(" ", found.get("data", "")))
            return
        opened = self._opened(tag.name, flow, found)
        self._open.append(opened)
        self._attributes(tag.name, opened, found)
        self._label = tag.label
        self._leaf = [] if opened.tag == "div" or self._in_properties() else None

    def _part(self, name: str, found: dict[str, str]) -> str:
        return found.get("name", "") if name == "part" and self._shape.root == "package" else ""

    def _opened(self, name: str, flow: str, found: dict[str, str]) -> _Open:
        """Tell the page of an element that begins, in the terms of HTML."""
        role = vocabulary.role(self._shape.root, name)
        if role == "br":
            self._page.tag("br")
            return _Open(name, "", flow)
        if role == "h" and not flow:
            role = "p" if self._open and self._open[-1].name in vocabulary.CAPTIONED else self._heading(name, found)
        if role in ("table", "ul", "pre", "tr", "td", "li") and flow != "h":
            return self._structure(name, role, found)
        if role and flow:
            inline = found.get("type", "") in ("Word.Insertion", "Word.Deletion")
            self._page.words("" if inline else " ")
            return _Open(name, "" if inline else "space", flow)
        if role == "p" or role.startswith("h"):
            self._page.tag(role)
            return _Open(name, role, "p" if role == "p" else "h")
        if not flow and self._open and self._is_structured and self._shape.is_record(name):
            self._page.tag("p")
            return _Open(name, "p", "p")
        if self._shape.is_inline(name) or (flow and self._shape.root in vocabulary.OFFICE):
            return _Open(name, "", flow)
        if flow:
            self._page.words(" ")
            return _Open(name, "space", flow)
        self._page.tag("div")
        return _Open(name, "div", "")

    def _structure(self, name: str, role: str, found: dict[str, str]) -> _Open:
        if name == "outline":
            self._page.tag("ul")
        if role == "tr":
            self._gap = 0
        elif role == "td":
            self._gap += 1
            at = found.get("index", "")
            while at.isascii() and at.isdigit() and self._gap < min(int(at[:5]), MAX_GAP):
                self._page.tag("td")
                self._page.tag("td", True)
                self._gap += 1
        self._page.tag(role)
        return _Open(name, role, "")

    def _heading(self, name: str, found: dict[str, str]) -> str:
        """The heading tag by how many headings stand above it, or by the level that it gives."""
        if name in vocabulary.TITLES or (self._open and self._open[-1].name == "titlestmt"):
            above = 0
            self._have_heading(self._open[0] if self._open else None)
        else:
            owner = self._owner()
            above = self._headed - (owner is not None and owner.headed)
            self._have_heading(owner)
        level = found.get("outline-level") or found.get("lvl") or found.get("level") or ""
        if level.isascii() and level.isdigit() and self._open:
            above = int(level[:2]) - 1 + self._open[0].headed
        return f"h{max(1, min(above + 1, 6))}"

    def _owner(self) -> _Open | None:
        """The element that a heading heads: its parent, or the one around a block of particulars."""
        at = len(self._open) - 1
        while at > 0 and self._open[at].name.endswith(("info", "-group", "prolog", "titlepage")):
            at -= 1
        return self._open[at] if at >= 0 else None

    def _have_heading(self, owner: _Open | None) -> None:
        if owner is not None and not owner.headed:
            owner.headed = True
            self._headed += 1

    def _attributes(self, name: str, opened: _Open, found: dict[str, str]) -> None:
        style = re.match(r"heading\s?(\d)", found.get("val", ""), re.I) if name == "pstyle" else None
        if style:
            self._page.tag(f"h{max(1, min(int(style[1]), 6))}")
        if name == "worksheet":
            self._page.start_page()
            self._block("h2", found.get("name", ""))
        told = [found.get(attribute, "") for attribute in _TOLD]
        told += [found.get("string", "")] * (name == "textpath") + [found.get("text", "")] * (name == "outline")
        for words in dict.fromkeys(told):
            if not words.strip() or words in self._told:
                continue
            self._told.add(words)
            if opened.tag == "div":
                self._block("p", words)
            else:
                self._page.words(f" {words} ")

    def _block(self, tag: str, words: str) -> None:
        if words.strip():
            self._page.tag(tag)
            self._page.words(words)
            self._page.tag(tag, True)

    def _flush(self) -> None:
        """Write what stands before the first child of an element."""
        held, self._leaf = "".join(self._leaf or ()), None
        if held.strip():
            self._page.words(held)

    def _end(self) -> str:
        opened = self._open[-1]
        if self._leaf is not None and not self._skipping:
            self._end_leaf("".join(self._leaf))
        self._leaf = None
        self._open.pop()
        self._names[opened.name] -= 1
        self._headed -= opened.headed
        self._skipping = max(0, self._skipping - 1)
        if opened.name == "author" and opened.tag == "p" and not (self._names["item"] or self._names["entry"]):
            self.metadata.setdefault("author", one_line(self._page.line))
        if opened.tag == "space":
            self._page.words(" ")
        elif opened.tag:
            self._page.tag(opened.tag, True)
        if opened.name == "outline":
            self._page.tag("ul", True)
        return opened.name

    def _end_leaf(self, text: str) -> None:
        name, root = self._open[-1].name, self._shape.root
        words = one_line(text) or ""
        if words and name in _FIELDS and not (self._names["item"] or self._names["entry"]):
            self.metadata.setdefault(_FIELDS[name], words)
        if self._in_properties():
            self._property(name, words)
        elif root in vocabulary.WITH_HTML and _HTML.search(text):
            read_markup(self._page, text)
        elif root in vocabulary.WITH_HTML and root != "xbrl":
            self._page.words(html.unescape(text))
        else:
            labelled = words and len(words) <= LABELLED_CHARS and not self._is_structured
            self._page.words(f"{_CAMEL.sub(' ', self._label)}: {text}" if labelled else text)

    def _property(self, name: str, words: str) -> None:
        if name == "title":
            self.title = self.title or words
        elif words and (name in _SEARCHED or self._open[-2].name == "customdocumentproperties"):
            self._properties.append(f"{name}: {words}")
