"""Pages, Numbers and Keynote documents of iWork '09 and before (one XML file in a ZIP) as Markdown.

Own code: no library of ours reads them. The later, binary form is read by `iwa`.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.extracted import Extracted, Input, Refused, flat, markdown_title, one_line
from worker.writing import joined, table_lines, unread
from worker.xmlevents import read_xml

__all__ = ["read_iwork"]

#: The parts that hold the whole document, one of them in each.
_PARTS = ("index.xml", "index.apxl", "index.xml.gz", "index.apxl.gz")
#: The XML is read up to this many bytes.
MAX_XML_BYTES = 400 << 20
_PIECE_BYTES = 1 << 16
#: Cell numbers count rows by so many columns.
_COLUMNS = 256
_EPOCH = datetime(2001, 1, 1)

#: What is not the document: styles, what new sheets and sections are made of, names of fonts.
_UNREAD = frozenset(("stylesheet", "section-prototypes", "tabular-prototypes", "publication-info", "menu-fonts"))
#: Elements inside of which paragraphs are apart from those around.
_CONTAINERS = frozenset(
    (
        "sf:header", "sf:footer", "sf:footnotes", "sf:attachment", "sf:annotation", "sf:sticky-note", "key:sticky-note",
        "key:notes", "key:master-slide", "key:title-placeholder", "key:body-placeholder", "key:bullets",
        "sf:tabular-model", "sf:text-storage", "sf:chart-row_names", "sf:chart-column_names",
        "sf:chart-row-names", "sf:chart-column-names",
    )
)  # fmt: skip
_PLACEHOLDERS = ("key:title-placeholder", "key:body-placeholder", "key:bullets")
_FIELDS = {"authors": "author", "title": "title", "comment": "description", "keywords": "keywords"}
#: Characters that no XML has; stands where a page starts until the text is joined.
_PAGE = "\0"


def read_iwork(found: Input) -> Extracted:
    body = _Body()
    try:
        with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
            whole = read_xml(_pieces(archive), body, _named)
    except RuntimeError as error:  # also NotImplementedError: a method that no ZIP has
        raise Refused("encrypted", "protected by a password") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        if not body.blocks:
            raise Refused("damaged", f"a damaged {found.kind} document") from error
        whole = False
    return _document(found.kind, body, whole)


def _pieces(archive: zipfile.ZipFile) -> Iterator[bytes]:
    name = next((name for name in archive.namelist() if name.lower() in _PARTS), "")
    if not name:
        raise Refused("damaged", "a damaged ZIP container")
    limit = MAX_XML_BYTES
    with archive.open(name) as packed:
        file = gzip.GzipFile(fileobj=packed) if name.endswith(".gz") else packed
        while limit > 0 and (piece := file.read(_PIECE_BYTES)):
            limit -= len(piece)
            yield piece


def _named(namespace: str, local: str) -> str:
    prefix = namespace.rpartition("/")[2]
    return f"{'key' if prefix.startswith('keynote') else prefix}:{local}"


def _document(kind: str, body: _Body, whole: bool) -> Extracted:
    blocks = _with_pages(body.blocks)
    if not whole and not blocks:
        raise Refused("damaged", f"a damaged {kind} document")
    furniture = list(dict.fromkeys(body.furniture))
    blocks += ["## Headers and footers", *furniture] if furniture else []
    fields = {key: ", ".join(values) for key, values in body.fields.items()}
    named = [f"- {key.title()}: {fields[key]}" for key in ("description", "keywords") if key in fields]
    blocks += ["## Properties", *named] if named else []
    text, _ = joined(blocks)
    parts = text.split(_PAGE)
    starts = [len(parts[0])]
    for part in parts[1:-1]:
        starts.append(starts[-1] + len(part))
    text = "".join(parts)
    title = one_line(fields.pop("title", "")) or one_line(markdown_title(text) if kind != "numbers" else None)
    partial = unread(int(not whole))
    pages = tuple(starts) if len(parts) > 1 else ()
    return Extracted(kind, text, 0, title, flat(fields), pages, False, partial)


def _with_pages(blocks: list[str]) -> list[str]:
    """A page starts with its first block."""
    kept, mark = [], ""
    for block in blocks:
        if block == _PAGE:
            mark += _PAGE
        else:
            kept.append(mark + block)
            mark = ""
    return [*kept, mark] if mark else kept


@dataclass(slots=True)
class _Table:
    cells: dict[int, str] = field(default_factory=dict)
    at: int = 0
    #: how deep in the document its cells are
    depth: int = 0


@dataclass(slots=True)
class _Flow:
    name: str
    attributes: Mapping[str, str]
    blocks: list[str] = field(default_factory=list)
    line: list[str] | None = None
    #: identifiers of what the open line refers to
    anchored: list[str] = field(default_factory=list)
    table: _Table | None = None


class _Body:
    """Collects blocks, in the order of the document."""

    def __init__(self) -> None:
        self.furniture: list[str] = []
        self.fields: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._unread = 0
        self._flows = [_Flow("", {})]
        self._notes: list[str] = []
        self._attachments: dict[str, list[str]] = {}
        self._cell: list[str] | None = None
        #: the texts of a pop-up menu by their identifiers
        self._choices: dict[str, str] = {}
        self._choice = ""
        self._pages = 0

    @property
    def blocks(self) -> list[str]:
        while len(self._flows) > 1:  # a broken document ends anywhere
            self._leave()
        self._end_line()
        rest = [block for blocks in self._attachments.values() for block in blocks]
        return [*self._flows[0].blocks, *rest, *self._notes]

    # Events

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(name)
        local = name.partition(":")[2]
        if self._unread or local in _UNREAD or self._is_prompt(name):
            self._unread += 1
        elif self._flows[-1].table is not None and name not in ("sf:p", "sf:text-storage"):
            self._in_table(name, attributes)
        elif name in _CONTAINERS and len(self._flows) < 60:
            self._flows.append(_Flow(name, attributes))
        elif name == "sf:datasource":
            self._flows[-1].table = _Table(depth=len(self._open))
        elif name == "sf:p":
            self._end_line()
            self._flows[-1].line = []
        else:
            self._other(name, attributes)

    def end(self, name: str) -> None:
        depth = len(self._open)
        self._open.pop()
        flow = self._flows[-1]
        if self._unread:
            self._unread -= 1
        elif flow.table is not None and depth == flow.table.depth + 1:
            self._end_cell(flow.table)
        elif name == "sf:datasource" and flow.table is not None:
            flow.blocks += _rows(flow.table.cells)
            flow.table = None
        elif name == "sf:p":
            self._end_line()
        elif name == flow.name:
            self._leave()

    def words(self, text: str) -> None:
        line = self._flows[-1].line
        if line is not None and not self._unread:
            line.append(re.sub(r"[ \t\r\n]+", " ", text))

    def _is_prompt(self, name: str) -> bool:
        return name in _PLACEHOLDERS and "key:master-slide" in self._open

    def _end_line(self) -> None:
        flow = self._flows[-1]
        if flow.line is None:
            return
        text = "\n".join(line.strip() for line in "".join(flow.line).strip().split("\n"))
        flow.blocks += [text] if text else []
        for identifier in flow.anchored:
            flow.blocks += self._attachments.pop(identifier, [])
        flow.line = None
        flow.anchored.clear()

    def _other(self, name: str, attributes: Mapping[str, str]) -> None:
        flow = self._flows[-1]
        if name in ("ls:workspace", "key:slide"):
            self._page()
            title = " ".join(attributes.get("ls:workspace-name", "").split())
            flow.blocks += [f"## {title}"] if title else []
        elif name == "sf:page-start" and attributes.get("sf:page-index") == str(self._pages):
            self._page()
        elif name == "sf:string" and len(self._open) > 2:
            self._string(attributes.get("sfa:string", ""))
        elif name == "sf:attachment-ref":
            flow.anchored.append(attributes.get("sfa:IDREF", ""))
        elif flow.line is not None:
            if name in ("sf:br", "sf:lnbr", "sf:crbr", "sf:tab"):
                flow.line.append(" " if name == "sf:tab" else "\n")
            elif name in ("sf:footnote", "sf:footnote-mark"):
                flow.line.append(f"[{attributes.get('sf:autonumber') or attributes.get('sf:mark', '')}]")

    def _page(self) -> None:
        """In the open line, else before the next block."""
        flow = self._flows[-1]
        self._pages += 1
        if flow.line is not None:
            flow.line.append(_PAGE)
        else:
            flow.blocks.append(_PAGE)

    def _string(self, value: str) -> None:
        parent, above = self._open[-2], self._open[-3]
        local = parent.partition(":")[2]
        if above.endswith(":metadata") and local in _FIELDS and value:
            self.fields.setdefault(_FIELDS[local], []).append(value)
        elif parent.startswith("sf:chart-") and parent == self._flows[-1].name and value:
            self._flows[-1].blocks.append(value)

    # Containers

    def _leave(self) -> None:
        """Put the blocks of the innermost container where they belong."""
        self._end_line()
        left = self._flows.pop()
        flow, blocks = self._flows[-1], left.blocks
        if flow.table is not None:
            self._cell = [*(self._cell or []), *blocks]
        elif left.name in ("sf:header", "sf:footer", "key:master-slide"):
            self.furniture += blocks
        elif left.name == "sf:footnotes":
            self._notes += blocks
        elif left.name == "sf:attachment":
            self._attachments[left.attributes.get("sfa:ID", "")] = blocks
        elif left.name == "key:bullets":  # the same words as in the body, where there are both
            said = set(flow.blocks[-len(blocks) - 50 :])
            flow.blocks += [block for block in blocks if block not in said]
        else:
            flow.blocks += _labelled(left, blocks)

    # Tables

    def _in_table(self, name: str, attributes: Mapping[str, str]) -> None:
        table = self._flows[-1].table
        if table is not None and len(self._open) == table.depth + 1:
            moved = attributes.get("sf:ct", "1" if table.cells or table.at else "0")
            table.at += int(moved) if moved.isascii() and moved.isdecimal() and len(moved) < 8 else 1
            self._cell = []
        elif name == "sf:t":
            self._choice = attributes.get("sfa:ID", "")
        value = _value(name, attributes)
        if "sf:menu-choices" in self._open[-4:]:
            self._choices[self._choice] = value or self._choices.get(self._choice, "")
        elif name == "sf:proxied-cell-ref":
            value = self._choices.get(attributes.get("sfa:IDREF", ""), "")
        if value and self._cell is not None and "sf:menu-choices" not in self._open[-4:]:
            self._cell.append(value)

    def _end_cell(self, table: _Table) -> None:
        table.cells[table.at] = " ".join(" ".join(self._cell or []).split())
        self._cell = None


def _labelled(left: _Flow, blocks: list[str]) -> list[str]:
    if left.name == "key:title-placeholder" and blocks:
        return ["## " + " ".join(" ".join(blocks).split())]
    if left.name.startswith("sf:chart-"):
        return [", ".join(blocks)] if blocks else []
    if left.name == "key:notes" and blocks:
        return ["Notes:", *blocks]
    if left.name in ("sf:annotation", "sf:sticky-note", "key:sticky-note") and blocks:
        return [f"Comment: {blocks[0]}", *blocks[1:]]
    if left.name == "sf:tabular-model" and left.attributes.get("sf:name-is-visible") != "false":
        name = " ".join(left.attributes.get("sf:name", "").split())
        return [f"### {name}", *blocks] if name else blocks
    return blocks


def _value(name: str, attributes: Mapping[str, str]) -> str:
    if "sf:cell-date" in attributes:
        try:
            return (_EPOCH + timedelta(seconds=float(attributes["sf:cell-date"]))).isoformat().removesuffix("T00:00:00")
        except (ValueError, OverflowError):
            return ""
    if name in ("sf:n", "sf:rn", "sf:du", "sf:cb"):
        try:
            number = float(attributes.get("sf:v", ""))
        except ValueError:
            return attributes.get("sf:v", "")
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    return attributes.get("sfa:s", "")


def _rows(cells: Mapping[int, str]) -> list[str]:
    """The rows of a table, with all columns unless nearly all are empty."""
    rows: dict[int, dict[int, str]] = {}
    for at in sorted(at for at, cell in cells.items() if cell):
        rows.setdefault(at // _COLUMNS, {})[at % _COLUMNS] = cells[at]
    width = max((max(row) + 1 for row in rows.values()), default=0)
    full = len(rows) * width <= 20 * len(cells) + 1000
    filled = ([row.get(column, "") for column in range(width)] if full else list(row.values()) for row in rows.values())
    return list(table_lines(filled))
