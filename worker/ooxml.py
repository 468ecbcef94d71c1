"""Word, PowerPoint and Excel documents: what kreuzberg reads, completed by the words of the parts that it leaves out.

Own code, since kreuzberg 4.10 gives the bodies only: no headers, charts, diagrams, drawn text, authors of comments,
links and properties. A paragraph that its text has already is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from math import inf

from worker.drawnwords import Paragraph
from worker.embedded import carried, members
from worker.extracted import Extracted, Input, Refused, one_line
from worker.known import Known
from worker.office import read_document
from worker.officeparts import Group, Survey
from worker.package import Broken, Package
from worker.properties import described, properties
from worker.readings import with_readings
from worker.wordrepair import repaired, restored
from worker.writing import unread

__all__ = ["read_ooxml"]

#: Headings in the order in which their sections stand.
_ORDER = (
    "",
    "Other text",
    "Notes",
    "Headers and footers",
    "Text boxes",
    "Diagrams",
    "Charts",
    "Footnotes",
    "Endnotes",
    "Comments",
    "Slide master",
    "Pictures",
    "Links",
)
#: Sections whose words are short lines, not paragraphs.
_LINES = frozenset(("Diagrams", "Charts", "Links", "Embedded files", "Properties"))
#: The library does not read charts: a number of one that is in the text stands there for something else.
_UNREAD = frozenset(("Charts",))
#: Bytes of embedded files that are unpacked for their names.
MAX_NAMED_BYTES = 128 << 20


def read_ooxml(found: Input) -> Extracted:
    try:
        package = Package(found.data)
    except Broken as error:
        raise Refused("damaged", f"a damaged {found.kind} document") from error
    survey = Survey(package)
    try:
        read = _library(found, package)
    except Refused as refused:
        if refused.code == "damaged":
            survey.read_strings()
        if refused.code not in ("empty", "damaged") or not survey.has_words():
            raise
        reason = "damaged: only loose words were found" if refused.code == "damaged" else None
        read = Extracted(found.kind, "", own_lines=False, partial=reason)
    if survey.broken and not read.text.strip():  # the library says nothing of a sheet that it cannot read
        survey.read_strings()
    if survey.readings:
        read = replace(read, text=with_readings(read.text, survey.readings))
    return _completed(read, package, survey)


def _library(found: Input, package: Package) -> Extracted:
    if found.kind != "docx":
        return read_document(found)
    with suppress(Broken):  # then the library gets what there is
        found = replace(found, data=repaired(package))
    read = read_document(found)
    return replace(read, text=restored(read.text), title=restored(read.title) if read.title else None)


def _completed(read: Extracted, package: Package, survey: Survey) -> Extracted:
    named, custom = properties(package)
    text, pages = _paged(read, survey.groups)
    known = Known("" if survey.groups and pages else read.text)
    rest = [] if pages else survey.groups
    tail = _sections(_merged((survey.whole, *rest)), known, "##")
    if text.strip() or tail or survey.embedded:
        files = list(_paths(package, survey.embedded))
        if not (text.strip() or tail or files):  # then nothing but them is here
            files = [_escaped(package.full(part).rpartition("/")[2]) for part in survey.embedded]
        tail += _section("Embedded files", files, "##")
        tail += _section("Properties", map(_escaped, described(named, custom)), "##")
    partial = read.partial or unread(survey.broken)
    title = read.title or (one_line(str(named.get("title", ""))) if not read.text else None)
    named.pop("title", None)
    if survey.groups:
        named["pages"] = len(survey.groups)
    return replace(
        read,
        text="\n\n".join(part for part in (text.rstrip("\n"), *tail) if part),
        title=title,
        metadata={**custom, **named, **read.metadata},
        pages=pages or read.pages,
        partial=partial,
        members=members(package, survey.embedded),
    )


# Slides and sheets ----------------------------------------------------------------------------------------


def _paged(read: Extracted, groups: list[Group]) -> tuple[str, tuple[int, ...]]:
    """The text with what belongs to each slide or sheet at its end, and where each starts; no pages when the
    text does not show which is which."""
    bodies = _bodies(read, groups)
    if not bodies:
        return read.text, ()
    parts: list[str] = []
    pages, at = [], 0
    for group, body in zip(groups, bodies, strict=True):
        extra = _sections(group.sections, Known(body), "###")
        if extra and not body and group.name:
            body = f"## {group.name}"
        pages.append(at)
        if part := "\n\n".join((*([body] if body else []), *extra)):
            parts.append(part)
            at += len(part) + 2
    text = "\n\n".join(parts)
    return text, tuple(min(page, len(text)) for page in pages)


def _bodies(read: Extracted, groups: list[Group]) -> list[str] | None:
    """What the library read of each slide or sheet."""
    if not read.text:
        return [""] * len(groups)
    starts = list(read.pages) if read.kind == "pptx" else _sheet_starts(read.text, groups)
    if len(starts) != len(groups) or not groups:
        return None
    borders = (0, *starts[1:], len(read.text))
    bodies = [read.text[start:end].strip("\n") for start, end in pairwise(borders)]
    bodies = [body if re.search(r"\w", body) else "" for body in bodies]  # a slide without words is a rule in Markdown
    return _in_order(bodies, groups) if read.kind == "pptx" else bodies


def _in_order(slides: list[str], groups: list[Group]) -> list[str]:
    """The library gives slides in the order of the numbers in the names of their files, which is another than
    that of the presentation once a slide has been moved."""
    by_number = sorted(range(len(groups)), key=lambda number: _file_number(groups[number].part))
    placed = dict(zip(by_number, slides, strict=True))
    return [placed[number] for number in range(len(groups))]


def _file_number(part: str) -> float:
    found = re.search(r"slide(\d{1,9})\.xml$", part)
    return int(found[1]) if found else inf


def _sheet_starts(text: str, groups: list[Group]) -> list[int]:
    """Where each sheet starts, empty when none is found. An empty sheet, which the library
    leaves out, starts where the next one does."""
    starts: list[int] = []
    at = 0
    for group in groups:
        heading = re.compile(rf"^## {re.escape(group.name)}[ \t]*$", re.M).search(text, at)
        starts.append(heading.start() if heading else -1)
        at = heading.end() if heading else at
    if max(starts, default=-1) < 0:
        return []
    following = len(text)
    for number in range(len(starts) - 1, -1, -1):
        following = starts[number] = starts[number] if starts[number] >= 0 else following
    return starts


# Sections -------------------------------------------------------------------------------------------------


def _merged(groups: Iterable[Group]) -> dict[str, list[Paragraph]]:
    merged: dict[str, list[Paragraph]] = {}
    for group in groups:
        for heading, paragraphs in group.sections.items():
            merged.setdefault(heading, []).extend(paragraphs)
    return merged


def _sections(found: dict[str, list[Paragraph]], known: Known, mark: str) -> list[str]:
    """One text for each heading under which there is something new."""
    given: set[str] = set()
    sections: list[str] = []
    for heading in _ORDER:
        lines = _new_lines(found.get(heading, []), given, None if heading in _UNREAD else known)
        sections += _section(heading, lines, mark)
    return sections


def _new_lines(paragraphs: list[Paragraph], given: set[str], known: Known | None) -> Iterator[str]:
    for paragraph in paragraphs:
        old = known is not None and known.has(paragraph.text, paragraph.pieces)
        line = paragraph.author if old else ": ".join(filter(None, (paragraph.author, paragraph.text)))
        if line and line not in given:
            given.add(line)
            yield _escaped(line)


def _section(heading: str, lines: Iterable[str], mark: str) -> list[str]:
    body = ("\n" if heading in _LINES else "\n\n").join(lines)
    return [f"{mark} {heading}\n\n{body}" if heading else body] if body else []


def _escaped(paragraph: str) -> str:
    """So that no line of it is taken for a heading or a fence."""
    return re.sub(r"^(?= {0,3}(?:#|=|-|```|~~~))", r"\\", paragraph, flags=re.M)


def _paths(package: Package, parts: list[str]) -> Iterator[str]:
    """Names and paths of the embedded files that have kept theirs."""
    left = MAX_NAMED_BYTES
    for part in parts:
        left -= package.size(part)
        try:
            found = carried(package, part) if left > 0 else None
        except Broken:
            continue  # a member that will be refused where it is read
        if found is not None and found.paths:
            yield from (_escaped(path) for path in dict.fromkeys((found.name, *found.paths)))
