"""What a reader of documents is given and gives, and the rules for titles and fields that all formats share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from math import isfinite
from typing import Any

__all__ = ["Extracted", "Input", "Member", "Reader", "Refused", "flat", "markdown_title", "nothing", "one_line"]

#: A title is looked for in so many characters and lines at the top of a document.
TITLE_CHARS = 64 * 1024
TITLE_LINES = 400
MAX_TITLE_CHARS = 300


def nothing() -> None:
    """What is called where nobody wants to know."""


class Refused(Exception):
    """The document is not for the index; asking again with the same bytes gives the same answer.

    `reason` is a short lower-case sentence fragment for people. `code` is one of "empty", "binary",
    "encrypted", "damaged", "unsupported", "no text layer", "too large".
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return type(self), (self.code, self.reason)


@dataclass(frozen=True, slots=True)
class Input:
    """What a reader gets: the whole document, its name, what kind of document it was found to be, and passwords to
    try on an encrypted one. `mime` is empty for kinds that have no media type."""

    data: bytes
    name: str
    kind: str
    mime: str = ""
    passwords: Sequence[str] = ()
    #: languages in which words in pictures are read, as "eng+deu"; empty: they are not
    ocr: str = ""
    #: to be called by whoever works long, part by part: each part then has the time of a document
    on_part: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a document: of an archive, attached to a mail, embedded in an Office document.

    `name` is what the container calls it, with "/" between directories. `read(n)` gives its bytes, at most `n` of
    them, without unpacking more; it raises `Refused`. It works until the next member is asked for.
    """

    name: str
    read: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one document says. All offsets count characters of `text`."""

    kind: str
    text: str
    #: Where the body starts: after the front matter of Markdown, else 0.
    body_start: int = 0
    #: From the document itself, never from its file name.
    title: str | None = None
    #: JSON-able scalars and lists of scalars.
    metadata: Mapping[str, object] = field(default_factory=dict)
    #: pages[i] is where page (slide, sheet) i + 1 starts; empty when the kind has none.
    pages: tuple[int, ...] = ()
    #: True when `text` is the file's own characters.
    own_lines: bool = True
    #: Why the text is only a part of the document, None when it is whole.
    partial: str | None = None
    #: Files within it, each a document of its own; gone through once, so a generator may give them one by one.
    members: Iterable[Member] = field(default=(), repr=False, compare=False)
    #: True when `text` is Markdown although its kind is none whose text always is.
    markdown: bool = False
    #: What read it, for people; the caller of a reader sets it.
    library: str = ""


#: Reads one kind of document. Raises `Refused` for reasons that lie in the document, MemoryError and OSError for
#: reasons that may pass; any other exception is a failure that is tried again.
Reader = Callable[[Input], Extracted]


def flat(fields: Mapping[Any, object]) -> dict[str, object]:
    kept = ((str(key), _plain(value)) for key, value in fields.items())
    return {key: value for key, value in kept if value is not None and value != [] and value != ""}


def _plain(value: object) -> object:
    """A JSON-able scalar or list of scalars; None for anything deeper."""
    if isinstance(value, list | tuple):
        scalars = (_plain(item) for item in value if not isinstance(item, list | tuple))
        return [item for item in scalars if item is not None]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else None
    return value if isinstance(value, str) else None


_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")


def markdown_title(body: str) -> str | None:
    """The words of the first heading, `# so` or underlined, outside code fences."""
    previous, fence = "", ""
    for line in body[:TITLE_CHARS].splitlines()[:TITLE_LINES]:
        mark = _FENCE.match(line)
        if mark and (not fence or fence == mark[1]):
            fence = "" if fence else mark[1]
        elif not fence:
            heading = _HEADING.match(line)
            if heading and heading[1]:
                return _words(heading[1])
            if re.match(r" {0,3}\w", previous) and _UNDERLINE.match(line):
                return _words(previous)
        previous = line
    return None


def _words(heading: str) -> str:
    """A heading without link targets and anchors."""
    heading = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading)
    return re.sub(r"\s*\{[#.][^{}]*\}\s*$", "", heading)


def one_line(title: str | None) -> str | None:
    """White space collapsed and the length bounded; None when nothing is left."""
    line = " ".join((title or "").split())[:MAX_TITLE_CHARS]
    return line or None
