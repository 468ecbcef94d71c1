"""A web page as Markdown, in one pass over its tags. Pure: no I/O.

Own code, since kreuzberg 4.10 silently drops what is nested deeper than some 64 elements and does not end a paragraph
where the next one starts.
"""

from __future__ import annotations

import html
import re
from itertools import pairwise

from worker.extracted import Extracted, markdown_title, one_line

__all__ = ["read_page"]

#: Elements whose content is not for readers.
_UNREAD = ("script", "style", "template")
_META = re.compile(r"<meta\b([^<>]{0,4000})>", re.I)
_ATTRIBUTE = re.compile(r"([\w:-]{1,40})\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_META_FIELDS = {"author": "author", "description": "description", "keywords": "keywords", "date": "created"}
#: A tag, its attributes with ">" allowed in quotes. Possessive, so that broken markup costs linear time.
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:=\s*+(?:\"[^\"<]{0,4000}+\"|'[^'<]{0,4000}+')|[^<>])*+)>")
#: Elements that begin and end a paragraph; what is neither here nor handled by name is part of a line.
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body button caption center dd details dialog dir div dl dt "
        "fieldset figcaption figure footer form frame h1 h2 h3 h4 h5 h6 header hr html iframe legend li main "
        "menu nav ol option p pre section select summary table tbody td textarea tfoot th thead title tr ul",
    )
)
#: A table whose cells are longer than this many characters is a page layout, not a table.
MAX_CELL_CHARS = 300


def read_page(text: str) -> Extracted:
    """A page as Markdown. Own code, since the library silently drops what is nested deeper than 64 elements
    and does not end a paragraph where the next one starts: a page without </p> would lose its end.
    """
    readable = _without_unread(text)
    head, body = _split_head(readable)
    page = _Page()
    page.read(body)
    content = page.text()
    title = _html_title(head) or _html_title(body) or one_line(markdown_title(content))
    return Extracted("html", content, title=title, metadata=_html_metadata(head), own_lines=False)


class _Page:
    """The readable words of a page, block by block, in one pass over its tags."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._mark = ""  # what the next block begins with: a heading mark, a bullet
        self._lists = 0
        self._code = False
        #: For each open table the cells of its open row, each a list of blocks.
        self._tables: list[list[list[str]]] = []

    def read(self, body: str) -> None:
        body = re.sub(r"<[!?][^<>]*>", "", body)
        at = 0
        for tag in _TAG.finditer(body):
            self._words(body[at : tag.start()])
            self._tag(tag[2].lower(), bool(tag[1]), tag[3])
            at = tag.end()
        self._words(body[at:])
        while self._tables:
            self._tag("table", True, "")
        self._end_block()

    def text(self) -> str:
        """The blocks with a blank line between, rows and list items without."""
        parts: list[str] = []
        for block, following in pairwise([*self._blocks, ""]):
            close = any(block.lstrip().startswith(m) and following.lstrip().startswith(m) for m in ("- ", "| "))
            parts += [block, "\n" if close else "\n\n"]
        return "".join(parts).rstrip() + "\n" if parts else ""

    def _words(self, source: str) -> None:
        words = html.unescape(source).replace("\x00", "")
        self._line.append(words if self._code else re.sub(r"\s+", " ", words))

    def _tag(self, name: str, closing: bool, attributes: str) -> None:
        if name == "br":
            self._line.append("\n")
        elif name == "img":
            self._line.append(f" {html.unescape(_attributes(attributes).get('alt', ''))} ")
        elif self._code and name in _BLOCKS and name != "pre":
            self._line.append("\n" if closing else "")  # listings often wrap each line in an element
        elif name in _BLOCKS:
            self._end_block()
            self._structure(name, closing)

    def _structure(self, name: str, closing: bool) -> None:
        if name in ("ul", "ol"):
            self._lists = max(0, self._lists + (-1 if closing else 1))
        elif name in ("table", "tr", "td", "th"):
            self._table(name, closing)
        elif name == "pre":
            self._code = not closing
        elif name == "li" and not closing:
            self._mark = "  " * min(self._lists - 1, 8) + "- "
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
            cells = (" ".join(" ".join(cell).split()) for cell in row)
            blocks = [f"| {' | '.join(cells)} |"]
        self._target().extend(blocks)


def _attributes(source: str) -> dict[str, str]:
    return {m[1].lower(): m[2] or m[3] or m[4] or "" for m in _ATTRIBUTE.finditer(source)}


def _without_unread(text: str) -> str:
    """Markup without comments, scripts and styles, and so without the tags inside them."""
    text = _drop(text, re.compile("<!--"), re.compile("-->"))
    for name in _UNREAD:
        text = _drop(text, re.compile(rf"<{name}\b[^<>]*>", re.I), re.compile(rf"</{name}\s*>", re.I))
    return text


def _drop(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Cut every span between the two patterns; an unclosed one reaches to the end, as in browsers."""
    kept, at = [], 0
    while start := opening.search(text, at):
        kept.append(text[at : start.start()])
        end = closing.search(text, start.end())
        at = end.end() if end else len(text)
    return "".join(kept) + text[at:]


def _split_head(text: str) -> tuple[str, str]:
    """The head, whose words are not part of the page, and the rest."""
    ending = re.compile(r"</head\s*>|(?=<body\b)", re.I).search(text)
    return (text[: ending.start()], text[ending.end() :]) if ending else ("", text)


def _html_title(head: str) -> str | None:
    opening = re.compile(r"<title\b[^<>]*>", re.I).search(head)
    if not opening:
        return None
    content = re.split(r"</title|<", head[opening.end() : opening.end() + 4000], maxsplit=1, flags=re.I)[0]
    return one_line(html.unescape(content))


def _html_metadata(head: str) -> dict[str, object]:
    """Author, description, keywords and date of the page, where it names them."""
    found: dict[str, object] = {}
    for match in _META.finditer(head):
        attributes = _attributes(match[1])
        key = _META_FIELDS.get(attributes.get("name", "").lower())
        value = one_line(html.unescape(attributes.get("content", "")))
        if key and value:
            found.setdefault(key, value)
    return found
