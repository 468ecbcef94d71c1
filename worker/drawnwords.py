"""Paragraphs, alternative texts and links in one XML part of an Office document, in one pass. Pure: no I/O.

The names of elements mean the same in all vocabularies that such parts use, strict or not, so that one table
serves words, drawings, charts, diagrams, comments and sheet headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.package import XML_ERRORS, local, xml_parser

__all__ = ["Paragraph", "PartWords", "header_words"]

_SHEET_HEADERS = ("oddHeader", "oddFooter", "evenHeader", "evenFooter", "firstHeader", "firstFooter")
_CHART_LISTS = ("cat", "val", "xVal", "yVal", "bubbleSize", "tx", "lvl", "strDim", "numDim", "txData")
#: Elements that make a line of their own.
_PARAGRAPHS = frozenset(("p", "text", "textbox", "author", "Text", *_SHEET_HEADERS, *_CHART_LISTS))
#: Elements whose characters are words.
_TEXTS = frozenset(("t", "text", "textbox", "author", "v", "pt", "Text", *_SHEET_HEADERS))
#: Elements whose content is not for readers: deleted text, numbers of slides, and cells, which are read elsewhere.
_UNREAD = frozenset(("del", "moveFrom", "fld", "sheetData", "rPh"))
#: Elements that stand for characters.
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "ptab": "\t", "noBreakHyphen": "-"}
#: Attributes that are words: alternative texts of pictures, words drawn as art.
_SPOKEN = {
    "docPr": ("title", "descr"),
    "cNvPr": ("title", "descr"),
    "imagedata": ("title",),
    "shape": ("alt",),
    "rect": ("alt",),
    "textpath": ("string",),
}
#: Elements of VML that may be links.
_LINKING = frozenset(
    ("shape", "rect", "roundrect", "oval", "line", "polyline", "arc", "curve", "image", "group", "imagedata")
)
#: Fields that fetch something from the address that they name in quotes.
_FETCHING = re.compile(r"\s*(?:HYPERLINK|INCLUDEPICTURE|INCLUDETEXT|INCLUDE|IMPORT|LINK|DDE|DDEAUTO|RD)\b", re.I)
_QUOTED = re.compile(r'"([^"]{1,4000})"')
#: Codes in the header of a sheet: places, fonts, sizes, colours, page numbers.
_PLACE = re.compile("&[LCR]")
_CODE = re.compile(r'&(?:"[^"]*"|\d+ ?|K(?:[0-9A-Fa-f]{6}|\d\d[+-]\d{3})|[A-Za-z])')
#: Characters that one part may give.
MAX_CHARS = 20_000_000
#: Elements within each other; documents of people have some dozens.
MAX_DEPTH = 2_000


@dataclass(slots=True)
class Paragraph:
    """Words of one line, and the pieces in which the part has them."""

    text: str
    pieces: list[str] = field(default_factory=list)
    author: str = ""
    boxed: bool = False


@dataclass(slots=True)
class _Open:
    """A paragraph that has begun."""

    name: str
    pieces: list[str] = field(default_factory=list)
    reading: list[str] = field(default_factory=list)  # how the characters above it are pronounced


class PartWords:
    """Feed it the part; it keeps what it found until the part breaks."""

    def __init__(self, people: dict[str, str], prompts: bool = True) -> None:
        self.paragraphs: list[Paragraph] = []
        self.spoken: list[str] = []
        self.links: list[str] = []
        #: Names and relations of the slides, sheets or pages that the part lists, in order.
        self.listed: list[tuple[str, str]] = []
        self.people = people
        self._prompts = prompts  # False: what stands in a placeholder is only a prompt
        self._authors: list[str] = []
        self._author = ""
        self._open: list[_Open] = []
        self._names: list[str] = []
        self._muted = 0  # depth of the element that is not read, 0 when all is
        self._texts = 0
        self._boxes = 0
        self._fields: list[str] = []
        self._chosen: list[int] = []
        self._chars = 0

    def read(self, steps: Iterable[bytes]) -> bool:
        """False when the part could be read only up to some place."""
        parser = xml_parser()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            for step in steps:
                parser.Parse(step, False)
                if self._chars > MAX_CHARS:
                    return False
            parser.Parse(b"", True)
        except XML_ERRORS:
            return False
        finally:
            while self._names:
                self._end(self._names[-1])
            self._end_field()
        return True

    def _start(self, full: str, attributes: dict[str, str]) -> None:
        name = local(full)
        self._names.append(name)
        if len(self._names) > MAX_DEPTH:
            raise ValueError("too deep")
        if self._muted:
            return
        if self._is_unread(name):
            self._muted = len(self._names)
            return
        if name in _PARAGRAPHS:
            self._open.append(_Open(name))
        self._texts += name in _TEXTS
        self._boxes += name in ("txbxContent", "textbox")
        if attributes:
            self._attributes(name, attributes)
        if name in _SIGNS and self._open and self._names[-2] not in ("tabs", "tabLst"):
            self._add(_SIGNS[name])

    def _is_unread(self, name: str) -> bool:
        """Whether to skip it, be it always or here."""
        if name == "AlternateContent":
            self._chosen.append(self._found())
        elif name == "Fallback" and self._chosen:
            return self._found() > self._chosen[-1]
        elif name == "ph" and not self._prompts:
            self._mute_shape()
            return False
        return name in _UNREAD

    def _found(self) -> int:
        return len(self.paragraphs) + len(self.spoken) + sum(len(each.pieces) for each in self._open)

    def _mute_shape(self) -> None:
        for depth in range(len(self._names), 0, -1):
            if self._names[depth - 1] in ("sp", "pic", "graphicFrame"):
                self._muted = depth
                return

    def _attributes(self, name: str, attributes: dict[str, str]) -> None:
        for key in _SPOKEN.get(name, ()):
            self.spoken += [value for full, value in attributes.items() if local(full) == key and value.strip()]
        if name in _LINKING:
            self.links += [value for full, value in attributes.items() if local(full) in ("href", "src")]
        if name in ("sheet", "sldId", "Rel"):
            self.listed.append((attributes.get("name", ""), _relation_id(attributes)))
        elif name in ("comment", "cm", "reply", "threadedComment"):
            self._author = self._author_of({local(key): value for key, value in attributes.items()})
        elif name in ("cmAuthor", "author", "person") and "id" in attributes:
            self.people[attributes["id"]] = attributes.get("name") or attributes.get("displayName", "")
        elif name == "fldSimple":
            self._fields = [value for full, value in attributes.items() if local(full) == "instr"]
            self._end_field()
        elif name == "fldChar":
            self._end_field()

    def _author_of(self, attributes: dict[str, str]) -> str:
        number = attributes.get("authorId") or attributes.get("personId", "")
        if self._authors and number.isascii() and number.isdigit() and int(number[:9]) < len(self._authors):
            return self._authors[int(number[:9])]
        return attributes.get("author") or self.people.get(number, "")

    def _characters(self, words: str) -> None:
        if self._muted:
            return
        if self._names[-1] == "instrText":
            self._fields.append(words)
        elif self._texts and self._open:
            self._add(words)

    def _add(self, words: str) -> None:
        self._chars += len(words)
        last = self._open[-1]
        (last.reading if "rt" in self._names[-4:] else last.pieces).append(words)

    def _end(self, full: str) -> None:
        name = self._names.pop()
        if self._muted:
            if self._muted == len(self._names) + 1:
                self._muted = 0
            return
        self._texts -= name in _TEXTS
        if name in ("v", "pt") and self._open and self._open[-1].pieces[-1:] not in ([], ["\t"]):
            self._add("\t")
        elif name == "ruby" and self._open and self._open[-1].reading:
            self._open[-1].pieces.append(f" ({''.join(self._open[-1].reading)})")
            self._open[-1].reading.clear()
        elif name == "AlternateContent" and self._chosen:
            self._chosen.pop()
        if name in _PARAGRAPHS and self._open:
            self._end_paragraph(self._open.pop())
        self._boxes -= name in ("txbxContent", "textbox")

    def _end_paragraph(self, ended: _Open) -> None:
        text = "".join(ended.pieces)
        if ended.name in _SHEET_HEADERS:
            text = header_words(text)
        text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
        if ended.name == "author":
            self._authors.append(text)
        elif text and not self._author.startswith("tc="):  # such a comment only repeats a threaded one
            self.paragraphs.append(Paragraph(text, ended.pieces, self._author, self._boxes > 0))
            self._author = ""

    def _end_field(self) -> None:
        """The addresses that a field names. It is no text itself."""
        code = "".join(self._fields)[:10_000]
        self._fields = []
        if _FETCHING.match(code):
            self.links += [address for address in _QUOTED.findall(code) if re.search(r"[/\\:]", address)]


def _relation_id(attributes: dict[str, str]) -> str:
    return next((value for key, value in attributes.items() if key.endswith(":id")), "")


def header_words(header: str) -> str:
    """The words of the header of a sheet, left, middle and right."""
    parts = (_CODE.sub("", part).strip() for part in _PLACE.split(header.replace("&&", "\0")))
    return " ".join(part for part in parts if part).replace("\0", "&")
