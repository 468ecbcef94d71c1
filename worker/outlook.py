"""Outlook items (.msg): mails, appointments, contacts and tasks, by the properties of MS-OXMSG.

Own reader, since kreuzberg 4.10 loses bodies that are only in RTF, names of code pages and mails within mails.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from worker.extracted import Extracted, Input, Member, Refused, flat, one_line
from worker.labelled import characters
from worker.ole import opened
from worker.rtfbody import body_of, codepage_label, decompressed
from worker.smime import signed_content
from worker.writing import unread

if TYPE_CHECKING:
    from olefile import OleFileIO

__all__ = ["read_item"]

#: Items within items; deeper ones count as unreadable.
MAX_DEPTH = 8
MAX_RECIPIENTS = 2000
MAX_ATTACHMENTS = 5000
#: All streams together, as a multiple of the file: each one is in it once.
MAX_READ_FACTOR = 4

_NAMES = "__nameid_version1.0"
_PROPERTIES = "__properties_version1.0"
_STRING, _ANSI, _BINARY = "001F", "001E", "0102"
#: Where the entries of the fixed properties start: at the top, in an item within an item, elsewhere.
_HEAD_BYTES = {"top": 32, "item": 24, "part": 8}
_TIME = 0x0040

#: Lines of the head by property id; ids above 0xFFFF are named ones: 0x10000 plus their number.
_NAMED = 0x10000
_FIELDS = (
    ("Start", (_NAMED + 0x820D, 0x0060)), ("End", (_NAMED + 0x820E, 0x0061)), ("Location", (_NAMED + 0x8208,)),
    ("Due", (_NAMED + 0x8105,)), ("Recurrence", (_NAMED + 0x8232,)),
    ("Name", (0x3A45, 0x3A06, 0x3A11)), ("Company", (0x3A16,)), ("Department", (0x3A18,)), ("Job title", (0x3A17,)),
    ("Business phone", (0x3A08,)), ("Home phone", (0x3A09,)), ("Mobile phone", (0x3A1C,)), ("Fax", (0x3A24,)),
    ("E-mail", (_NAMED + 0x8083,)), ("E-mail 2", (_NAMED + 0x8093,)), ("E-mail 3", (_NAMED + 0x80A3,)),
    ("Business address", (_NAMED + 0x801B,)), ("Home address", (_NAMED + 0x801A,)),
    ("Web page", (0x3A51, _NAMED + 0x802B)), ("Birthday", (0x3A42,)),
)  # fmt: skip


def read_item(found: Input) -> Extracted:
    try:
        ole = opened(found.data)
        reading = _Reading(ole, MAX_READ_FACTOR * len(found.data))
        item = _Storage(reading, (), "top")
        text = reading.text_of(item)
        metadata, title = _metadata(item, reading.names), one_line(item.text(0x0037))
    except (Refused, MemoryError):
        raise
    except Exception as error:  # olefile meets hostile containers with errors of every kind
        raise Refused("damaged", "a damaged Outlook item") from error
    partial = unread(reading.failed)
    return Extracted(
        found.kind, text, title=title, metadata=metadata, own_lines=False, partial=partial, members=reading.members
    )


@dataclass
class _Storage:
    """The properties of one item, recipient or attachment."""

    reading: _Reading
    path: tuple[str, ...]
    level: str

    def stream(self, name: str) -> bytes | None:
        return self.reading.stream((*self.path, name))

    @cached_property
    def fixed(self) -> dict[int, tuple[int, bytes]]:
        """Numbers and times by property id, as (type, eight bytes)."""
        data = (self.stream(_PROPERTIES) or b"")[_HEAD_BYTES[self.level] :]
        entries = (struct.unpack_from("<HHI8s", data, at) for at in range(0, len(data) - 15, 16))
        return {number: (kind, value) for kind, number, _, value in entries}

    @property
    def has_content(self) -> bool:
        """Whether an attachment has bytes of its own."""
        return tuple(part.upper() for part in (*self.path, "__substg1.0_37010102")) in self.reading.streams

    def number(self, identifier: int) -> int:
        return int.from_bytes(self.fixed.get(identifier, (0, b""))[1][:4], "little")

    def text(self, identifier: int) -> str:
        """A string property, or a time as ISO 8601; "" when there is none."""
        identifier = self.reading.identifier(identifier)
        wide = self.stream(f"__substg1.0_{identifier:04X}{_STRING}")
        if wide is not None:
            return _clean(wide.decode("utf-16-le", "replace"))
        narrow = self.stream(f"__substg1.0_{identifier:04X}{_ANSI}")
        if narrow is not None:
            return _clean(characters(narrow.rstrip(b"\0"), self.reading.charset, "cp1252"))
        kind, value = self.fixed.get(identifier, (0, b""))
        return _iso_time(int.from_bytes(value, "little")) if kind == _TIME else ""

    def binary(self, identifier: int) -> bytes:
        return self.stream(f"__substg1.0_{identifier:04X}{_BINARY}") or b""

    def within(self, prefix: str) -> list[tuple[str, ...]]:
        """Paths of the storages in this one whose names begin so."""
        names = self.reading.children.get(self.path, [])
        return [(*self.path, name) for name in names if name.startswith(prefix)]


@dataclass
class _Reading:
    """One file: what of it has been read so far, and what was found."""

    ole: OleFileIO
    budget_bytes: int
    members: list[Member] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    failed: int = 0

    @cached_property
    def children(self) -> dict[tuple[str, ...], list[str]]:
        """Names of storages by the path of the one that they are in."""
        found: dict[tuple[str, ...], list[str]] = {}
        for path in self.ole.listdir(streams=False, storages=True):
            found.setdefault(tuple(path[:-1]), []).append(path[-1])
        return found

    @cached_property
    def streams(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """The names of streams are compared without case."""
        return {tuple(part.upper() for part in path): tuple(path) for path in self.ole.listdir()}

    @cached_property
    def charset(self) -> str:
        """Of strings that are not Unicode, for the whole file."""
        top = _Storage(self, (), "top")
        return codepage_label(top.number(0x3FFD) or top.number(0x3FDE))

    @cached_property
    def _named(self) -> dict[int, int]:
        """Property ids by the numbers of named properties."""
        data = self.stream((_NAMES, "__substg1.0_00030102")) or b""
        entries = (struct.unpack_from("<IHH", data, at) for at in range(0, len(data) - 7, 8))
        return {number: 0x8000 + index for number, kind, index in entries if not kind & 1}

    def identifier(self, identifier: int) -> int:
        return self._named.get(identifier - _NAMED, 0) if identifier >= _NAMED else identifier

    def stream(self, path: tuple[str, ...], limit: int = -1) -> bytes | None:
        stored = self.streams.get(tuple(part.upper() for part in path))
        if stored is None:
            return None
        self.budget_bytes -= self.ole.get_size(list(stored))
        if self.budget_bytes < 0:
            raise Refused("damaged", "a damaged Outlook item")
        data: bytes = self.ole.openstream(list(stored)).read(limit)
        return data

    def text_of(self, item: _Storage, depth: int = 0, prefix: str = "") -> str:
        """Head, body and the items within; attached files become members."""
        body = self._body(item)
        attached, is_locked, names_before = [], False, len(self.names)
        for path in item.within("__attach_version1.0_#")[:MAX_ATTACHMENTS]:
            part = _Storage(self, path, "part")
            name = _file_name(part)
            if "__substg1.0_3701000D" in self.children.get(path, ()):
                attached.append(self._item_within(part, depth, prefix))
            elif not name and not part.has_content:
                continue
            else:
                is_locked |= _is_locked(item, part)
                self._attach(part, name, prefix)
        if is_locked and not body.strip():
            raise Refused("encrypted", "an encrypted mail")
        head = _head(item, self.names[names_before:])
        return "\n\n".join(part for part in (head, body, *attached) if part.strip())

    def _item_within(self, part: _Storage, depth: int, prefix: str) -> str:
        item = _Storage(self, (*part.path, "__substg1.0_3701000D"), "item")
        if item.stream(_PROPERTIES) is None:  # an OLE object
            return ""
        if depth >= MAX_DEPTH:
            self.failed += 1
            return ""
        name = _file_name(part) or one_line(item.text(0x0037)) or "message"
        return f"Attached: {name}\n\n{self.text_of(item, depth + 1, f'{prefix}{_base(name)}/')}"

    def _attach(self, part: _Storage, name: str, prefix: str) -> None:
        if name:
            self.names.append(name)
        path = (*part.path, "__substg1.0_37010102")

        def read(limit: int) -> bytes:
            try:
                return self.ole.openstream(list(path)).read(limit)  # type: ignore[no-any-return]
            except MemoryError:
                raise
            except Exception as error:  # as in `read_item`
                raise Refused("damaged", "a damaged attachment") from error

        if part.has_content:
            self.members.append(Member(prefix + (name or f"attachment-{len(self.members) + 1}"), read))

    def _body(self, item: _Storage) -> str:
        data = item.binary(0x1013)
        charset = codepage_label(item.number(0x3FDE))
        page = characters(data.rstrip(b"\0"), charset, "cp1252") if data else item.text(0x1013)
        body, failed = body_of(item.text(0x1000), page, decompressed(item.binary(0x1009)))
        self.failed += failed
        return body


def _is_locked(item: _Storage, part: _Storage) -> bool:
    if part.text(0x370E).lower() == "application/pgp-encrypted":
        return True
    kind = item.text(0x001A).upper()
    if not kind.startswith("IPM.NOTE.SMIME") or "MULTIPARTSIGNED" in kind:
        return False
    try:
        signed_content(part.binary(0x3701))
    except Refused as error:
        return error.code == "encrypted"
    return False


def _file_name(part: _Storage) -> str:
    name = part.text(0x3707) or part.text(0x3704) or part.text(0x3001)
    return _base(" ".join(name.split()))


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1].strip()


# Head -----------------------------------------------------------------------------------------------------


def _head(item: _Storage, names: list[str]) -> str:
    people = _recipients(item)
    lines = [
        ("Subject", item.text(0x0037)),
        ("From", _sender(item)),
        *((label, "; ".join(people[label])) for label in ("To", "Cc", "Bcc")),
        ("Date", _date(item)),
        *((label, next(filter(None, map(item.text, ids)), "")) for label, ids in _FIELDS),
        ("Attachments", ", ".join(names)),
    ]
    return "\n".join(f"{label}: {' '.join(value.split())}" for label, value in lines if value.strip())


def _metadata(item: _Storage, names: list[str]) -> dict[str, object]:
    people = _recipients(item)
    return flat(
        {
            "from": _sender(item),
            "to": people["To"][:200],
            "cc": people["Cc"][:200],
            "date": _date(item),
            "subject": " ".join(item.text(0x0037).split()),
            "message_id": item.text(0x1035)[:1000],
            "attachments": names,
        }
    )


def _date(item: _Storage) -> str:
    return next(filter(None, map(item.text, (0x0039, 0x0E06, 0x3007))), "")


def _sender(item: _Storage) -> str:
    name = item.text(0x0C1A) or item.text(0x0042)
    return _person(name, (item.text(one) for one in (0x5D01, 0x0C1F, 0x5D02, 0x0065)))


def _recipients(item: _Storage) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"To": [], "Cc": [], "Bcc": []}
    for path in item.within("__recip_version1.0_#")[:MAX_RECIPIENTS]:
        one = _Storage(item.reading, path, "part")
        label = {2: "Cc", 3: "Bcc"}.get(one.number(0x0C15) & 15, "To")
        found[label].append(_person(one.text(0x3001), (one.text(at) for at in (0x39FE, 0x3003))))
    for label, display in (("To", 0x0E04), ("Cc", 0x0E03), ("Bcc", 0x0E02)):
        found[label] = [person for person in found[label] if person] or [item.text(display)] * bool(item.text(display))
    return found


def _person(name: str, addresses: Iterator[str]) -> str:
    """`Name <address>`; addresses within a mail server, which nobody knows, are left out."""
    address = next((one.strip() for one in addresses if "@" in one), "")
    name = " ".join(name.split())
    return f"{name} <{address}>" if name and address and address not in name else name or address


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x00").replace("\x00", "")


def _iso_time(ticks: int) -> str:
    """From units of 100 ns since 1601; the year 4501 stands for none."""
    try:
        moment = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return ""
    return moment.isoformat(timespec="seconds") if ticks and moment.year < 4000 else ""
