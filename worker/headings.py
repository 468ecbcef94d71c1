"""Headings and titles of text kinds that mark them line by line: Org, AsciiDoc, MediaWiki, LaTeX, Texinfo, man pages.

Such a text keeps its own characters and lines. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["LINE_HEADINGS", "MAX_HEADING_CHARS", "line_title"]

#: No heading is longer, and no pattern here is tried on more.
MAX_HEADING_CHARS = 1000
#: A title is looked for in so many characters and lines.
TITLE_CHARS = 64 * 1024
TITLE_LINES = 400

#: (level, title) if the line is a heading
_Mark = Callable[[str], tuple[int, str] | None]

_ORG = re.compile(r"(\*{1,12})[ \t]+(?:(?:TODO|DONE|NEXT|WAITING)[ \t]+)?(?:\[#[A-Z]\][ \t]*)?(\S.*)")
_ORG_TAGS = re.compile(r"[ \t]+:[\w@#%:]+:[ \t]*$")
_ASCIIDOC = re.compile(r"(={1,6})[ \t]+(\S.*)")
_MEDIAWIKI = re.compile(r"(={1,6})[ \t]*([^=\s].*?)[ \t]*(={1,6})[ \t]*$")
_LATEX = re.compile(r"[ \t]*\\(part|chapter|(?:sub){0,2}section|paragraph)\*?(?:\[[^\[\]]{0,300}\])?\{(.*)")
_LATEX_LEVELS = {"part": 1, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6}
_TEXINFO = re.compile(
    r"@(top|chapter|unnumbered|appendix|heading|majorheading|section|unnumberedsec|appendixsec|subsection|unnumberedsubsec|"
    r"appendixsubsec|subheading|subsubsection|unnumberedsubsubsec|appendixsubsubsec|subsubheading)[ \t]+(\S.*)"
)
_MAN = re.compile(r"\.[ \t]*(SH|SS|Sh|Ss)[ \t]+(\S.*)")

#: Lines that name the whole document, looked for before its headings.
_TITLES = {
    "org": re.compile(r"#\+title:[ \t]*(.*)", re.I),
    "latex": re.compile(r"[ \t]*\\title(?:\[[^\[\]]{0,300}\])?\{(.*)"),
    "texinfo": re.compile(r"@settitle[ \t]+(.*)"),
    "man": re.compile(r"\.(?:TH|Dt)[ \t]+(.*)"),
}


def line_title(text: str, kind: str) -> str | None:
    """The title that a text of one of these kinds gives itself, or its first heading."""
    lines = [line for line in text[:TITLE_CHARS].splitlines()[:TITLE_LINES] if len(line) <= MAX_HEADING_CHARS]
    named = _TITLES.get(kind)
    for line in lines if named else ():
        if named and (match := named.match(line)):
            words = _argument(match[1]) if kind == "latex" else str(match[1])
            return _page_name(words) if kind == "man" else words
    return next((mark[1] for line in lines if (mark := LINE_HEADINGS[kind](line))), None)


def _page_name(words: str) -> str:
    """NAME(SECTION) from the arguments of the title macro."""
    arguments: list[str] = re.findall(r'"[^"]*"|\S+', words)
    name, section = [*arguments, "", ""][:2]
    return name.strip('"') + (f"({section.strip(chr(34))})" if section else "")


def _org(line: str) -> tuple[int, str] | None:
    mark = _ORG.match(line)
    return (len(mark[1]), _ORG_TAGS.sub("", mark[2]).strip()) if mark else None


def _asciidoc(line: str) -> tuple[int, str] | None:
    mark = _ASCIIDOC.match(line)
    return (len(mark[1]), mark[2].strip()) if mark else None


def _mediawiki(line: str) -> tuple[int, str] | None:
    mark = _MEDIAWIKI.match(line)
    return (len(mark[1]), mark[2]) if mark and len(mark[1]) == len(mark[3]) else None


def _latex(line: str) -> tuple[int, str] | None:
    mark = _LATEX.match(line)
    title = _argument(mark[2]) if mark else ""
    return (_LATEX_LEVELS[mark[1]], title) if mark and title else None


def _argument(rest: str) -> str:
    """What stands before the brace that closes an argument, without commands."""
    depth = 0
    for at, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            rest = rest[:at]
            break
    words = re.sub(r"\\(?:label|thanks|footnote)\{[^{}]*\}", "", rest)
    return " ".join(re.sub(r"\\[a-zA-Z]+\*?|[{}~\\]", " ", words).split())


def _texinfo(line: str) -> tuple[int, str] | None:
    mark = _TEXINFO.match(line)
    if not mark:
        return None
    name = mark[1]
    level = 1 if name == "top" else 2 + name.count("sub") + name.endswith(("section", "sec"))
    return level, re.sub(r"@\w+\{([^{}]*)\}", r"\1", mark[2]).strip()


def _man(line: str) -> tuple[int, str] | None:
    mark = _MAN.match(line)
    if not mark:
        return None
    title = " ".join(re.sub(r"\\f[A-Z]|\\&", "", mark[2]).replace('"', " ").split())
    return (1 if mark[1].lower() == "sh" else 2, title) if title else None


#: By kind of text.
LINE_HEADINGS: dict[str, _Mark] = {
    "org": _org,
    "asciidoc": _asciidoc,
    "mediawiki": _mediawiki,
    "latex": _latex,
    "texinfo": _texinfo,
    "man": _man,
}
