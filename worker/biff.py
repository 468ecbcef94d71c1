"""The records of an Excel workbook of before 2007 ([MS-XLS], and the versions before it), and the cells in them.

The library takes the numbers that a chart remembers for cells of its sheet, and knows no workbook before version 5."""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.package import Broken

__all__ = ["BOF", "CONTINUE", "Letters", "Protected", "Sheet", "is_bare", "read_sheets", "records", "version_of"]

CONTINUE = 0x3C
_EOF = 0x0A
BOF = {0x0009: 2, 0x0209: 3, 0x0409: 4, 0x0809: 5}
_BIFF8 = 0x0600
_CODE_PAGE, _DATE_MODE, _SHEET, _STRINGS, _ENCRYPTION = 0x42, 0x22, 0x85, 0xFC, 0x2F
_FORMATS = (0x1E, 0x41E)
_STYLES = (0x43, 0x243, 0x443, 0xE0)
_CHART, _MACROS = 0x20, 0x06
_FORMULAS, _TEXT_RESULTS = (0x06, 0x206, 0x406), (0x07, 0x207)
_ERRORS = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}
#: numbers of built-in formats of dates and times
_DATES = frozenset((*range(14, 23), *range(27, 37), 45, 46, 47, *range(50, 59)))
_NOT_CODE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]')
#: columns that a sheet can have
_MOST_COLUMNS = 256
#: characters of all cells that are put together
_MOST_CHARS = 64_000_000
#: days up to the end of the year 9999, from either day that workbooks count from
_LAST_DAY = 2_957_000


class Protected(Exception):
    """The workbook is encrypted."""


@dataclass(slots=True)
class Sheet:
    name: str
    #: row -> column -> what the cell shows
    rows: dict[int, dict[int, str]] = field(default_factory=dict)


def records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each record stands, its type and what is in it."""
    at = 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        yield at, kind, data[at + 4 : at + 4 + size]
        at += 4 + size


def version_of(kind: int, body: bytes) -> int:
    version = BOF[kind]
    return 8 if version == 5 and body[:2] == _BIFF8.to_bytes(2, "little") else version


def is_bare(data: bytes) -> bool:
    """Whether a workbook of version 2, 3 or 4 begins here, which has no container."""
    kind, size, _, what = struct.unpack_from("<HHHH", data) if len(data) >= 8 else (0, 0, 0, 0)
    return kind in BOF and kind != 0x0809 and size in (4, 6) and what in (0x10, 0x20, 0x40, 0x100)


class Letters:
    """Strings as the version of a workbook writes them."""

    def __init__(self) -> None:
        self.version = 8
        self.encoding = "cp1252"

    def set_page(self, body: bytes) -> None:
        page = int.from_bytes(body[:2], "little")
        name = {0x8000: "mac_roman", 0x8001: "cp1252", 1200: "cp1252"}.get(page, f"cp{page}")
        try:
            self.encoding = codecs.lookup(name).name
        except LookupError:
            self.encoding = "cp1252"

    def counted(self, body: bytes, at: int, size: int) -> str:
        """A string behind its length of `size` bytes."""
        count = int.from_bytes(body[at : at + size], "little")
        at += size
        if self.version < 8:
            return body[at : at + count].decode(self.encoding, "replace")
        return characters(body[at + 1 :], body[at] if at < len(body) else 0, count)


def characters(data: bytes, flags: int, count: int) -> str:
    return data[: 2 * count].decode("utf-16-le", "replace") if flags & 1 else data[:count].decode("latin-1")


def shared_strings(parts: list[bytes]) -> list[str]:
    """The strings that cells share: a record and those that continue it, each with its own width of letters."""
    reader = _Parts(parts)
    reader.take(4)
    count = int.from_bytes(reader.take(4), "little")
    strings: list[str] = []
    while len(strings) < count and not reader.ended():
        length, flags = struct.unpack("<HB", reader.take(3))
        runs = int.from_bytes(reader.take(2), "little") if flags & 8 else 0
        more = int.from_bytes(reader.take(4), "little") if flags & 4 else 0
        strings.append(reader.letters(length, flags))
        reader.skip(4 * runs + more)
    return strings


class _Parts:
    """Bytes that are spread over records."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._part = self._at = 0

    def ended(self) -> bool:
        while self._part < len(self._parts) and self._at >= len(self._parts[self._part]):
            self._part, self._at = self._part + 1, 0
        return self._part >= len(self._parts)

    def take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            if self.ended():
                raise Broken("a damaged workbook")
            piece = self._parts[self._part][self._at : self._at + count - len(taken)]
            taken += piece
            self._at += len(piece)
        return taken

    def skip(self, count: int) -> None:
        while count > 0 and not self.ended():
            step = min(count, len(self._parts[self._part]) - self._at)
            self._at += step
            count -= step

    def letters(self, count: int, flags: int) -> str:
        text: list[str] = []
        while count > 0:
            if self._part < len(self._parts) and self._at >= len(self._parts[self._part]):
                flags = self.take(1)[0]  # what continues a string says anew how wide its letters are
            if self.ended():
                raise Broken("a damaged workbook")
            width = 2 if flags & 1 else 1
            step = min(count, (len(self._parts[self._part]) - self._at) // width) or 1
            text.append(characters(self.take(step * width), flags, step))
            count -= step
        return "".join(text)


def read_sheets(data: bytes) -> list[Sheet]:
    """The sheets of a workbook, hidden ones too, in their order. Raises Broken and Protected."""
    if len(data) < 8 or int.from_bytes(data[:2], "little") not in BOF:
        raise Broken("no workbook")
    try:
        return _Cells(data).sheets
    except (struct.error, IndexError) as error:
        raise Broken("a damaged workbook") from error


class _Cells:
    def __init__(self, data: bytes) -> None:
        self.sheets: list[Sheet] = []
        self._letters = Letters()
        self._strings: list[str] = []
        self._named: dict[int, Sheet] = {}
        self._dates: set[int] = set(_DATES)
        self._styles: list[int] = []
        self._formats = 0
        self._epoch = datetime(1899, 12, 30)
        self._waiting: tuple[int, int] | None = None
        self._sheet: Sheet | None = None
        self._size = 0
        self._walk(data)

    def _walk(self, data: bytes) -> None:
        depth = 0
        shared: list[bytes] = []
        previous = 0
        for at, kind, body in records(data):
            if previous == _STRINGS and kind != CONTINUE:
                self._strings, previous = shared_strings(shared), 0
            if kind in BOF and len(body) >= 4:
                depth += 1
                self._begin(at, kind, body, depth)
            elif kind == _EOF:
                depth = max(0, depth - 1)
            elif kind == _STRINGS or (kind == CONTINUE and previous == _STRINGS):
                shared.append(body)
                previous = _STRINGS
            elif kind == _ENCRYPTION:
                raise Protected
            elif depth < 2 or self._letters.version == 4:
                self._general(kind, body)
                if self._sheet is not None and self._size < _MOST_CHARS:
                    self._cell(kind, body)

    def _begin(self, at: int, kind: int, body: bytes, depth: int) -> None:
        self._letters.version = version_of(kind, body)
        what = int.from_bytes(body[2:4], "little")
        if depth > 1 and self._letters.version > 4:
            return  # a chart on a sheet, with numbers that are no cells of it
        self._sheet = self._named.get(at)
        if self._sheet is None and what in (0x10, 0x40):
            self._sheet = Sheet(f"Sheet{len(self.sheets) + 1}")
            self.sheets.append(self._sheet)
        if what not in (0x10, 0x40):
            self._sheet = None

    def _general(self, kind: int, body: bytes) -> None:
        if kind == _CODE_PAGE:
            self._letters.set_page(body)
        elif kind == _DATE_MODE and body[:1] == b"\1":
            self._epoch = datetime(1904, 1, 1)
        elif kind == _SHEET and len(body) > 6 and body[5] != _MACROS:
            sheet = Sheet(self._letters.counted(body, 6, 1))
            self._named[int.from_bytes(body[:4], "little")] = sheet
            self.sheets.append(sheet)
        elif kind in _FORMATS:
            self._format(body)
        elif kind in _STYLES and len(body) >= 4:
            old = {2: body[2] & 0x3F, 3: body[1], 4: body[1]}
            self._styles.append(old.get(self._letters.version, int.from_bytes(body[2:4], "little")))

    def _format(self, body: bytes) -> None:
        version = self._letters.version
        number = self._formats if version < 5 else int.from_bytes(body[:2], "little")
        self._formats += 1
        at, size = {8: (2, 2), 5: (2, 1), 4: (2, 1)}.get(version, (0, 1))
        code = _NOT_CODE.sub("", self._letters.counted(body, at, size)).lower()
        if re.search("[dmyhs]", code) and "general" not in code:
            self._dates.add(number)
        else:
            self._dates.discard(number)

    def _cell(self, kind: int, body: bytes) -> None:
        if kind in _TEXT_RESULTS:
            if self._waiting is not None:
                self._put(*self._waiting, self._letters.counted(body, 0, 1 if self._letters.version == 2 else 2))
            self._waiting = None
            return
        if len(body) < 7:
            return
        row, column, style = struct.unpack_from("<HHH", body)
        old = self._letters.version == 2
        start = 7 if old else 6
        if old:
            style = body[4] & 0x3F
        if kind == 0xBD:  # many numbers side by side
            for index in range((len(body) - 6) // 6):
                style, packed = struct.unpack_from("<HI", body, 4 + 6 * index)
                self._put(row, column + index, self._number(_unpacked(packed), style))
        elif kind in _FORMULAS:
            self._formula(row, column, style, body[start : start + 8])
        elif (shown := self._shown(kind, style, body, start)) is not None:
            self._put(row, column, shown)

    def _shown(self, kind: int, style: int, body: bytes, start: int) -> str | None:
        if kind == 0xFD:
            index = struct.unpack_from("<I", body, start)[0]
            return self._strings[index] if index < len(self._strings) else None
        if kind in (0x04, 0x204, 0xD6):
            return self._letters.counted(body, start, 1 if self._letters.version == 2 else 2)
        if kind in (0x03, 0x203):
            return self._number(struct.unpack_from("<d", body, start)[0], style)
        if kind == 0x27E:
            return self._number(_unpacked(struct.unpack_from("<I", body, start)[0]), style)
        if kind == 0x02 and self._letters.version == 2:
            return self._number(struct.unpack_from("<H", body, start)[0], style)
        if kind in (0x05, 0x205):
            return _truth(body[start], len(body) > start + 1 and body[start + 1])
        return None

    def _formula(self, row: int, column: int, style: int, result: bytes) -> None:
        self._waiting = (row, column) if result[:1] == b"\0" and result[6:] == b"\xff\xff" else None
        if result[6:] != b"\xff\xff":
            self._put(row, column, self._number(struct.unpack("<d", result)[0], style))
        elif result[0] in (1, 2):
            self._put(row, column, _truth(result[2], result[0] == 2))

    def _number(self, value: float, style: int) -> str:
        if (self._styles[style] if style < len(self._styles) else 0) in self._dates and 0 <= value < _LAST_DAY:
            return self._moment(value)
        return format(value, ".15g")

    def _moment(self, value: float) -> str:
        moment = self._epoch + timedelta(seconds=round(value * 86400))
        if value < 1:
            return moment.time().isoformat()
        return moment.date().isoformat() if value == int(value) else moment.isoformat(" ")

    def _put(self, row: int, column: int, text: str) -> None:
        words = " ".join(text.split())
        if words and column < _MOST_COLUMNS and self._sheet is not None:
            self._sheet.rows.setdefault(row, {})[column] = words
            self._size += len(words)


def _unpacked(packed: int) -> float:
    """A number in four bytes: a whole one or the upper half of a broken one, in hundredths if it says so."""
    if packed & 2:
        value: float = struct.unpack("<i", struct.pack("<I", packed))[0] >> 2
    else:
        value = struct.unpack("<d", struct.pack("<Q", (packed & 0xFFFFFFFC) << 32))[0]
    return value / 100 if packed & 1 else value


def _truth(value: int, error: object) -> str:
    return _ERRORS.get(value, "#ERROR") if error else "TRUE" if value else "FALSE"
