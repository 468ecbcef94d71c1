"""A page as Markdown, written element by element as they open and close. Pure: no I/O."""

from __future__ import annotations

import re

from worker.writing import joined

__all__ = ["BLOCKS", "Page"]

#: Elements that begin and end a paragraph; what is neither here nor handled by name is part of a line.
BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body button caption center dd details dialog dir div dl dt "
        "fieldset figcaption figure footer form frame h1 h2 h3 h4 h5 h6 header hr html iframe legend li main "
        "menu nav ol option p pre section select summary table tbody td textarea tfoot th thead title tr ul",
    )
)
#: A table whose cells are longer than this many characters is a page layout, not a table.
MAX_CELL_CHARS = 300
#: Between the cells of a row, and around them.
_CELL, _EDGE = " | ", "| {} |"


class Page:
    """The readable words of a page, block by block, in one pass. Elements have the names that HTML gives them."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._mark = ""  # what the next block begins with: a heading mark, a bullet
        self._lists = 0
        self._code = False
        self._starts: list[int] = []
        #: For each open table the cells of its open row, each a list of blocks.
        self._tables: list[list[list[str]]] = []

    def words(self, text: str) -> None:
        """Characters of a line, all references resolved."""
        text = text.replace("\x00", "")
        self._line.append(text if self._code else re.sub(r"\s+", " ", text))

    def tag(self, name: str, closing: bool = False) -> None:
        if name == "br":
            self._line.append("\n")
        elif self._code and name in BLOCKS and name != "pre":
            self._line.append("\n" if closing else "")  # listings often wrap each line in an element
        elif name in BLOCKS:
            self._end_block()
            self._structure(name, closing)

    def start_page(self) -> None:
        """A page (a sheet, a slide) begins here; not within a table."""
        self.close()
        self._starts.append(len(self._blocks))

    def close(self) -> None:
        """End whatever is open."""
        while self._tables:
            self.tag("table", True)
        self._end_block()

    @property
    def line(self) -> str:
        """What the open block says so far."""
        return "".join(self._line)

    def text(self) -> str:
        return self.paged()[0]

    def paged(self) -> tuple[str, tuple[int, ...]]:
        """The blocks with a blank line between, rows and list items without; and where each page starts."""
        return joined(self._blocks, self._starts)

    def _structure(self, name: str, closing: bool) -> None:
        if name in ("ul", "ol"):
            self._lists = max(0, self._lists + (-1 if closing else 1))
        elif name in ("table", "tr", "td", "th"):
            self._table(name, closing)
        elif name == "pre":
            self._code = not closing
        elif name == "li" and not closing:
            self._mark = "  " * min(max(self._lists - 1, 0), 8) + "- "
        elif re.fullmatch("h[1-6]", name):
            self._mark = "" if closing else "#" * int(name[1]) + " "

    def _end_block(self) -> None:
        text = "".join(self._line)
        self._line.clear()
        if not text.strip():
            return
        if self._code:
            text = "```\n" + text.strip("\n") + "\n```"
        elif self._mark:
            text, self._mark = self._mark + " ".join(text.split()), ""
        else:
            text = "\n".join(" ".join(line.split()) for line in text.strip().split("\n"))
        self._target().append(text)

    def _target(self) -> list[str]:
        """Where a finished block belongs: the innermost open cell, else the page."""
        return next((row[-1] for row in reversed(self._tables) if row), self._blocks)

    def _table(self, name: str, closing: bool) -> None:
        if name == "table" and not closing:
            self._tables.append([])
        elif not self._tables:
            return
        elif name in ("tr", "table"):
            self._end_row()
            if name == "table":
                self._tables.pop()
        elif not closing:
            self._tables[-1].append([])

    def _end_row(self) -> None:
        """A row of short cells becomes a line of a table, any other the blocks of its cells one by one."""
        row, self._tables[-1] = self._tables[-1], []
        blocks = [block for cell in row for block in cell]
        short = all(len(b) <= MAX_CELL_CHARS and "```" not in b and b[0] not in "#|" for b in blocks)
        if len(row) > 1 and len(blocks) > 0 and short and all(len(cell) <= 2 for cell in row):
            blocks = [_EDGE.format(_CELL.join(" ".join(" ".join(cell).split()) for cell in row))]
        self._target().extend(blocks)
