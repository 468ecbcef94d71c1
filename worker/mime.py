"""The parts of an Internet message as bytes: header fields, boundaries and transfer encodings.

Own splitting, since the standard library writes a nested message anew instead of giving its bytes, and takes time
and stack for each level of nesting. Header words and parameters go through the library's functions.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property

from headwater.decode import Undecodable
from worker.labelled import labelled

__all__ = ["Part", "header_text", "mail_of", "part_of", "uuencoded"]

#: Longer header fields are cut; parameters need far less.
MAX_FIELD_BYTES = 64 * 1024
MAX_PARAMETER_BYTES = 8 * 1024
#: Fields of one name that are read.
MAX_REPEATED = 50
#: Parts of one multipart beyond this many stay one text.
MAX_PARTS = 10_000

#: One field with its folded lines. Possessive: hostile heads cost linear time.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:[ \t]*+([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)")
_FROM_LINE = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*+(?:>?From [^\n]*+\n)?")
_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_BOUNDARY_GUESS = re.compile(rb"^--([^\r\n]{1,70}?)[ \t]*\r?\ncontent-", re.I | re.M)
_BASE64_LINE = re.compile(rb"^[ \t]*+([A-Za-z0-9+/]++={0,2})[ \t\r]*+$", re.M)
_BASE64_PIECE = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n", re.M)
_UU_END = re.compile(rb"^end[ \t]*+\r?$", re.M)


@dataclass(frozen=True)
class Part:
    """One entity: its header fields, lower-case names first come first, and its body as transferred."""

    fields: dict[str, list[bytes]]
    body: bytes
    default_type: str = "text/plain"
    #: The whole entity, header and all.
    source: bytes = field(default=b"", repr=False)

    @cached_property
    def _parameters(self) -> Message:
        message = Message()
        for name in ("content-type", "content-disposition"):
            for value in self.fields.get(name, ())[:1]:
                message[name] = " ".join(_characters(value[:MAX_PARAMETER_BYTES]).split())
        return message

    @property
    def type(self) -> str:
        value = self.text_of("content-type").partition(";")[0].strip().lower()
        return value if re.fullmatch(r"[^\s/]+/[^\s/]+", value) else self.default_type

    @property
    def is_attachment(self) -> bool:
        return self.text_of("content-disposition").strip().lower().startswith("attachment")

    @property
    def encoding(self) -> str:
        return self.text_of("content-transfer-encoding").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        return self.parameter("charset")

    @property
    def name(self) -> str:
        """The file name, "" when it has none."""
        return " ".join((self.parameter("filename", "content-disposition") or self.parameter("name") or "").split())

    def parameter(self, name: str, header: str = "content-type") -> str:
        try:
            value = self._parameters.get_param(name, "", header)
        except Exception:  # the library's parser of parameters fails in many ways on hostile ones
            return ""
        if isinstance(value, tuple):  # RFC 2231
            return _characters(value[2].encode("latin-1", "replace"), value[0] or "")
        return header_text(value) if isinstance(value, str) else ""

    def text_of(self, name: str) -> str:
        """A header field in characters; those of people may stand more than once."""
        return header_text(self.raw_of(name))

    def raw_of(self, name: str) -> str:
        """A header field before its encoded words are decoded."""
        values = self.fields.get(name, [])
        return ", ".join(map(_characters, values[:1] if name.startswith("content-") else values[:MAX_REPEATED]))

    def content(self) -> bytes:
        """The body without its transfer encoding."""
        if self.encoding == "base64":
            return _base64(self.body)
        if self.encoding == "quoted-printable":
            return binascii.a2b_qp(self.body)
        if self.encoding in ("x-uuencode", "uuencode", "x-uue"):
            return b"".join(data for _, data in uuencoded(self.body)[1]) or self.body
        return self.body

    def text(self) -> str:
        """The characters of a text. Raises `Undecodable`."""
        data = self.content()
        if self.encoding == "base64":  # mailing lists add plain lines below
            data += b"".join(b"\n" + line for line in _not_base64(self.body))
        return labelled(data, self.charset).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")

    def parts(self) -> list[Part]:
        """The entities within a multipart; none when its boundary is nowhere in it."""
        boundary = self.parameter("boundary").encode("utf-8", "surrogateescape")
        guess = None if boundary and b"--" + boundary in self.body else _BOUNDARY_GUESS.search(self.body)
        boundary = guess[1] if guess else boundary
        digest = self.type == "multipart/digest"
        default = "message/rfc822" if digest else "text/plain"
        return [part_of(piece, default) for piece in _pieces(self.body, boundary)] if boundary else []


def part_of(data: bytes, default_type: str = "text/plain") -> Part:
    """Header and body at the first empty line, or where a line is no header field."""
    if b"\n" not in data[:MAX_FIELD_BYTES]:
        data = data.replace(b"\r", b"\n")
    fields: dict[str, list[bytes]] = {}
    at = 0
    while found := _FIELD.match(data, at):
        fields.setdefault(found[1].decode("ascii").lower(), []).append(found[2][:MAX_FIELD_BYTES].strip())
        at = found.end()
    blank = re.compile(rb"\r?\n").match(data, at)
    return Part(fields, data[blank.end() if blank else at :], default_type, data)


def mail_of(data: bytes) -> Part:
    """A whole mail: empty lines and a mailbox line may stand above the head."""
    start = _FROM_LINE.match(data)
    return part_of(data[start.end() :] if start and _FIELD.match(data, start.end()) else data)


def _pieces(body: bytes, boundary: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    start = -1
    for mark in re.compile(rb"^--" + re.escape(boundary) + rb"(--)?[ \t]*+\r?$", re.M).finditer(body):
        if len(pieces) >= MAX_PARTS - 1:
            break
        if start >= 0:
            pieces.append(body[start : mark.start()])
        start = -1 if mark[1] else mark.end() + 1
        if mark[1]:
            break
    if start >= 0:
        pieces.append(body[start:])
    return [_without_last_break(piece) for piece in pieces]


def _without_last_break(piece: bytes) -> bytes:
    """The line break before a boundary belongs to the boundary."""
    return piece.removesuffix(b"\n").removesuffix(b"\r") if piece.endswith(b"\n") else piece


def _base64(body: bytes) -> bytes:
    joined = b"".join(_BASE64_LINE.findall(body))
    return b"".join(_base64_piece(piece) for piece in _BASE64_PIECE.findall(joined))


def _base64_piece(piece: bytes) -> bytes:
    digits = piece.rstrip(b"=")
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _not_base64(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    return [line for line in lines if line.strip() and not _BASE64_LINE.fullmatch(line)]


def uuencoded(body: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body without its uuencoded files, and these as (name, bytes)."""
    files: list[tuple[bytes, bytes]] = []
    kept, at, search = [], 0, 0
    while (begin := _UU_BEGIN.search(body, search)) and (end := _UU_END.search(body, begin.end() - 1)):
        data = _uu_lines(body[begin.end() : end.start()])
        search = end.end()
        if data:
            files.append((begin[1].strip(), data))
            kept.append(body[at : begin.start()])
            at = search
    return b"".join(kept) + body[at:], files


def _uu_lines(lines: bytes) -> bytes:
    """The decoded lines, empty when one is broken: then it is prose that happens to begin so."""
    decoded = []
    for line in lines.split(b"\n"):
        line = line.rstrip(b"\r")
        try:
            decoded.append(binascii.a2b_uu(line) if line else b"")
        except binascii.Error:  # some encoders write a length that is too short
            decoded.append(_uu_tolerant(line))
            if not decoded[-1]:
                return b""
    return b"".join(decoded)


def _uu_tolerant(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line[: 1 + ((line[0] - 32 & 63) * 4 + 5) // 3])
    except binascii.Error:
        return b""


def header_text(value: str) -> str:
    """A header field with its encoded words decoded, on one line."""
    value = re.sub(r"\r?\n[ \t]*", " ", value)
    out: list[str] = []
    at, open_charset, open_bytes = 0, "", b""
    for word in _WORD.finditer(value):
        between = value[at : word.start()]
        charset = word[1].partition("*")[0].lower()
        if (between.strip() or charset != open_charset) and open_charset:
            out.append(_characters(open_bytes, open_charset))
            open_bytes = b""
        if between.strip() or not open_charset:
            out.append(between)
        open_charset, open_bytes, at = charset, open_bytes + _word_bytes(word[2], word[3]), word.end()
    out.append(_characters(open_bytes, open_charset) if open_charset else "")
    return "".join(out) + value[at:]


def _word_bytes(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if encoding in "bB":
        return b"".join(_base64_piece(piece) for piece in _BASE64_PIECE.findall(data))
    return binascii.a2b_qp(data, header=True)


def _characters(data: bytes, charset: str = "") -> str:
    try:
        return labelled(data, charset)
    except Undecodable:
        return data.decode("latin-1") if not charset else data.decode("utf-8", "replace")
