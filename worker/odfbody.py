"""The words of one OpenDocument stream (content, styles or a flat document) as Markdown blocks. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Body", "prefixed"]

#: Elements of which nothing is for readers. Tracked changes hold what was deleted; the sources of an index, how it
#: is made; the class of a frame on a master slide tells what a writer is to type there.
_UNREAD = frozenset(
    (
        "text:tracked-changes", "table:tracked-changes", "text:table-of-content-source", "text:table-index-source",
        "text:illustration-index-source", "text:object-index-source", "text:user-index-source", "text:page-count",
        "text:alphabetical-index-source", "text:bibliography-source", "text:linenumbering-configuration",
        "text:notes-configuration", "text:page-number", "text:sheet-name", "number:text", "draw:layer-set",
        "office:settings", "office:font-face-decls", "office:event-listeners", "office:binary-data", "office:meta",
        "table:content-validations",
    )
)  # fmt: skip
_PROMPTS = frozenset(("title", "subtitle", "outline", "notes", "date-time", "page-number"))
#: A repeated cell or row is written out so many times, and no more: the rest would be empty or a fill to the border.
MAX_REPEATED = 100
#: Characters that the repeated cells and rows of one document may add.
MAX_REPEATED_CHARS = 1_000_000
#: Spaces that one text:s stands for, at most.
_MAX_SPACES = 100

_NAMESPACE = re.compile(
    r"(?:urn:oasis:names:tc:opendocument:xmlns:|http://openoffice\.org/2000/|http://openoffice\.org/2001/)(\w+?)"
    r"(?:-compatible)?(?::1\.0)?"
)
_SHORTER = {"drawing": "draw", "datastyle": "number"}
_OTHER_NAMESPACES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://www.w3.org/1999/xlink": "xlink",
    "http://www.w3.org/1998/Math/MathML": "math",
    "http://openoffice.org/2004/office": "ooo",
}
#: Names of OpenOffice 1 for what OpenDocument calls otherwise.
_OLD_NAMES = {
    "text:level": "text:outline-level",
    "text:ordered-list": "text:list",
    "text:unordered-list": "text:list",
    "text:footnote": "text:note",
    "text:endnote": "text:note",
    "text:footnote-citation": "text:note-citation",
    "text:endnote-citation": "text:note-citation",
    "text:footnote-body": "text:note-body",
    "text:endnote-body": "text:note-body",
    "table:value": "office:value",
    "table:date-value": "office:date-value",
    "table:time-value": "office:time-value",
    "table:string-value": "office:string-value",
    "table:sub-table": "table:table",
}
_VALUES = ("office:string-value", "office:date-value", "office:time-value", "office:boolean-value", "office:value")
#: Elements inside of which paragraphs are apart from those around; all shapes are, too.
_CONTAINERS = frozenset(
    (
        "table:table-cell", "table:covered-table-cell", "office:annotation", "text:note-body", "presentation:notes",
        "office:master-styles", "dc:creator", "svg:title", "svg:desc", "math:math", "ooo:source-code", "script:module",
        "presentation:header-decl", "presentation:footer-decl",
    )
)  # fmt: skip
_DECLARED = ("presentation:header-decl", "presentation:footer-decl")
_CELLS = ("table:table-cell", "table:covered-table-cell")
_CODE = ("ooo:source-code", "script:module")
#: Containers within each other beyond this many are not kept apart: each costs a walk over all blocks inside.
_MAX_CONTAINERS = 60
#: Containers that hold words without a paragraph.
_LINES = ("dc:creator", "svg:title", "svg:desc", "math:math", *_CODE, *_DECLARED)
#: What is drawn and no shape.
_INLINE_DRAWINGS = frozenset(("draw:page", "draw:a", "draw:layer-set", "draw:layer"))
_TARGET = re.compile(r"(?:https?|ftp|mailto|file):.{1,2000}$", re.I)


def prefixed(namespace: str, local: str) -> str:
    """The name as everybody writes it, `text:p`, also for OpenOffice 1."""
    known = _NAMESPACE.fullmatch(namespace)
    prefix = _SHORTER.get(known[1], known[1]) if known else _OTHER_NAMESPACES.get(namespace, "")
    name = f"{prefix}:{local}" if prefix else local
    return _OLD_NAMES.get(name, name)


@dataclass(slots=True)
class _Table:
    sheet: bool
    rows: int = 0
    repeated: int = 1
    cells: list[list[str]] | None = None


@dataclass(slots=True)
class _Flow:
    """What is open inside one container: the body, a cell, a frame, a note."""

    name: str
    attributes: Mapping[str, str]
    blocks: list[str] = field(default_factory=list)
    line: list[str] | None = None
    #: what the open line begins with: a heading mark, a bullet
    mark: str = ""
    #: blocks that the open line refers to, such as its notes
    late: list[str] = field(default_factory=list)
    #: for each open list item what its first paragraph begins with
    items: list[str] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)
    links: list[tuple[str, int]] = field(default_factory=list)
    label: str = ""

    def add(self, blocks: Iterable[str]) -> None:
        (self.blocks if self.line is None else self.late).extend(blocks)

    def end_line(self) -> None:
        if self.line is None:
            return
        text = "".join(self.line)
        if self.name not in _CODE:
            text = "\n".join(line.strip() for line in text.strip().split("\n"))
        if self.mark.startswith("#"):
            text = " ".join(text.split())
        if text:
            self.blocks.append(self.mark + text)
        self.blocks += self.late
        self.line, self.mark = None, ""
        self.late.clear()


class Body:
    """Collects the blocks of a stream. `objects` gives the blocks of an embedded object by its path."""

    def __init__(self, objects: Callable[[str], list[str]] | None = None) -> None:
        #: Indices into `blocks` where a page, slide or sheet starts.
        self.pages: list[int] = []
        #: Text of headers, footers and master slides.
        self.furniture: list[str] = []
        self.macros: list[str] = []
        #: Paths of embedded files that are not OpenDocument.
        self.attached: list[str] = []
        self._objects = objects
        self._open: list[str] = []
        self._unread = 0
        self._flows = [_Flow("", {})]
        self._parents: dict[str, str] = {}
        self._repeated_chars = MAX_REPEATED_CHARS

    @property
    def blocks(self) -> list[str]:
        while len(self._flows) > 1:  # a broken document ends anywhere
            self._leave()
        self._flow.end_line()
        return self._flow.blocks

    @property
    def _flow(self) -> _Flow:
        return self._flows[-1]

    # Events

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(name)
        if self._unread or name in _UNREAD or self._is_prompt(attributes):
            self._unread += 1
        elif name in ("text:p", "text:h"):
            self._paragraph(name, attributes)
        elif self._is_container(name):
            self._flows.append(_Flow(name, attributes, line=[] if name in _LINES else None))
            self._object(name, attributes)
        else:
            self._structure(name, attributes)

    def end(self, name: str) -> None:
        self._open.pop()
        if self._unread:
            self._unread -= 1
        elif name in ("text:p", "text:h"):
            self._flow.end_line()
        elif name == self._flow.name:
            self._leave()
        else:
            self._structure_end(name)

    def words(self, text: str) -> None:
        line = self._flow.line
        if line is not None and not self._unread:
            line.append(text if self._flow.name in _CODE else re.sub(r"[ \t\r\n]+", " ", text))

    def _is_prompt(self, attributes: Mapping[str, str]) -> bool:
        return attributes.get("presentation:class") in _PROMPTS and "office:master-styles" in self._open[:4]

    def _is_container(self, name: str) -> bool:
        if len(self._flows) > _MAX_CONTAINERS or (name == "dc:creator" and self._flow.name != "office:annotation"):
            return False
        return name in _CONTAINERS or (name.startswith("draw:") and name not in _INLINE_DRAWINGS)

    # Paragraphs

    def _paragraph(self, name: str, attributes: Mapping[str, str]) -> None:
        flow = self._flow
        flow.end_line()
        flow.line = []
        if name == "text:h":
            flow.mark = "#" * min(max(_number(attributes, "text:outline-level"), 1), 6) + " "
        elif self._is_title(attributes.get("text:style-name", "")):
            flow.mark = "# "
        elif flow.items and flow.name not in _CELLS:
            flow.mark = flow.items[-1]
        if flow.items:
            flow.items[-1] = ""

    def _is_title(self, style: str) -> bool:
        return "Title" in (style, self._parents.get(style))

    def _structure(self, name: str, attributes: Mapping[str, str]) -> None:
        flow = self._flow
        if name == "text:list-item" or name == "text:list-header":
            flow.items.append("  " * min(len(flow.items), 8) + "- ")
        elif name == "draw:page":
            flow.end_line()
            self._page()
        elif name == "style:style":
            self._parents[attributes.get("style:name", "")] = attributes.get("style:parent-style-name", "")
        elif name == "table:table":
            self._table(attributes)
        elif name == "table:table-row" and flow.tables:
            flow.tables[-1].cells, flow.tables[-1].repeated = [], _number(attributes, "table:number-rows-repeated")
        elif name.startswith("form:"):
            flow.add(attributes[key] for key in ("form:label", "form:current-value") if attributes.get(key))
        elif flow.line is not None:
            self._inline(flow, flow.line, name, attributes)

    def _inline(self, flow: _Flow, line: list[str], name: str, attributes: Mapping[str, str]) -> None:
        if name == "text:s":
            line.append(" " * min(_number(attributes, "text:c"), _MAX_SPACES))
        elif name in ("text:tab", "text:tab-stop", "text:ruby-text"):
            line.append(" ")
        elif name == "text:line-break":
            line.append("\n")
        elif name == "text:note-citation":
            line.append("[")
            flow.links.append(("", len(line)))
        elif name == "text:a":
            flow.links.append((attributes.get("xlink:href", ""), len(line)))

    def _structure_end(self, name: str) -> None:
        flow = self._flow
        if name in ("text:list-item", "text:list-header") and flow.items:
            flow.items.pop()
        elif name == "table:table" and flow.tables:
            flow.tables.pop()
        elif name == "table:table-row" and flow.tables:
            self._row(flow.tables[-1])
        elif name in ("text:a", "text:note-citation") and flow.links and flow.line is not None:
            target, at = flow.links.pop()
            words = "".join(flow.line[at:])
            if name == "text:note-citation":
                flow.label = words
                flow.line.append("]")
            elif _TARGET.match(target) and words.strip() and words.strip() not in target:
                flow.line[at:] = [f"[{words}]({target})"]
        elif name.startswith("math:") and flow.line is not None:
            flow.line.append(" ")

    # Containers

    def _leave(self) -> None:
        """Put the blocks of the innermost container where they belong."""
        left = self._flows.pop()
        left.end_line()
        blocks, flow = left.blocks, self._flow
        if left.name in _CELLS:
            self._cell(left)
        elif left.name in ("office:master-styles", *_DECLARED):
            self.furniture += blocks
        elif left.name in _CODE:
            self.macros += blocks
        elif left.name == "dc:creator":
            flow.label = " ".join(blocks)
        elif left.name == "office:annotation" and blocks:
            flow.add([f"Comment{' by ' * bool(left.label)}{left.label}: {blocks[0]}", *blocks[1:]])
        elif left.name == "text:note-body" and blocks:
            flow.add([f"[{flow.label}] {blocks[0]}", *blocks[1:]])
        elif left.name == "presentation:notes" and blocks:
            flow.add(["Notes:", *blocks])
        elif left.attributes.get("presentation:class") == "title" and blocks:
            flow.add(["## " + " ".join(" ".join(blocks).split())])
        else:
            flow.add(blocks)

    def _object(self, name: str, attributes: Mapping[str, str]) -> None:
        path = attributes.get("xlink:href", "")
        if name == "draw:object" and path and self._objects:
            self._flow.add(self._objects(path))
        elif name == "draw:object-ole" and path:
            self.attached.append(path)

    def _page(self) -> None:
        if len(self._flows) == 1:
            self.pages.append(len(self._flow.blocks))

    # Tables

    def _table(self, attributes: Mapping[str, str]) -> None:
        flow = self._flow
        flow.end_line()
        sheet = self._open[-2:-1] == ["office:spreadsheet"]
        if sheet:
            self._page()
            flow.add(["## " + " ".join(attributes.get("table:name", "").split())])
        flow.tables.append(_Table(sheet))

    def _cell(self, cell: _Flow) -> None:
        tables = self._flow.tables
        if not tables or tables[-1].cells is None:
            self._flow.add(cell.blocks)
            return
        blocks = cell.blocks or [cell.attributes[key] for key in _VALUES if cell.attributes.get(key)][:1]
        times = self._times(_number(cell.attributes, "table:number-columns-repeated"), sum(map(len, blocks)))
        tables[-1].cells += [blocks] * times

    def _row(self, table: _Table) -> None:
        """A row becomes a line of a table; one that lays out a page, its blocks one by one."""
        cells, table.cells = table.cells or [], None
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            return
        nested = any(block[:2] in ("| ", "# ", "##") for cell in cells for block in cell)
        if not table.sheet and (nested or (len(cells) == 1 and len(cells[0]) > 1)):
            self._flow.add(block for cell in cells for block in cell)
            return
        line = "| " + " | ".join(" ".join(" ".join(cell).split()) for cell in cells) + " |"
        lines = [line] * self._times(table.repeated, len(line))
        if not table.rows:
            lines.insert(1, "| " + " | ".join(["---"] * len(cells)) + " |")
        self._flow.add(lines)
        table.rows += 1

    def _times(self, repeated: int, chars: int) -> int:
        """How often to write what is repeated, within what all repetitions together may add."""
        times = max(1, min(repeated, MAX_REPEATED))
        if (times - 1) * chars > self._repeated_chars:
            return 1
        self._repeated_chars -= (times - 1) * chars
        return times


def _number(attributes: Mapping[str, str], name: str) -> int:
    value = attributes.get(name, "1")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 1
