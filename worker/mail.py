"""Mail by RFC 5322 and MIME (RFC 2045 to 2049), read by the standard library's parser: heads, the text that a reader
would be shown, and what is attached."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Sequence
from email import message_from_bytes, policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime

from headwater.decode import Undecodable, decode
from worker.extracted import Extracted, Input, Member, Refused, flat, one_line
from worker.webpage import read_page

__all__ = ["read_mail", "read_mbox"]

#: heads that are shown above the text, in this order
_SHOWN = ("Subject", "From", "To", "Cc", "Date")
#: parts that are signatures and the like: nothing to read for people
_UNREAD = frozenset(
    (
        "application/pgp-signature",
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "message/delivery-status",
    )
)
#: parts of a mail that are looked at, however deep they nest
_MOST_PARTS = 2000
#: characters of one head
_MOST_HEAD = 10_000
#: what the plain and the rich form of a text may differ in
_NO_WORDS = re.compile(r"[\W_]+")
_FROM_LINE = re.compile(rb"^From [^\r\n]*\d{2}:\d{2}[^\r\n]*\r?\n", re.M)
_EMLX_LENGTH = re.compile(rb"\s{0,8}(\d{1,10})\s*\r?\n")


def read_mail(found: Input) -> Extracted:
    """The heads, then all parts of text in order; of alternatives the first, and what only others say."""
    mail = message_from_bytes(_bare(found.data), policy=policy.compat32)
    parts = _Parts(mail)
    heads = {name: value for name in _SHOWN if (value := _head(mail, name))}
    above = "\n".join(f"{name}: {value}" for name, value in heads.items())
    text = "\n\n".join(filter(None, (above, *parts.texts))) + "\n"
    if not heads and not parts.texts and not parts.members:
        raise Refused("empty", "no text in the document")
    partial = f"only the first {_MOST_PARTS} parts are read" if parts.cut else None
    if parts.is_encrypted:
        partial = "only its heads, for its content is encrypted"
    metadata = {**_metadata(mail), "attachments": parts.names}
    return Extracted(
        found.kind, text, 0, one_line(heads.get("Subject")), flat(metadata), (), False, partial, tuple(parts.members)
    )


def _bare(data: bytes) -> bytes:
    """The mail without what programs put before it: blank lines, the line of a mailbox, Apple Mail's length."""
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n\t ")
    if length := _EMLX_LENGTH.match(data):
        return data[length.end() : length.end() + int(length[1])]
    return data.partition(b"\n")[2] if data.startswith((b"From ", b">From ")) else data


def read_mbox(found: Input) -> Extracted:
    """A mailbox (RFC 4155): each mail in it is a member."""
    return Extracted(found.kind, "", own_lines=False, members=_mails(found.data))


def _mails(data: bytes) -> Iterator[Member]:
    starts = [match.start() for match in _FROM_LINE.finditer(data) if _after_blank(data, match.start())]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True), 1):
        mail = re.sub(rb"^>(>*From )", rb"\1", data[start:end].partition(b"\n")[2], flags=re.M)
        yield Member(f"{number}.eml", lambda most, mail=mail: mail[:most])  # type: ignore[misc]  # bound at once


def _after_blank(data: bytes, at: int) -> bool:
    return at == 0 or data[max(0, at - 2) : at] == b"\n\n" or data[max(0, at - 4) : at] == b"\r\n\r\n"


# -- heads ------------------------------------------------------------------------------------------------------


def _head(mail: Message, name: str) -> str:
    """A head in characters and on one line; several of a name one after the other."""
    return ", ".join(filter(None, (_decoded(value[:_MOST_HEAD]) for value in _raw(mail, name))))


def _raw(mail: Message, name: str) -> list[str]:
    """The heads of this name as they came, bytes that are not ASCII as surrogates."""
    return [str(value) for key, value in mail.raw_items() if key.lower() == name.lower()]


def _decoded(value: str) -> str:
    """Encoded words (RFC 2047) decoded; bytes that were there as they are, in whatever encoding, too."""
    raw = value.encode("utf-8", "surrogateescape")
    if b"=?" not in raw:
        return _one_line(_characters(raw))
    try:
        pieces = decode_header(_characters(raw))
    except (HeaderParseError, ValueError):  # a broken base64, say
        return _one_line(_characters(raw))
    return _one_line("".join(_characters(*piece) if isinstance(piece[0], bytes) else piece[0] for piece in pieces))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _metadata(mail: Message) -> dict[str, object]:
    fields: dict[str, object] = {"subject": _head(mail, "Subject"), "message_id": _head(mail, "Message-ID")}
    for name in ("From", "To", "Cc"):
        people = [_person(pair) for pair in _addresses(_raw(mail, name))]
        fields[name.lower()] = people[0] if name == "From" and people else people
    try:
        fields["date"] = parsedate_to_datetime(_head(mail, "Date")).isoformat()
    except (TypeError, ValueError, OverflowError):
        fields["date"] = None  # none, or one that is no date
    return fields


def _addresses(values: Sequence[str]) -> list[tuple[str, str]]:
    return getaddresses([_decoded(value[:_MOST_HEAD]) for value in values])


def _person(pair: tuple[str, str]) -> str:
    name, address = pair
    return f"{name} <{address}>" if name and address else name or address


# -- parts ------------------------------------------------------------------------------------------------------


class _Parts:
    """What a mail holds: texts to show, and members."""

    def __init__(self, mail: Message) -> None:
        self.texts: list[str] = []
        self.members: list[Member] = []
        self.names: list[str] = []
        self._seen = 0
        self.cut = False
        self.is_encrypted = False
        self._walk(mail)

    def _walk(self, top: Message) -> None:
        """Without recursion: mails nest as deep as their writer wants."""
        waiting = [(top, False)]
        while waiting:
            part, is_alternative = waiting.pop()
            self._seen += 1
            if self._seen > _MOST_PARTS:
                self.cut = True
                return
            self.is_encrypted |= part.get_content_type() == "multipart/encrypted"
            if part.get_content_maintype() == "multipart" and part.is_multipart():
                is_alternative |= part.get_content_type() == "multipart/alternative"
                waiting += [(inner, is_alternative) for inner in reversed(_inner(part))]
            else:
                self._leaf(part, is_alternative)

    def _leaf(self, part: Message, is_alternative: bool) -> None:
        if part.get_content_type() in _UNREAD:
            return
        if _is_shown(part, "text/plain") or _is_shown(part, "text/html") or _is_shown(part, "text/enriched"):
            text = _text(part)
            self.texts += filter(None, (self._new(text) if is_alternative else text,))
            return
        data = _bytes(part)
        name = _name(part, len(self.members) + 1)
        if part.get_filename():
            self.names.append(name)
        if data:
            self.members.append(Member(name, lambda most: data[:most]))

    def _new(self, text: str) -> str:
        """The lines of an alternative that what stands there already does not say: mostly none."""
        said = _words("\n".join(self.texts))
        return (
            "\n".join(line for line in text.split("\n") if (words := _words(line)) and words not in said)
            if said
            else text
        )


def _words(text: str) -> str:
    return _NO_WORDS.sub("", text).casefold()


def _inner(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [one for one in payload if isinstance(one, Message)] if isinstance(payload, list) else []


def _is_shown(part: Message, kind: str) -> bool:
    """Whether a part is text of this kind that stands in the mail itself."""
    return (
        part.get_content_type() == kind
        and not part.is_multipart()
        and part.get_content_disposition() != "attachment"
        and not part.get_filename()
    )


def _text(part: Message) -> str:
    data = _bytes(part)
    text = _characters(data, part.get_content_charset())
    if part.get_content_type() == "text/html":
        return read_page(text).text.strip()
    if str(part.get_param("format", "")).lower() == "flowed":
        text = _joined(text, keep_space=str(part.get_param("delsp", "")).lower() != "yes")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").strip("\n")


def _joined(text: str, *, keep_space: bool) -> str:
    """Lines that were broken for the way joined again (RFC 3676)."""
    end = " " if keep_space else ""
    return re.sub(r"(?<!^--) \r?\n(?!>|--)", end, text, flags=re.M)


def _bytes(part: Message) -> bytes:
    """A part's content, decoded; a mail within a mail as it stands there."""
    if part.is_multipart():
        return b"\n".join(one.as_bytes() for one in _inner(part))
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _characters(data: bytes, charset: str | None = None) -> str:
    """By the charset that is named, if the bytes are of it; else as a text file would be read."""
    try:
        if charset and not (charset == "us-ascii" and not data.isascii()) and charset != "unknown-8bit":
            return data.decode(charset)
    except (LookupError, UnicodeError, ValueError):
        pass  # a label that is wrong or that nobody knows
    try:
        return decode(data).text if data else ""
    except Undecodable:
        return data.decode("utf-8", "replace")


def _name(part: Message, number: int) -> str:
    """What the mail calls a part, else a name by its type."""
    given = part.get_filename()
    if given and (name := _decoded(given)):
        return name
    if part.get_content_maintype() == "message":
        return f"message-{number}.eml"
    return f"part-{number}{mimetypes.guess_extension(part.get_content_type()) or '.bin'}"
