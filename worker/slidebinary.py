"""A presentation of before 2007 ([MS-PPT]): its slides in their order, and what stands beside them: notes, comments,
the master's words, headers and footers, links."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from worker.embedded import Carried, unpacked
from worker.officeart import shape_words
from worker.olestreams import Streams, inflated
from worker.package import Broken

__all__ = ["Deck", "Slide", "objects_of", "read_deck"]

_STREAM = "PowerPoint Document"
_CHARACTERS, _BYTES, _STRING, _KIND_OF_TEXT = 0x0FA0, 0x0FA8, 0x0FBA, 0x0F9F
_DOCUMENT, _SLIDE, _MASTER, _NOTES, _HANDOUT = 0x03E8, 0x03EE, 0x03F8, 0x03F0, 0x0FC9
_HEADERS, _COMMENT, _LINK, _OBJECT = 0x0FD9, 0x2EE0, 0x0FD7, 0x1011
#: a list of slides with their outline, what begins a slide in it, and what names the slide that notes are of
_LIST, _LISTED, _NOTES_OF = 0x0FF0, 0x03F3, 0x03F1
#: holds records, although it does not say so
_TAGS = 0x138B
_SHAPE, _PLACEHOLDER = 0xF004, 0x0BC3
_EDIT, _PLACES = 0x0FF5, 0x1772
_TITLES = (0, 6)
#: places on a master or layout that only prompt: titles, bodies and subtitles
_PROMPTS = range(1, 7)
_PARTS = (_DOCUMENT, _SLIDE, _MASTER, _NOTES, _HANDOUT)
#: a field for the number, the date or the footer, not what it shows
_FIELD = re.compile(r"[*\s]*")
_MOST_OBJECTS = 1000
_MOST_OBJECT_BYTES = 64 << 20
_MOST_DEPTH = 100
#: times that a presentation was saved on top of itself
_MOST_EDITS = 10_000
#: bytes of all parts, for each of the stream: parts of an honest one do not overlap
_MOST_OVERLAP = 4


@dataclass(slots=True)
class Slide:
    #: a title is marked as a heading
    paragraphs: list[str] = field(default_factory=list)
    #: paragraphs by the heading of what they are: notes, comments
    beside: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Deck(Slide):
    slides: list[Slide] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Record:
    #: types of the containers that it is in, from the outside
    path: tuple[int, ...]
    head: int
    kind: int
    body: bytes
    #: where the shape begins that it is in, 0 in none
    shape: int


def read_deck(streams: Streams) -> Deck:
    """Raises Broken."""
    data = streams.read(_STREAM)
    try:
        return _Reader(data, _places(data, streams.read("Current User"))).deck
    except (struct.error, IndexError) as error:
        raise Broken("a damaged presentation") from error


# -- which parts there are ----------------------------------------------------------------------------------------


def _places(data: bytes, user: bytes) -> dict[int, int]:
    """Where the parts stand that are still in use, by their numbers: what was saved before is left in the file."""
    places: dict[int, int] = {}
    at = int.from_bytes(user[16:20], "little")
    seen: set[int] = set()
    while 0 < at <= len(data) - 28 and at not in seen and len(seen) < _MOST_EDITS:
        seen.add(at)
        if _kind(data, at) != _EDIT:
            break
        at, directory = struct.unpack_from("<II", data, at + 16)
        for number, place in _directory(data, directory):
            places.setdefault(number, place)
    return places


def _kind(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 2 : at + 4], "little")


def _directory(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    if _kind(data, at) != _PLACES:
        return
    end = min(at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), len(data))
    at += 8
    while at + 4 <= end:
        run = struct.unpack_from("<I", data, at)[0]
        at += 4
        for index in range(min(run >> 20, (end - at) // 4)):
            yield (run & 0xFFFFF) + index, struct.unpack_from("<I", data, at + 4 * index)[0]
        at += 4 * (run >> 20)


def _siblings(data: bytes) -> Iterator[int]:
    """Where the outermost records begin."""
    at = 0
    while at + 8 <= len(data):
        yield at
        at += 8 + struct.unpack_from("<I", data, at + 4)[0]


def _records(data: bytes, start: int, end: int) -> Iterator[_Record]:
    """Records that hold no others."""
    at, shape = start, 0
    path: list[int] = []
    ends: list[int] = []
    while at + 8 <= end:
        while ends and at >= ends[-1]:
            ends.pop()
            path.pop()
        head, kind, size = struct.unpack_from("<HHI", data, at)
        if kind == _SHAPE:
            shape = at
        at += 8
        if head & 0xF == 0xF or kind == _TAGS:
            path.append(kind)
            ends.append(at + size)
            if len(path) > _MOST_DEPTH:
                raise Broken("records nested without an end")
        else:
            yield _Record(tuple(path), head, kind, data[at : at + size], shape if _SHAPE in path else 0)
            at += size


# -- what they say ------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, data: bytes, places: dict[int, int]) -> None:
        self.deck = Deck()
        self._data = data
        self._by_number: dict[int, Slide] = {}
        self._left = _MOST_OVERLAP * len(data)
        used = [at for at in dict.fromkeys(places.values()) if _kind(data, at) in _PARTS]
        known = any(_kind(data, at) == _DOCUMENT for at in used)
        parts = used if known else [at for at in _siblings(data) if _kind(data, at) in _PARTS]
        if not parts:
            raise Broken("no presentation")
        slides = self._document(parts, places if known else {})
        for at in parts:
            if _kind(data, at) == _SLIDE:
                self._slide(at, slides.pop(at, None))
        for at in parts:
            if _kind(data, at) in (_MASTER, _NOTES, _HANDOUT):
                self._beside(at)

    def _part(self, at: int) -> Iterator[_Record]:
        size = int.from_bytes(self._data[at + 4 : at + 8], "little")
        end = min(at + 8 + size, len(self._data))
        self._left -= end - at
        if self._left < 0:
            raise Broken("parts within each other")
        return _records(self._data, at, end)

    def _document(self, parts: list[int], places: dict[int, int]) -> dict[int, Slide]:
        """Begin the slides in their order, with what the outline has of them; where each begins."""
        slides: dict[int, Slide] = {}
        for at in parts:
            if _kind(self._data, at) != _DOCUMENT:
                continue
            slide: Slide | None = None
            title = False
            for record in self._part(at):
                if record.kind == _LISTED and _LIST in record.path and len(record.body) >= 16:
                    slide = self._listed(record.body, places, slides)
                elif record.kind == _KIND_OF_TEXT:
                    title = _is_title(record.body)
                elif record.kind in (_CHARACTERS, _BYTES) and slide is not None and _LIST in record.path:
                    _add(slide.paragraphs, record, title)
                else:
                    self._around(record)
        return slides

    def _listed(self, body: bytes, places: dict[int, int], slides: dict[int, Slide]) -> Slide | None:
        place, number = places.get(struct.unpack_from("<I", body)[0], -1), struct.unpack_from("<I", body, 12)[0]
        if place < 0 or _kind(self._data, place) != _SLIDE or place in slides:
            return None
        slide = self._by_number[number] = slides[place] = Slide()
        self.deck.slides.append(slide)
        return slide

    def _slide(self, at: int, slide: Slide | None) -> None:
        if slide is None:
            slide = Slide()
            self.deck.slides.append(slide)
        title = False
        comment: list[str] = []
        for record in self._part(at):
            if record.kind == _KIND_OF_TEXT:
                title = _is_title(record.body)
            elif record.kind in (_CHARACTERS, _BYTES):
                _add(slide.paragraphs, record, title)
            elif record.kind == _STRING and _COMMENT in record.path:
                _add(comment, record)
            else:
                self._around(record, slide)
        if comment:
            slide.beside["Comments"] = comment

    def _beside(self, at: int) -> None:
        """Notes, and masters of slides, notes and handouts, where a part that is to be filled in only prompts."""
        slide: Slide = self.deck
        words: list[str] = []
        prompt = -1
        for record in self._part(at):
            if record.kind == _NOTES_OF and len(record.body) >= 4:
                slide = self._by_number.get(struct.unpack_from("<I", record.body)[0], self.deck)
            elif record.kind == _PLACEHOLDER and len(record.body) > 4 and record.body[4] in _PROMPTS:
                prompt = record.shape
            elif record.kind in (_CHARACTERS, _BYTES) and (slide is not self.deck or record.shape != prompt):
                _add(words, record)
            else:
                self._around(record)
        if slide is not self.deck:
            slide.beside.setdefault("Notes", []).extend(words)
        else:
            self.deck.beside.setdefault("Slide master", []).extend(words)

    def _around(self, record: _Record, slide: Slide | None = None) -> None:
        """What may stand in any part."""
        beside = self.deck.beside
        if record.kind == _STRING and _HEADERS in record.path:
            _add(beside.setdefault("Headers and footers", []), record)
        elif record.kind == _STRING and _LINK in record.path and record.head >> 4 == 1:
            _add(beside.setdefault("Links", []), record)
        for heading, words in shape_words(record.kind, record.head, record.body):
            (slide or self.deck).beside.setdefault(heading, []).append(" ".join(words.split()))


def _is_title(body: bytes) -> bool:
    return int.from_bytes(body[:4], "little") in _TITLES


def _add(paragraphs: list[str], record: _Record, title: bool = False) -> None:
    text = record.body.decode("latin-1" if record.kind == _BYTES else "utf-16-le", "replace")
    for line in re.split("[\r\n]+", text):
        words = " ".join(line.replace("\x0b", " ").replace("\0", "").split())
        if not _FIELD.fullmatch(words):
            plain = f"\\{words}" if words.startswith("#") else words
            paragraphs.append(f"## {words}" if title else plain)


# -- files within -------------------------------------------------------------------------------------------------


def objects_of(streams: Streams) -> list[Carried]:
    """The files that embedded objects are, each a container of its own."""
    found: list[Carried] = []
    left = _MOST_OBJECT_BYTES
    data = streams.read(_STREAM)
    for at in _siblings(data):
        if _kind(data, at) != _OBJECT or len(found) >= _MOST_OBJECTS or left <= 0:
            continue
        body = data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]
        try:
            plain = inflated(body[4:], left) if data[at] >> 4 else body
            left -= len(plain)
            file = unpacked(plain, f"object-{len(found) + 1}.bin")
        except Broken:
            file = Carried(f"object-{len(found) + 1}.bin", (), b"")
        if file is not None:
            found.append(file)
    return found
