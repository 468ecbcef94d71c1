"""Documents of Office before 2007, completed: kreuzberg reads their text, this adds what it leaves out of footnotes,
headers, comments, text boxes, charts, properties and the files within."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from worker import sheetbinary, slidebinary, wordbinary
from worker.embedded import Carried
from worker.extracted import Extracted, Input, Member, Refused, one_line
from worker.known import Known
from worker.office import read_document
from worker.olestreams import Streams, embedded_files, members, property_sets
from worker.package import Broken
from worker.properties import described
from worker.protected import read_protected

__all__ = ["read_legacy"]

_READERS: Mapping[str, Callable[[Streams], dict[str, list[str]]]] = {
    "doc": wordbinary.words_of,
    "xls": sheetbinary.words_of,
    "ppt": slidebinary.words_of,
}
#: heading of what stands in the document itself and was not read by the library
_TEXT = "Text"


def read_legacy(found: Input) -> Extracted:
    """The library's reading, and below it what only the container says."""
    read, refusal = _library(found)
    if refusal is not None and refusal.code == "encrypted":
        return read_protected(found)
    try:
        streams = Streams(found.data)
    except Broken:
        if refusal is not None:
            raise refusal from None
        return read
    words = _words(found.kind, streams)
    if found.kind == "doc" and words.get(_TEXT):  # the library runs paragraphs together and shows codes of fields
        read = replace(read, text=_blocks(words.pop(_TEXT)))
    named, custom = property_sets(streams)
    files = embedded_files(streams)
    text = _completed(read.text, words, [*described(named, custom)], files)
    if refusal is not None and not text.strip() and not files:
        raise refusal
    if refusal is not None and refusal.code == "damaged" and not words:
        raise refusal
    return replace(
        read,
        text=text,
        title=read.title or one_line(str(named.get("title") or "")),
        metadata={**named, **read.metadata, **custom} if named or custom else read.metadata,
        members=_members(found.kind, streams, files),
    )


def _library(found: Input) -> tuple[Extracted, Refused | None]:
    try:
        return read_document(found), None
    except Refused as refused:
        return Extracted(found.kind, "", own_lines=False), refused


def _words(kind: str, streams: Streams) -> dict[str, list[str]]:
    try:
        return _READERS[kind](streams)
    except Broken:
        return {}  # the library may have read what it could


def _blocks(paragraphs: list[str]) -> str:
    """Paragraphs with a blank line between, rows of a table without."""
    parts: list[str] = []
    for line in paragraphs:
        close = bool(parts) and line.startswith("| ") and parts[-1].startswith("| ")
        parts += ["\n" if close else "\n\n", _escaped(line)] if parts else [_escaped(line)]
    return "".join(parts)


def _completed(text: str, words: Mapping[str, list[str]], about: list[str], files: list[Carried]) -> str:
    known = Known(text)
    blocks = [text.rstrip("\n")] if text.strip() else []
    for heading, paragraphs in words.items():
        new = [line for line in dict.fromkeys(paragraphs) if not known.has(line, [line])]
        if new:
            blocks += [f"## {heading}" if heading != _TEXT or text.strip() else "", *map(_escaped, new)]
    packed = [line for file in files for line in dict.fromkeys((file.name, *file.paths)) if file.paths]
    blocks += ["## Embedded files", *packed] if packed else []
    new = [line for line in about if not known.has(line.partition(": ")[2], [line])]
    blocks += ["## Properties", *new] if new else []
    return "\n\n".join(block for block in blocks if block) + "\n" if blocks else ""


def _escaped(line: str) -> str:
    """No line of a document may become a heading of ours."""
    return f"\\{line}" if line.startswith("#") else line


def _members(kind: str, streams: Streams, files: list[Carried]) -> Iterator[Member]:
    yield from members(files)
    if kind == "ppt":
        yield from slidebinary.objects_in(streams)
