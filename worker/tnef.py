"""What Outlook packs into winmail.dat (TNEF, MS-OXTNEF): the rich body, properties and attached files."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from worker.extracted import Extracted, Input, Member, Refused, flat, one_line
from worker.labelled import characters
from worker.rtfbody import body_of, codepage_label, decompressed
from worker.writing import unread

__all__ = ["read_tnef"]

_SUBJECT, _BODY, _CODE_PAGE, _PROPERTIES = 0x8004, 0x800C, 0x9007, 0x9003
_NEXT_FILE, _FILE_NAME, _FILE_DATA, _FILE_PROPERTIES = 0x9002, 0x8010, 0x800F, 0x9005
_SIGNATURE = b"\x78\x9f\x3e\x22"
#: Bytes of a value by its type; types that are not here have their length with them.
_FIXED = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_UNICODE, _MULTIPLE = 0x1F, 0x1000


def read_tnef(found: Input) -> Extracted:
    own: dict[int, bytes] = {}
    files: list[dict[int, bytes]] = []
    try:
        for kind, data in _attributes(found.data):
            if kind == _NEXT_FILE:
                files.append({})
            elif kind in (_FILE_NAME, _FILE_DATA, _FILE_PROPERTIES):
                files = files or [{}]
                files[-1][kind] = data
            else:
                own[kind] = data
        charset = codepage_label(int.from_bytes(own.get(_CODE_PAGE, b"")[:4], "little"))
        properties = dict(_properties(own.get(_PROPERTIES, b""), charset))
        members = tuple(_member(number, file, charset) for number, file in enumerate(files, 1))
    except (struct.error, IndexError) as error:
        raise Refused("damaged", "a damaged winmail.dat") from error
    subject = _text(properties.get(0x0037)) or _letters(own.get(_SUBJECT, b""), charset)
    plain = _text(properties.get(0x1000)) or _letters(own.get(_BODY, b""), charset)
    body, failed = body_of(plain, _text(properties.get(0x1013)), decompressed(_raw(properties.get(0x1009))))
    head = f"Subject: {' '.join(subject.split())}" if subject.strip() else ""
    text = "\n\n".join(part for part in (head, body) if part.strip())
    partial = unread(int(failed))
    metadata = flat({"subject": subject, "attachments": [member.name for member in members]})
    return Extracted(found.kind, text, 0, one_line(subject), metadata, (), False, partial, members)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What is cut short ends it."""
    at = 6
    while at + 9 <= len(data):
        kind, size = struct.unpack_from("<II", data, at + 1)
        yield kind & 0xFFFF, data[at + 9 : at + 9 + size]
        at += 9 + size + 2


def _properties(data: bytes, charset: str) -> Iterator[tuple[int, str | bytes]]:
    """Strings and binary values by property id."""
    at = 4
    while at + 4 <= len(data):
        kind, number = struct.unpack_from("<HH", data, at)
        at += 4
        if number >= 0x8000:
            at = _past_name(data, at)
        count = 1
        if kind & _MULTIPLE or (kind & 0xFFF) not in _FIXED:
            count, at = struct.unpack_from("<I", data, at)[0], at + 4
        for _ in range(min(count, len(data))):
            size = _FIXED.get(kind & 0xFFF, -1)
            if size < 0:
                size, at = struct.unpack_from("<I", data, at)[0], at + 4
            value = data[at : at + size]
            at += size + -size % 4
            if kind == _UNICODE:
                yield number, value.decode("utf-16-le", "replace")
            elif kind == 0x1E:
                yield number, _letters(value, charset)
            elif kind in (0x102, 0x0D):
                yield number, value


def _past_name(data: bytes, at: int) -> int:
    """Behind the GUID and the number or name of a named property."""
    is_name, size = struct.unpack_from("<II", data, at + 16)
    return at + 24 + (size + -size % 4 if is_name else 0)


def _member(number: int, file: dict[int, bytes], charset: str) -> Member:
    properties = dict(_properties(file.get(_FILE_PROPERTIES, b""), charset))
    names = (
        _text(properties.get(0x3707)),
        _letters(file.get(_FILE_NAME, b""), charset),
        _text(properties.get(0x3001)),
    )
    name = next((" ".join(one.split()) for one in names if one.strip()), "")
    data = file.get(_FILE_DATA) or _raw(properties.get(0x3701))
    if data[16:20] == _SIGNATURE:  # an item within the item, behind the name of its interface
        name, data = f"{name or 'message'}.dat", data[16:]
    return Member(name.replace("\\", "/").rpartition("/")[2] or f"attachment-{number}", lambda limit: data[:limit])


def _text(value: str | bytes | None) -> str:
    """A body in HTML is binary."""
    text = _letters(value, "") if isinstance(value, bytes) else value or ""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def _raw(value: str | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _letters(data: bytes, charset: str) -> str:
    return characters(data.rstrip(b"\0"), charset, "cp1252")
