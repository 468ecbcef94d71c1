"""Pages, Numbers and Keynote documents since 2013: what the text storages and the tables of their archives say.

Own code: kreuzberg 4.10 gives no text of them. Apple does not document the format; the numbers of types and fields are
those that its programs write.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta

from worker.extracted import Extracted, Input, Refused, one_line
from worker.iwa import Message, objects
from worker.writing import joined, table_lines, unread

__all__ = ["read_iwork13"]

#: All archives of a document together are read up to this many bytes.
MAX_BYTES = 256 << 20
_ARCHIVE = re.compile(r"(?:.*/)?Index/(.+)\.iwa")
#: What new slides are made of, and styles.
_UNREAD = re.compile(r"(?:MasterSlide|TemplateSlide|DocumentStylesheet|ThemeStylesheet|ViewState|CalculationEngine).*")
_SHEET, _SHOW, _SLIDE_NODE = 2, 2, 4
_STORAGES, _COMMENT, _TABLE_INFO, _TABLE = (2001, 2005), 3056, 6000, 6001
#: Kinds of text storages.
_HEADER, _FOOTNOTE, _NOTE, _CELL = 1, 2, 4, 5
_EPOCH = datetime(2001, 1, 1)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error)


def read_iwork13(found: Input) -> Extracted:
    document = _Document(found.kind)
    try:
        with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
            document.read(archive)
    except RuntimeError as error:
        raise Refused("encrypted", "protected by a password") from error
    except _BROKEN as error:
        raise Refused("damaged", f"a damaged {found.kind} document") from error
    return document.extracted()


class _Document:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._broken = 0
        self._left = MAX_BYTES
        #: By archive the objects in it, by identifier an object.
        self._parts: dict[str, list[int]] = {}
        self._objects: dict[int, tuple[int, bytes]] = {}
        self._furniture: list[str] = []
        self._notes: list[str] = []

    def read(self, archive: zipfile.ZipFile) -> None:
        inner = next((name for name in archive.namelist() if name.endswith("Index.zip")), None)
        if inner is not None:
            with zipfile.ZipFile(io.BytesIO(self._bytes(archive, inner))) as index:
                self._archives(index)
        self._archives(archive)

    def _archives(self, archive: zipfile.ZipFile) -> None:
        for name in archive.namelist():
            part = _ARCHIVE.fullmatch(name)
            if part is None or _UNREAD.fullmatch(part[1]):
                continue
            data = self._bytes(archive, name)
            members = self._parts.setdefault(part[1], [])
            try:
                for found in objects(data):
                    self._left -= len(found.data)
                    self._objects.setdefault(found.identifier, (found.kind, found.data))
                    members.append(found.identifier)
            except ValueError:
                self._broken += 1

    def _bytes(self, archive: zipfile.ZipFile, name: str) -> bytes:
        with archive.open(name) as file:
            data = file.read(max(self._left, 0))
        self._left -= len(data)
        self._broken += self._left <= 0
        return data

    def extracted(self) -> Extracted:
        blocks, pages = list[str](), list[int]()
        for start, block in self._all_blocks():
            pages += [len(blocks)] if start else []
            blocks += [block] if block else []
        blocks += self._notes
        furniture = list(dict.fromkeys(self._furniture))
        blocks += ["## Headers and footers", *furniture] if furniture else []
        if self._broken and not blocks:
            raise Refused("damaged", f"a damaged {self._kind} document")
        text, starts = joined(blocks, pages)
        title = one_line(blocks[0].removeprefix("## ")) if self._kind == "keynote" and blocks else None
        partial = unread(self._broken)
        return Extracted(self._kind, text, 0, title, {}, starts, False, partial)

    def _all_blocks(self) -> Iterator[tuple[bool, str]]:
        """Whether a page starts, and the words; sheets and slides in their order, and then what else there is."""
        seen = set[int]()
        for part in self._slides() if self._kind == "keynote" else ():
            yield True, ""
            for identifier in self._parts[part]:
                seen.add(identifier)
                yield from ((False, block) for block in self._blocks(identifier))
        sheets = [data for kind, data in self._objects.values() if kind == _SHEET] if self._kind == "numbers" else []
        for data in sheets:
            yield from self._sheet(data, seen)
        for identifier in list(self._objects):
            if identifier not in seen and identifier in self._objects:
                yield from ((False, block) for block in self._blocks(identifier))

    def _blocks(self, identifier: int) -> list[str]:
        kind, data = self._objects[identifier]
        try:
            if kind in _STORAGES:
                return self._storage(Message(data))
            if kind == _COMMENT:
                text = _clean(Message(data).text(1))
                return [f"Comment: {text}"] if text else []
            if kind == _TABLE:
                return self._table(Message(data))
        except (ValueError, struct.error):
            self._broken += 1
        return []

    def _storage(self, storage: Message) -> list[str]:
        text = _clean("".join(piece.decode("utf-8", "replace") for piece in storage.all_bytes(3)))
        kind = storage.number(1)
        if not text or kind == _CELL:  # the cells of a table say it in their order
            return []
        if kind in (_HEADER, _FOOTNOTE):
            (self._furniture if kind == _HEADER else self._notes).append(text)
            return []
        return ["Notes:", text] if kind == _NOTE else [text]

    # Slides and sheets

    def _slides(self) -> list[str]:
        """The archives of the slides, in the order of the show."""
        home = {identifier: part for part, members in self._parts.items() for identifier in members}
        ordered: list[str] = []
        try:
            shows = [Message(data) for kind, data in self._objects.values() if kind == _SHOW]
            nodes = [node for show in shows for tree in show.messages(3) for node in tree.references(2)]
            for kind, data in (self._objects.get(node, (0, b"")) for node in nodes):
                slides = Message(data).references(2) if kind == _SLIDE_NODE else []
                ordered += [home[slide] for slide in slides if slide in home]
        except ValueError:
            self._broken += 1
        return [part for part in dict.fromkeys(ordered) if part.startswith("Slide")]

    def _sheet(self, data: bytes, seen: set[int]) -> Iterator[tuple[bool, str]]:
        try:
            sheet = Message(data)
            name, drawables = sheet.text(1), sheet.references(2)
        except ValueError:
            self._broken += 1
            return
        yield True, f"## {' '.join(name.split())}"
        for identifier in drawables:
            kind, info = self._objects.get(identifier, (0, b""))
            for table in Message(info).references(2) if kind == _TABLE_INFO else ():
                if table in self._objects and table not in seen:
                    seen.add(table)
                    yield from ((False, block) for block in self._blocks(table))

    # Tables

    def _table(self, table: Message) -> list[str]:
        store = Message(table.bytes(4))
        strings = self._strings(store.references(4))
        rich = self._rich(store.references(17))
        tiles = [tile for tiles in store.messages(3) for one in tiles.messages(1) for tile in one.references(2)]
        rows: list[list[str]] = []
        for tile in tiles:
            _, data = self._objects.pop(tile, (0, b""))  # no two tables have the same one
            for row in Message(data).messages(5):
                cells = list(_cells(row, strings, rich))
                rows += [cells] if any(cells) else []
        lines = list(table_lines(rows))
        name = " ".join(table.text(8).split())
        return [f"### {name}", *lines] if name and lines else lines

    def _strings(self, lists: list[int]) -> dict[int, str]:
        return {entry.number(1): _clean(entry.text(3)) for entry in self._entries(lists)}

    def _rich(self, lists: list[int]) -> dict[int, str]:
        """Cells with formatted text: a payload refers to a storage."""
        found: dict[int, str] = {}
        for entry in self._entries(lists):
            for payload in entry.references(9):
                for storage in self._message(payload).references(1):
                    found[entry.number(1)] = _clean(self._message(storage).text(3))
        return found

    def _entries(self, lists: list[int]) -> list[Message]:
        """The entries of lists of values; no two tables have the same one."""
        data = [self._objects.pop(one, (0, b""))[1] for one in lists]
        return [entry for one in data for entry in Message(one).messages(3)]

    def _message(self, identifier: int) -> Message:
        return Message(self._objects.get(identifier, (0, b""))[1])


def _cells(row: Message, strings: dict[int, str], rich: dict[int, str]) -> Iterator[str]:
    """The cells of a row up to its last one, empty where there is none."""
    buffer, offsets = row.bytes(6), row.bytes(7)
    wide = 4 if row.number(8) else 1
    places = [place for (place,) in struct.iter_unpack("<h", offsets[: len(offsets) // 2 * 2])]
    while places and places[-1] < 0:
        places.pop()
    for place in places:
        cell = buffer[place * wide : place * wide + 64] if place >= 0 else b""
        text = _cell(cell, strings, rich) if len(cell) >= 12 and cell[0] == 5 else ""
        yield " ".join(text.split())


def _cell(cell: bytes, strings: dict[int, str], rich: dict[int, str]) -> str:
    flags, at = int.from_bytes(cell[8:12], "little"), 12
    values: list[bytes] = []
    for bit, size in enumerate((16, 8, 8, 4, 4)):
        values.append(cell[at : at + size] if flags >> bit & 1 else b"")
        at += size if flags >> bit & 1 else 0
    decimal, double, seconds, string, payload = values
    if string:
        return strings.get(int.from_bytes(string, "little"), "")
    if payload:
        return rich.get(int.from_bytes(payload, "little"), "")
    if len(seconds) == 8:
        try:
            return (_EPOCH + timedelta(seconds=struct.unpack("<d", seconds)[0])).isoformat().removesuffix("T00:00:00")
        except (OverflowError, ValueError):
            return ""
    if len(double) == 8:
        return {0.0: "false", 1.0: "true"}.get(struct.unpack("<d", double)[0], "") if cell[1] == 6 else _decimal(double)
    return _decimal(decimal)


def _decimal(value: bytes) -> str:
    """A double, or a decimal of 128 bits whose exponent stands in its upper bits."""
    if len(value) == 8:
        number = float(struct.unpack("<d", value)[0])
    elif len(value) == 16:
        exponent = ((value[15] & 0x7F) << 7 | value[14] >> 1) - 0x1820
        mantissa = (value[14] & 1) << 112 | int.from_bytes(value[:14], "little")
        if abs(exponent) > 300:
            return ""
        number = float(mantissa) * 10.0**exponent if exponent > 0 else float(mantissa) / 10.0**-exponent
        number = -number if value[15] & 0x80 else number
    else:
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _clean(text: str) -> str:
    """Line ends of all kinds as such, without the places of what is anchored."""
    text = re.sub("[\r\u2028\u2029\x0b\x0c\x04\x05]", "\n", text)
    text = re.sub("[\x00-\x08\x0e-\x1f\ufffc]", "", text)
    return "\n".join(line.strip() for line in text.strip().split("\n"))
