"""Mails, saved web pages in MIME and mailboxes: head, body and attachments.

Own reader, since kreuzberg 4.10 loses the text of all parts but the first, mails within mails and decoded names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from itertools import islice, pairwise

from headwater.decode import Undecodable
from worker.alternatives import merged
from worker.endings import ending_of
from worker.extracted import Extracted, Input, Member, Refused, flat, one_line
from worker.mime import Part, header_text, mail_of, part_of, uuencoded
from worker.smime import signed_content
from worker.webpage import read_page
from worker.writing import unread

__all__ = ["read_emlx", "read_mail", "read_mbox", "read_saved_page"]

#: Multiparts and signatures within each other; what is deeper counts as unreadable.
MAX_DEPTH = 30
#: Addresses of one field that become metadata.
MAX_ADDRESSES = 200

#: Header fields that a reader sees above the body.
_SHOWN = ("Subject", "From", "To", "Cc", "Bcc", "Newsgroups", "Keywords", "Date")
_SIGNED_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_MESSAGES = ("message/rfc822", "message/global", "message/news")
_BODY_TYPES = ("text/plain", "text/html", "text/enriched", "text/richtext")
#: Parts that are for machines.
_UNSHOWN = (
    "application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature",
    "application/pgp-encrypted", "application/applefile",
)  # fmt: skip
#: What belongs to the looks of a saved page.
_LOOKS = re.compile(r"image/|font/|text/css|application/(?:x-)?(?:javascript|font)|text/javascript")
_EXTENSIONS = {"message/rfc822": ".eml", "text/calendar": ".ics", "text/vcard": ".vcf", "application/ms-tnef": ".dat"}
_EMLX_COUNT = re.compile(rb"[ \t]*(\d{1,10})[ \t]*\r?\n")


def read_mail(found: Input) -> Extracted:
    mail = mail_of(found.data)
    reading = _Reading()
    reading.read(mail)
    head = _head(mail, reading.names)
    whole = "\n\n".join(part for part in (head, reading.body()) if part)
    return Extracted(
        found.kind,
        whole + "\n" if whole else "",
        title=one_line(mail.text_of("subject")),
        metadata=_metadata(mail, reading.names),
        own_lines=False,
        partial=reading.partial(),
        members=tuple(reading.members),
    )


def read_saved_page(found: Input) -> Extracted:
    """A web page saved as MIME: its words without a head of a mail, and what is neither looks nor script."""
    page = mail_of(found.data)
    reading = _Reading()
    reading.read(page)
    members = [member for member, mime in zip(reading.members, reading.types, strict=True) if not _LOOKS.match(mime)]
    metadata = flat({"url": page.text_of("snapshot-content-location"), "created": _iso_date(page)})
    title = reading.page_title or one_line(page.text_of("subject"))
    return Extracted(
        found.kind,
        reading.body(),
        title=title,
        metadata=metadata,
        own_lines=False,
        partial=reading.partial(),
        members=tuple(members),
        markdown=True,
    )


def read_emlx(found: Input) -> Extracted:
    """Apple Mail: the number of bytes, the mail, a property list."""
    count = _EMLX_COUNT.match(found.data)
    if count is None:
        return read_mail(found)
    return read_mail(replace(found, data=found.data[count.end() : count.end() + int(count[1])]))


#: A line that begins a mail in a mailbox: an address, a date, and a header field below.
_MAILBOX_FROM = re.compile(rb"(?:\A|(?<=\n))From [^\r\n]{0,300}?\d\d:\d\d[^\r\n]{0,100}\r?\n(?=>?[!-9;-~]{1,76}:)")


def read_mbox(found: Input) -> Extracted:
    """A mailbox (RFC 4155): each mail in it is a member."""
    starts = [mark.start() for mark in _MAILBOX_FROM.finditer(found.data)]
    if len(starts) < 2:
        return read_mail(replace(found, kind="eml"))
    return Extracted(found.kind, "", own_lines=False, members=_mails(found.data, [*starts, len(found.data)]))


def _mails(data: bytes, borders: list[int]) -> Iterator[Member]:
    for number, (start, end) in enumerate(pairwise(borders), 1):
        yield _member(f"{number}.eml", _unquoted(data, start, end))


def _unquoted(data: bytes, start: int, end: int) -> bytes:
    """One mail without its mailbox line and the marks of lines that begin like one."""
    mail = data[data.index(b"\n", start) + 1 : end]
    return re.sub(rb"^>(>*From )", rb"\1", mail, flags=re.M)


# Parts ----------------------------------------------------------------------------------------------------


@dataclass
class _Reading:
    """What has been found in a mail so far, part by part in order."""

    texts: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    #: File names that the mail itself gives.
    names: list[str] = field(default_factory=list)
    page_title: str | None = None
    is_locked: bool = False
    failed: int = 0

    def body(self) -> str:
        return "\n\n".join(text for text in (text.strip("\n") for text in self.texts) if text.strip())

    def partial(self) -> str | None:
        if self.is_locked:
            return (
                "an encrypted part is not read"
                if self.body().strip()
                else "only its heads, for its content is encrypted"
            )
        return unread(self.failed)

    def read(self, part: Part, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            self.failed += 1
        elif part.type.startswith("multipart/"):
            self._read_multipart(part, depth)
        elif part.type in _SIGNED_TYPES or part.type == "application/x-pkcs7":
            self._read_signed(part, depth)
        elif part.type in _MESSAGES and depth == 0:  # an envelope around one mail
            inner = mail_of(part.content())
            self.texts.append(_head(inner, []))
            self.read(inner, 1)
        elif self._is_body(part):
            self._read_text(part)
        elif part.type not in _UNSHOWN:
            self._attach(part)

    def _read_multipart(self, part: Part, depth: int) -> None:
        parts = part.parts()
        if part.type == "multipart/encrypted":
            self.is_locked = True
        elif not parts:
            self._read_text(replace(part, fields={}))
        elif part.type == "multipart/alternative":
            self._read_alternatives(parts, depth)
        else:
            for child in parts:
                self.read(child, depth + 1)

    def _read_alternatives(self, parts: list[Part], depth: int) -> None:
        plain, rich = _Reading(), _Reading()
        for part in parts:
            side = plain if part.type in ("text/plain", "text/enriched", "text/richtext") else rich
            side.read(part, depth + 1)
        self.texts.append(merged(plain.body(), rich.body()))
        for side in (plain, rich):
            self._take(side)

    def _take(self, other: _Reading) -> None:
        self.members += other.members
        self.types += other.types
        self.names += other.names
        self.failed += other.failed
        self.is_locked |= other.is_locked
        self.page_title = self.page_title or other.page_title

    def _is_body(self, part: Part) -> bool:
        """Whether a reader sees the part's words in the mail itself, not as a file with it."""
        if part.is_attachment or (part.name and self.texts):
            return False
        if part.type.startswith("text/"):
            return part.type in _BODY_TYPES or ending_of(part.type) is None
        return part.type.startswith("message/") and part.type not in _MESSAGES

    def _read_text(self, part: Part) -> None:
        if part.type == "text/plain" and b"\nend" in part.body:
            body, files = uuencoded(part.body)
            for name, data in files:
                self._add(name.decode("utf-8", "replace"), data, "")
            part = replace(part, body=body)
        try:
            text = part.text()
        except Undecodable:
            self._attach(part)
            self.failed += 1
            return
        self.texts.append(self._plain(part, text))

    def _plain(self, part: Part, text: str) -> str:
        if part.type == "text/html":
            page = read_page(text)
            self.page_title = self.page_title or page.title
            return page.text
        if part.type in ("text/enriched", "text/richtext"):
            return re.sub(r"<[^<>]{0,200}>", "", text)
        if part.type == "text/plain" and part.parameter("format").lower() == "flowed":
            return _unflowed(text, part.parameter("delsp").lower() == "yes")
        return text

    def _read_signed(self, part: Part, depth: int) -> None:
        try:
            content = signed_content(part.content())
        except Refused as error:
            self.is_locked |= error.code == "encrypted"
            self.failed += error.code != "encrypted"
            return
        self.read(part_of(content), depth + 1)

    def _attach(self, part: Part) -> None:
        self._add(part.name, part.content(), part.type)

    def _add(self, name: str, data: bytes, mime: str) -> None:
        name = re.split(r"[/\\]", name)[-1].strip()
        if name:
            self.names.append(name)
        self.members.append(_member(name or _name_of_type(mime, len(self.members) + 1), data))
        self.types.append(mime)


def _member(name: str, data: bytes) -> Member:
    return Member(name, lambda limit: data[:limit])


def _name_of_type(mime: str, number: int) -> str:
    extension = _EXTENSIONS.get(mime) or ending_of(mime) or ".bin"
    return f"{'message' if extension == '.eml' else 'part'}-{number}{extension}"


def _unflowed(text: str, delete_space: bool) -> str:
    """Lines that end in a space go on in the next one (RFC 3676)."""
    lines: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip(">"))
        words = line[depth:].removeprefix(" ")
        flows = words.endswith(" ") and words != "-- "
        words = words[:-1] if flows and delete_space else words
        if depth == open_depth and words != "-- ":
            lines[-1] += words
        else:
            lines.append(">" * depth + " " * (depth > 0) + words)
        open_depth = depth if flows else -1
    return "\n".join(lines)


# Head -----------------------------------------------------------------------------------------------------


def _head(mail: Part, names: list[str]) -> str:
    lines = [(name, mail.text_of(name.lower())) for name in _SHOWN]
    if not mail.fields.get("date"):
        lines.append(("Sent", mail.text_of("sent")))
    lines.append(("Attachments", ", ".join(names)))
    return "\n".join(f"{name}: {' '.join(value.split())}" for name, value in lines if value.strip())


def _metadata(mail: Part, names: list[str]) -> dict[str, object]:
    return flat(
        {
            "from": ", ".join(_addresses(mail, "from")),
            "to": _addresses(mail, "to"),
            "cc": _addresses(mail, "cc"),
            "date": _iso_date(mail),
            "subject": " ".join(mail.text_of("subject").split()),
            "message_id": mail.text_of("message-id").strip()[:1000],
            "attachments": names,
        }
    )


#: One address of a list: commas may stand in quotes and comments. Possessive: hostile heads cost linear time.
_MAILBOX = re.compile(r"(?:\"(?:[^\"\\]|\\.)*+\"?|\([^()]*+\)?|[^,;\"(])++", re.S)
_NAMED = re.compile(r"([^<]*+)<([^<>]*+)>?|(\S++)\s++\(([^()]*+)\)?\s*+", re.S)


def _addresses(mail: Part, name: str) -> list[str]:
    """Each as `Name <address>`, or what stands there instead."""
    found = (_address(match[0]) for match in islice(_MAILBOX.finditer(mail.raw_of(name)), MAX_ADDRESSES))
    return [address for address in found if address]


def _address(source: str) -> str:
    named = _NAMED.match(source.strip())
    if named is None:
        return " ".join(header_text(source).split())[:1000]
    address = (named[2] if named[2] is not None else named[3]).strip()
    who = re.sub(r"\\(.)", r"\1", (named[1] or named[4] or "").strip().strip('"'))
    who = " ".join(header_text(who).split())
    return (f"{who} <{address}>" if who and address else who or address)[:1000]


def _iso_date(mail: Part) -> str | None:
    try:
        return parsedate_to_datetime(mail.text_of("date")).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
