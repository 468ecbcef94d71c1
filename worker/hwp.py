"""Hangul Word Processor documents: version 5 in its OLE2 container, and HWPX in a ZIP. Own code: kreuzberg 4.10
lists both and gives no text of them.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worker.extracted import Extracted, Input, Refused, flat, one_line
from worker.ole import opened
from worker.package import Broken
from worker.writing import joined, table_lines, unread
from worker.xmlevents import read_xml

__all__ = ["read_hwp", "read_hwpx"]

#: A section is unpacked up to this many bytes.
MAX_SECTION_BYTES = 256 << 20
_PIECE_BYTES = 1 << 16
#: Record tags.
_DISTRIBUTED, _PARA_TEXT, _CTRL_HEADER, _LIST_HEADER, _EQUATION = 28, 67, 71, 72, 88
#: Controls whose text stands apart, and how it is told from the rest.
_HEADERS = ("head", "foot", "header", "footer")
_LABELS = {"fn": "[note] ", "en": "[note] ", "tcmt": "Comment: "}
_LABELS |= {"footNote": "[note] ", "endNote": "[note] ", "hiddenComment": "Comment: "}
#: Control characters that take one place in the text; each other takes eight.
_SHORT = {0: "", 10: "\n", 13: "\n", 24: "-", 25: "", 26: "", 27: "", 28: "", 29: "", 30: " ", 31: " "}
_CONTROL = re.compile("[\x00-\x1f]")
_FIELDS = {2: "title", 3: "subject", 4: "author", 5: "keywords", 6: "description", 12: "created", 13: "modified"}


@dataclass(slots=True)
class _Part:
    """What is open: the body, a header, a note, a table; `level` is where it began."""

    name: str
    level: int = -1
    blocks: list[str] = field(default_factory=list)
    #: of a table the cells by row; `blocks` are those of the open cell
    rows: dict[int, list[str]] = field(default_factory=dict)
    row: int = 0

    def end_cell(self) -> None:
        if self.blocks:
            self.rows.setdefault(self.row, []).append(" ".join(" ".join(self.blocks).split()))
        self.blocks = []


class _Text:
    """Collects blocks of nested parts."""

    def __init__(self) -> None:
        self.furniture: list[str] = []
        self.parts = [_Part("")]

    def open(self, name: str, level: int) -> None:
        self.parts.append(_Part(name, level))

    def close(self, level: int) -> None:
        """End all parts that began at this level or deeper."""
        while len(self.parts) > 1 and self.parts[-1].level >= level:
            self._close_one()

    def _close_one(self) -> None:
        part = self.parts.pop()
        blocks = part.blocks
        if part.name == "tbl":
            part.end_cell()
            blocks = list(table_lines(part.rows.values()))
        if part.name in _HEADERS:
            self.furniture += blocks
        elif blocks:
            self.parts[-1].blocks += [_LABELS.get(part.name, "") + blocks[0], *blocks[1:]]

    def add(self, text: str) -> None:
        text = "\n".join(" ".join(line.split()) for line in text.strip().split("\n"))
        self.parts[-1].blocks += [text] if text else []

    def blocks(self) -> list[str]:
        self.close(0)
        furniture = list(dict.fromkeys(self.furniture))
        return [*self.parts[0].blocks, *(["## Headers and footers", *furniture] if furniture else [])]


def _document(kind: str, text: _Text, fields: Mapping[str, object], broken: int) -> Extracted:
    blocks = text.blocks()
    if broken and not blocks:
        raise Refused("damaged", f"a damaged {kind} document")
    named = [f"- {key.title()}: {fields[key]}" for key in ("subject", "description", "keywords") if fields.get(key)]
    content, _ = joined([*blocks, *(["## Properties", *named] if named else [])])
    partial = unread(broken)
    rest = {key: value for key, value in fields.items() if key != "title"}
    return Extracted(kind, content, 0, one_line(str(fields.get("title") or "")), flat(rest), (), False, partial)


# Version 5


def read_hwp(found: Input) -> Extracted:
    try:
        ole = opened(found.data)
        head = ole.openstream("FileHeader").read(40)
    except (
        Broken,
        OSError,
        ValueError,
        IndexError,
        struct.error,
    ) as error:  # what olefile raises for broken containers
        raise Refused("damaged", "a damaged hwp document") from error
    if not head.startswith(b"HWP Document File"):
        raise Refused("unsupported", "this OLE container is not read")
    flags = int.from_bytes(head[36:40], "little")
    if flags & 0x12:  # a password, or digital rights management
        raise Refused("encrypted", "protected by a password")
    folder = "ViewText" if flags & 4 else "BodyText"
    text, broken = _Text(), 0
    for name in _sections(ole, folder):
        try:
            _read_records(_records(_section(ole, name, flags)), text)
        except (OSError, ValueError, IndexError, zlib.error, struct.error):
            broken += 1
    return _document("hwp", text, _summary(ole), broken)


def _sections(ole: Any, folder: str) -> list[str]:
    numbers = [
        path[1][7:] for path in ole.listdir() if len(path) == 2 and path[0] == folder and path[1][:7] == "Section"
    ]
    return [f"{folder}/Section{number}" for number in sorted((n for n in numbers if n.isdecimal()), key=int)]


def _section(ole: Any, name: str, flags: int) -> bytes:
    data: bytes = ole.openstream(name).read()
    if flags & 4:
        data = _undistributed(data)
    return zlib.decompressobj(-15).decompress(data, MAX_SECTION_BYTES) if flags & 1 else data


def _undistributed(data: bytes) -> bytes:
    """A document for reading only hides its sections behind a key that stands in their first record."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    head = int.from_bytes(data[:4], "little")
    if head & 0x3FF != _DISTRIBUTED or len(data) < 260:
        raise ValueError("no key")
    hidden, state = bytearray(data[4:260]), int.from_bytes(data[4:8], "little")
    offset, left, mask = 4 + (state & 0xF), 0, 0
    for at in range(256):
        if not left:
            state = (state * 214013 + 2531011) & 0xFFFFFFFF
            mask = state >> 16 & 0xFF
            state = (state * 214013 + 2531011) & 0xFFFFFFFF
            left = (state >> 16 & 0xF) + 1
        hidden[at] ^= mask if at >= 4 else 0
        left -= 1
    body = data[260:]
    cipher = Cipher(AES(bytes(hidden[offset : offset + 16])), ECB()).decryptor()  # noqa: S305 - as the format has it
    return cipher.update(body[: len(body) // 16 * 16])


def _records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Tag, level and content of each record."""
    at = 0
    while at + 4 <= len(data):
        head = int.from_bytes(data[at : at + 4], "little")
        size = head >> 20
        at += 4
        if size == 0xFFF:
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4
        if at + size > len(data):
            raise ValueError("a record beyond the end")
        yield head & 0x3FF, head >> 10 & 0x3FF, data[at : at + size]
        at += size


def _read_records(records: Iterable[tuple[int, int, bytes]], text: _Text) -> None:
    for tag, level, content in records:
        if tag == _CTRL_HEADER:
            text.close(level)
            text.open(content[3::-1].decode("latin-1").strip(), level)
        elif tag == _LIST_HEADER and text.parts[-1].name == "tbl" and len(content) >= 12:
            text.close(level + 1)
            text.parts[-1].end_cell()
            text.parts[-1].row = int.from_bytes(content[10:12], "little")
        elif tag == _PARA_TEXT:
            text.close(level)
            text.add(_characters(content.decode("utf-16-le", "replace")))
        elif tag == _EQUATION and len(content) > 6:
            text.add(content[6 : 6 + 2 * int.from_bytes(content[4:6], "little")].decode("utf-16-le", "replace"))
    text.close(0)


def _characters(source: str) -> str:
    """The text without its controls. A character beyond 0xFFFF is two places, but stands in no control."""
    kept, at = [], 0
    while control := _CONTROL.search(source, at):
        kept.append(source[at : control.start()])
        code = ord(control[0])
        kept.append(_SHORT.get(code, " " if code == 9 else ""))
        at = control.end() if code in _SHORT else control.start() + 8
    return "".join(kept) + source[at:]


def _summary(ole: Any) -> dict[str, object]:
    try:
        values = ole.getproperties("\x05HwpSummaryInformation", convert_time=True)
    except Exception:  # a document is not worse for a broken summary, and olefile raises all kinds of errors for it
        return {}
    fields: dict[str, object] = {}
    for number, name in _FIELDS.items():
        value = values.get(number)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            value = " ".join(value.partition("\0")[0].split())  # olefile reads two bytes for each that there is
        if value and isinstance(value, str | datetime):
            fields[name] = value if isinstance(value, str) else value.isoformat()
    return fields


# HWPX


def read_hwpx(found: Input) -> Extracted:
    body, fields, broken = _Body(), _Properties(), 0
    try:
        with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(r"Contents/section\d{1,6}\.xml", name)]
            for name in sorted(names, key=lambda name: int(name[16:-4])):
                broken += not _read_part(archive, name, body)
            if "Contents/content.hpf" in archive.namelist():
                broken += not _read_part(archive, "Contents/content.hpf", fields)
            encrypted = b"encryption-data" in _manifest(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error) as error:
        raise Refused("damaged", "a damaged hwpx document") from error
    if encrypted:
        raise Refused("encrypted", "protected by a password")
    return _document("hwpx", body.text, fields.found, broken)


def _manifest(archive: zipfile.ZipFile) -> bytes:
    if "META-INF/manifest.xml" not in archive.namelist():
        return b""
    with archive.open("META-INF/manifest.xml") as file:
        return file.read(1 << 20)


def _read_part(archive: zipfile.ZipFile, name: str, handler: _Body | _Properties) -> bool:
    def pieces() -> Iterator[bytes]:
        limit = MAX_SECTION_BYTES
        with archive.open(name) as file:
            while limit > 0 and (piece := file.read(_PIECE_BYTES)):
                limit -= len(piece)
                yield piece

    return read_xml(pieces(), handler, lambda namespace, local: local)


class _Body:
    def __init__(self) -> None:
        self.text = _Text()
        self._depth = 0
        self._lines: list[list[str]] = []
        self._words = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if name == "p":
            self._lines.append([])
        elif name == "tbl" or name in _HEADERS or name in _LABELS:
            self.text.open(name, self._depth)
        elif name == "tr" and self.text.parts[-1].name == "tbl":
            self.text.parts[-1].row += 1
        elif name in ("t", "script"):
            self._words += 1
        elif name in ("lineBreak", "tab", "nbSpace", "fwSpace"):
            self.words("\n" if name == "lineBreak" else " ")

    def end(self, name: str) -> None:
        if name == "p" and self._lines:
            self.text.add("".join(self._lines.pop()))
        elif name == "tc" and self.text.parts[-1].name == "tbl":
            self.text.parts[-1].end_cell()
        elif name in ("t", "script"):
            self._words -= 1
        self.text.close(self._depth)
        self._depth -= 1

    def words(self, text: str) -> None:
        if self._words and self._lines:
            self._lines[-1].append(text)


class _Properties:
    def __init__(self) -> None:
        self.found: dict[str, object] = {}
        self._key = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        key = attributes.get("name", "") if name == "meta" else name
        renamed = {"creator": "author", "CreatedDate": "created", "ModifiedDate": "modified", "keyword": "keywords"}
        self._key = renamed.get(key, key if key in ("title", "subject", "description", "language") else "")

    def end(self, name: str) -> None:
        self._key = ""

    def words(self, text: str) -> None:
        if self._key and text.strip():
            self.found.setdefault(self._key, text.strip())
