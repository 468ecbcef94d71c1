"""The content of signed and time-stamped files (CMS, PKCS #7): a walk over their DER or BER elements."""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from worker.extracted import Extracted, Input, Refused

__all__ = ["read_signed", "signed_content"]

#: Signatures around signatures, and octet strings within octet strings.
MAX_DEPTH = 8
#: A compressed content beyond this many bytes is refused.
MAX_CONTENT_BYTES = 128 * 1024 * 1024

_RSA = bytes.fromhex("2a864886f70d01")
_DATA, _SIGNED = _RSA + b"\x07\x01", _RSA + b"\x07\x02"
#: Enveloped, signed and enveloped, encrypted, authenticated and enveloped.
_ENCRYPTED = (_RSA + b"\x07\x03", _RSA + b"\x07\x04", _RSA + b"\x07\x06", _RSA + b"\x09\x10\x01\x17")
_COMPRESSED, _STAMPED = _RSA + b"\x09\x10\x01\x09", _RSA + b"\x09\x10\x01\x1f"
_START = re.compile(rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x06[\x09\x0b]" + re.escape(_RSA), re.S)
_PEM = re.compile(rb"-----BEGIN [A-Z0-9 #]{1,40}-----(?:[^\n]{0,200}:[^\n]{0,200}\n)*+([A-Za-z0-9+/=\s]*+)")
_OID, _OCTETS, _OCTETS_BUILT, _SEQUENCE, _CONTEXT = 0x06, 0x04, 0x24, 0x30, 0xA0


def read_signed(found: Input) -> Extracted:
    """What is signed, read as the file that it is."""
    from worker.extract import read  # which finds this reader

    content = signed_content(found.data)
    if re.match(rb"(?:content-|mime-version:)", content, re.I):
        from worker.mail import read_mail

        return read_mail(replace(found, data=content, kind="eml", mime="message/rfc822"))
    name = re.sub(r"\.(?:p7m|p7s|p7b|p7c|tsd)$", "", found.name, flags=re.I)
    return replace(read(content, name, passwords=found.passwords), own_lines=False)


def signed_content(data: bytes) -> bytes:
    """The innermost content. Raises `Refused`."""
    data = _binary(data)
    try:
        for _ in range(MAX_DEPTH):
            data = _opened(data)
            if not _START.match(data):
                return data
    except (ValueError, IndexError, StopIteration, zlib.error) as error:
        raise Refused("damaged", "a damaged signed file") from error
    raise Refused("damaged", "too many signatures around each other")


def _binary(data: bytes) -> bytes:
    """The elements themselves: some files have them in Base64."""
    if data.startswith(b"\x30"):
        return data
    armoured = _PEM.search(data[: 1 << 16])
    start = armoured.start(1) if armoured else 0
    digits = re.sub(rb"\s+", b"", data[start:].partition(b"-----END")[0])
    try:
        return binascii.a2b_base64(digits)
    except binascii.Error as error:
        raise Refused("damaged", "a damaged signed file") from error


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    start: int
    #: None when the length is not given but an end mark follows.
    end: int | None


def _opened(data: bytes) -> bytes:
    """The content of one layer."""
    outer = _element(data, 0)
    parts = list(_children(data, outer))
    if outer.tag != _SEQUENCE or len(parts) < 2 or parts[0].tag != _OID:
        raise ValueError("no content information")
    kind = data[parts[0].start : parts[0].end]
    if kind in _ENCRYPTED:
        raise Refused("encrypted", "an encrypted message")
    body = next(_children(data, parts[1]))
    if kind == _DATA:
        return _octets(data, body)
    fields = list(_children(data, body))
    if kind == _STAMPED:
        return _content(data, [one for one in fields if one.tag in (_OCTETS, _OCTETS_BUILT)])
    sequences = [one for one in fields if one.tag == _SEQUENCE]
    if kind == _SIGNED:
        return _content(data, list(_children(data, sequences[0]))[1:])
    if kind == _COMPRESSED:
        return _inflated(_content(data, list(_children(data, sequences[1]))[1:]))
    raise Refused("unsupported", "this kind of signed file is not read")


def _content(data: bytes, found: list[_Element]) -> bytes:
    if not found:
        raise Refused("empty", "a signature or certificate without a document")
    first = found[0]
    if first.tag == _CONTEXT:
        first = next(_children(data, first))
    content = _octets(data, first)
    if not content:
        raise Refused("empty", "a signature or certificate without a document")
    return content


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, MAX_CONTENT_BYTES)
    if inflater.unconsumed_tail:
        raise Refused("too large", "more compressed content than is read")
    return content


def _octets(data: bytes, found: _Element, depth: int = 0) -> bytes:
    if found.tag in (_OCTETS_BUILT, _CONTEXT) and depth < MAX_DEPTH:
        return b"".join(_octets(data, child, depth + 1) for child in _children(data, found))
    return data[found.start : found.end]


def _element(data: bytes, at: int) -> _Element:
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise ValueError("a long tag")
    if length == 0x80:
        return _Element(tag, start, None)
    if length > 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + min(size, 8)], "big"), start + size
    if tag == _OCTETS and start + length > len(data):
        raise ValueError("content cut short")
    return _Element(tag, start, start + length)


def _children(data: bytes, parent: _Element) -> Iterator[_Element]:
    at, end = parent.start, len(data) if parent.end is None else min(parent.end, len(data))
    while at + 2 <= end and (parent.end is not None or data[at : at + 2] != b"\0\0"):
        child = _element(data, at)
        yield child
        at = child.end if child.end is not None else _end_mark(data, child.start)


def _end_mark(data: bytes, at: int) -> int:
    """Behind the end mark of an element without a length."""
    open_marks = 1
    while open_marks and at + 2 <= len(data):
        if data[at : at + 2] == b"\0\0":
            open_marks, at = open_marks - 1, at + 2
            continue
        inner = _element(data, at)
        open_marks += inner.end is None
        at = inner.start if inner.end is None else inner.end
    return at
