"""Finds the headings and paragraphs of a text: the borders that a writer put there. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from worker.headings import LINE_HEADINGS, MAX_HEADING_CHARS

__all__ = ["Block", "blocks", "plain_title"]

#: kinds whose text has Markdown structure, be it the author's or that of the extraction library
_MARKDOWN_KINDS = frozenset(
    (
        "markdown",
        "html",
        "docx",
        "doc",
        "pptx",
        "ole",
        "ppt",
        "xlsx",
        "xls",
        "odt",
        "ods",
        "odp",
        "odg",
        "odf",
        "epub",
        "ipynb",
        "xmldoc",
    )
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
#: characters of a first line of plain text up to which it may be a title
_MAX_PLAIN_TITLE = 200
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph or heading: characters ``start`` to ``end`` of the text, below the ``headings`` of ``section``.

    A section is what stands below one heading, up to the next; its number tells two equal heading paths apart.
    """

    start: int
    end: int
    section: int
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    text: str


#: (level, title, number of lines that it takes) if a heading begins at this line
_Heading = tuple[int, str, int]
_Finder = Callable[[Sequence[_Line], int], _Heading | None]


def blocks(text: str, kind: str, body_start: int = 0) -> list[Block]:
    """Headings and paragraphs in order, without the blank space between them."""
    lines = [line for line in _lines(text, body_start) if line.end > line.start]
    return list(_Outline(lines, _finder(kind), fenced=kind in _MARKDOWN_KINDS).blocks())


def _lines(text: str, start: int) -> Iterator[_Line]:
    for match in _LINE.finditer(text, start):
        yield _Line(match.start(), match.end(), match.group().rstrip("\r\n"))


def _finder(kind: str) -> _Finder:
    if kind == "rst":
        return _RstHeadings()
    if kind == "text":
        return _PlainTitle()
    if kind in LINE_HEADINGS:
        return _LineHeadings(kind)
    return _markdown_heading if kind in _MARKDOWN_KINDS else lambda lines, at: None


def plain_title(text: str) -> str | None:
    """The title of a plain text: a first line that stands alone above the rest."""
    first = next(iter(blocks(text.lstrip()[: 2 * _MAX_PLAIN_TITLE], "text")), None)
    return first.headings[0] if first is not None and first.headings else None


class _PlainTitle:
    """The first line of a plain text, if it is short, has a word and stands alone, with more below."""

    def __init__(self) -> None:
        self._is_past = False

    def __call__(self, lines: Sequence[_Line], at: int) -> _Heading | None:
        title = lines[at].text.strip()
        if self._is_past or not title:
            return None
        self._is_past = True
        below = (line.text.strip() for line in islice(lines, at + 1, None))
        alone = next(below, "more") == "" and any(below)
        if not alone or len(title) > _MAX_PLAIN_TITLE or not any(letter.isalnum() for letter in title):
            return None
        return 1, title, 1


class _LineHeadings:
    """Headings that one line marks, outside the listings of AsciiDoc, which any line of four signs opens and closes."""

    def __init__(self, kind: str) -> None:
        self._mark = LINE_HEADINGS[kind]
        self._listing = re.compile(r"(-{4,}|\.{4,}|\+{4,}|/{4,})[ \t]*$") if kind == "asciidoc" else None
        self._open = ""

    def __call__(self, lines: Sequence[_Line], at: int) -> _Heading | None:
        text = lines[at].text
        fence = self._listing.match(text) if self._listing else None
        if fence is not None and self._open in ("", fence[1]):
            self._open = "" if self._open else fence[1]
        mark = None if self._open or len(text) > MAX_HEADING_CHARS else self._mark(text)
        return None if mark is None else (*mark, 1)


def _markdown_heading(lines: Sequence[_Line], at: int) -> _Heading | None:
    line = lines[at].text
    if (atx := _ATX.match(line)) is not None:
        return len(atx[1]), atx[2].strip(), 1
    after_blank = at == 0 or not lines[at - 1].text.strip()
    if not (after_blank and line.strip() and at + 1 < len(lines)):
        return None
    setext = _SETEXT.match(lines[at + 1].text)
    return None if setext is None else (1 if setext[1][0] == "=" else 2, line.strip(), 2)


class _RstHeadings:
    """reStructuredText gives levels to adornments in the order in which they appear."""

    def __init__(self) -> None:
        self._styles: list[tuple[str, bool]] = []

    def __call__(self, lines: Sequence[_Line], at: int) -> _Heading | None:
        overlined = self._adorned(lines, at, over=True)
        title_at = at + 1 if overlined else at
        if not self._adorned(lines, title_at + 1, over=False) or not lines[title_at].text.strip():
            return None
        title, under = lines[title_at].text, lines[title_at + 1].text.rstrip()
        if _ADORNMENT.match(title) or len(under) < min(len(title.rstrip()), 4):
            return None
        style = (under[0], overlined)
        if style not in self._styles:
            self._styles.append(style)
        return self._styles.index(style) + 1, title.strip(), 3 if overlined else 2

    def _adorned(self, lines: Sequence[_Line], at: int, *, over: bool) -> bool:
        if at >= len(lines) or _ADORNMENT.match(lines[at].text) is None:
            return False
        return not over or (at + 2 < len(lines) and lines[at + 2].text.rstrip() == lines[at].text.rstrip())


class _Outline:
    """Walks the lines once, with the heading path as it goes."""

    def __init__(self, lines: Sequence[_Line], heading: _Finder, *, fenced: bool) -> None:
        self._lines = lines
        self._heading = heading
        self._fenced = fenced
        self._path: list[tuple[int, str]] = []
        self._section = 0
        #: per sign, the shortest fence that nothing behind it closes: asked once, not for each line
        self._unclosed: dict[str, int] = {}

    def blocks(self) -> Iterator[Block]:
        at, first = 0, 0
        while at < len(self._lines):
            if (past_fence := self._past_fence(at)) is not None:
                at = past_fence
                continue
            heading = self._heading(self._lines, at)
            blank = not self._lines[at].text.strip()
            if heading is None and not blank:
                at += 1
                continue
            yield from self._block(first, at)
            first = at = at + (heading[2] if heading else 1)
            if heading is not None:
                self._enter(heading)
                yield from self._block(at - heading[2], at)
        yield from self._block(first, at)

    def _past_fence(self, at: int) -> int | None:
        """The line after a fenced block that begins here: blank lines and # inside it mean nothing."""
        opening = _FENCE.match(self._lines[at].text) if self._fenced else None
        if opening is None:
            return None
        fence = opening[1]
        if len(fence) >= self._unclosed.get(fence[0], len(fence) + 1):
            return at + 1
        for end in range(at + 1, len(self._lines)):
            closing = _FENCE.match(self._lines[end].text)
            if closing is not None and closing[1].startswith(fence) and not closing[2].strip():
                return end + 1
        self._unclosed[fence[0]] = len(fence)
        return at + 1  # never closed: an ordinary line

    def _enter(self, heading: _Heading) -> None:
        level, title, _ = heading
        self._path = [(above, name) for above, name in self._path if above < level] + [(level, title)]
        self._section += 1

    def _block(self, first: int, last: int) -> Iterator[Block]:
        if last > first:
            headings = tuple(title for _, title in self._path if title)
            yield Block(self._lines[first].start, self._lines[last - 1].end, self._section, headings)
