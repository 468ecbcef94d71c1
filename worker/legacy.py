"""Documents of Office before 2007: their text, and below it footnotes, headers, comments, text boxes, charts, links,
properties and the names of files within. What this cannot read, the library may."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker import sheetbinary, slidebinary, wordbinary
from worker.biff import Protected
from worker.embedded import Carried
from worker.extracted import Extracted, Input, Member, Refused, markdown_title, one_line
from worker.known import Known
from worker.office import read_document
from worker.olestreams import Streams, embedded_documents, embedded_files, members, property_sets
from worker.package import Broken
from worker.properties import described
from worker.protected import read_protected
from worker.writing import escaped, unread

__all__ = ["below", "read_bare_workbook", "read_legacy"]

_DAMAGED = unread(1)
#: bit of the head of a Word document that is encrypted, and what the head of an encrypted presentation has
_WORD_ENCRYPTED, _SLIDES_ENCRYPTED = 0x01, b"\xdf\xc4\xd1\xf3"
#: a title that a program made of the name of the file
_PROGRAM_TITLES = ("Microsoft Word - ", "Microsoft PowerPoint - ", "Microsoft Excel - ")


@dataclass(frozen=True, slots=True)
class _Words:
    """What the streams of a document say."""

    text: str = ""
    pages: tuple[int, ...] = ()
    #: paragraphs by the heading of what they are
    beside: Mapping[str, list[str]] = field(default_factory=dict)
    files: Sequence[Carried] = ()


def read_legacy(found: Input) -> Extracted:
    try:
        streams = Streams(found.data)
    except Broken:
        return _by_library(found, None)
    try:
        words: _Words | None = _READERS[found.kind](streams)
    except Protected:
        return read_protected(found)
    except Broken:
        words = None
    if words is None or not (words.text.strip() or any(words.beside.values())):
        read = _by_library(found, words)
    else:
        read = Extracted(found.kind, words.text, pages=words.pages, own_lines=False)
    read = _completed(read, words or _Words(), streams)
    return replace(read, partial=read.partial or (_DAMAGED if words is None or streams.cut_off else None))


def _by_library(found: Input, words: _Words | None) -> Extracted:
    """What the library reads; nothing if it finds no text either in what is whole."""
    try:
        return read_document(found)
    except Refused as refused:
        if refused.code == "encrypted":
            return read_protected(found)
        if words is None:
            raise
        return Extracted(found.kind, "", own_lines=False)


def _completed(read: Extracted, words: _Words, streams: Streams) -> Extracted:
    named, custom = property_sets(streams)
    files = [*embedded_files(streams), *words.files]
    text = below(read.text, words.beside, files, described(named, custom))
    title = one_line(str(named.get("title") or ""))
    if title and title.startswith(_PROGRAM_TITLES):
        title = None
    heading = one_line(markdown_title(words.text)) if read.kind != "xls" else None  # "Sheet1" is no title
    return replace(
        read,
        text=text,
        title=title or read.title or heading,
        metadata={**custom, **read.metadata, **named},
        members=_members(files, streams),
    )


def _members(files: list[Carried], streams: Streams) -> Iterator[Member]:
    yield from members(files)
    yield from embedded_documents(streams)


def below(text: str, beside: Mapping[str, list[str]], files: Sequence[Carried], about: list[str]) -> str:
    """The text, and below it what it does not say yet."""
    known = Known(text)
    blocks = [text.rstrip("\n")] if text.strip() else []
    for heading, paragraphs in beside.items():
        new = [line for line in dict.fromkeys(paragraphs) if line.strip() and not known.has(line, [line])]
        blocks += [f"## {heading}", *map(escaped, new)] if new else []
    packed = [line for file in files for line in dict.fromkeys((file.name, *file.paths)) if file.paths]
    blocks += ["## Embedded files", *packed] if packed else []
    new = [line for line in about if not known.has(line.partition(": ")[2], [line])]
    blocks += ["## Properties", *map(escaped, new)] if new else []
    return "\n\n".join(blocks) + "\n" if blocks else ""


# -- the three programs -------------------------------------------------------------------------------------------


def _document(streams: Streams) -> _Words:
    head = streams.read("WordDocument")
    if len(head) > 12 and head[11] & _WORD_ENCRYPTED:
        raise Protected
    words = wordbinary.words_of(streams)
    return _Words(_blocks(words.pop(wordbinary.TEXT, [])), (), words)


def _blocks(paragraphs: list[str]) -> str:
    """Paragraphs with a blank line between, rows of a table without."""
    parts: list[str] = []
    for line in paragraphs:
        close = bool(parts) and line.startswith("| ") and parts[-1].startswith("| ")
        parts += ["\n" if close else "\n\n", line] if parts else [line]
    return "".join(parts)


def _workbook(streams: Streams) -> _Words:
    data = sheetbinary.workbook(streams)
    text, pages = sheetbinary.tables_of(data)
    return _Words(text, pages, sheetbinary.words_of(data))


def _presentation(streams: Streams) -> _Words:
    if streams.read("Current User")[12:16] == _SLIDES_ENCRYPTED:
        raise Protected
    deck = slidebinary.read_deck(streams)
    parts: list[str] = []
    pages: list[int] = []
    at = 0
    for slide in deck.slides:
        beside = ((f"### {heading}", *map(escaped, lines)) for heading, lines in slide.beside.items() if lines)
        part = "\n\n".join([*slide.paragraphs, *(line for lines in beside for line in lines)])
        pages.append(at)
        parts.append(part)
        at += len(part) + 2
    text = "\n\n".join(parts)
    return _Words(text, tuple(min(page, len(text)) for page in pages), deck.beside, slidebinary.objects_of(streams))


_READERS: Mapping[str, Callable[[Streams], _Words]] = {"doc": _document, "xls": _workbook, "ppt": _presentation}


def read_bare_workbook(found: Input) -> Extracted:
    """A workbook of Excel 2, 3 or 4, which has no container around it."""
    try:
        text, pages = sheetbinary.tables_of(found.data)
        beside = sheetbinary.words_of(found.data)
    except Protected:
        raise Refused("encrypted", "protected by a password") from None
    except Broken:
        raise Refused("damaged", "a damaged xls document") from None
    return Extracted(found.kind, below(text, beside, (), []), pages=pages, own_lines=False)
