"""Signed files: the content comes out, by whatever lengths it is told."""

from __future__ import annotations

import base64
import random
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import Refused, extract
from worker.smime import signed_content

OID = bytes.fromhex("2a864886f70d01")


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def ber(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(parts) + b"\0\0"


def signed(content: bytes, build=der) -> bytes:
    octets = build(0x24, *(der(4, content[at : at + 50]) for at in range(0, len(content), 50)))
    inner = build(0x30, der(6, OID + b"\x07\x01"), build(0xA0, octets))
    return build(0x30, der(6, OID + b"\x07\x02"), build(0xA0, build(0x30, der(2, b"\1"), build(0x31), inner)))


@pytest.mark.parametrize("build", [der, ber])
def test_the_content_of_a_signed_file_is_read_as_what_it_is(build) -> None:
    read = extract(signed(b"# A title\n\n" + b"words " * 50, build), "notes.md.p7m")
    assert (read.kind, read.title, read.own_lines) == ("markdown", "A title", False)
    assert read.text.count("words") == 50


def test_base64_and_signatures_within_signatures_are_opened() -> None:
    assert signed_content(base64.encodebytes(signed(signed(b"words")))) == b"words"
    armoured = b"-----BEGIN PKCS7-----\n" + base64.encodebytes(signed(b"words")) + b"-----END PKCS7-----\n"
    assert extract(armoured, "a.txt.p7m").text == "words"


def test_compressed_content_is_inflated() -> None:
    octets = der(4, zlib.compress(b"words"))
    inner = der(0x30, der(6, OID + b"\x07\x01"), der(0xA0, octets))
    fields = der(0x30, der(2, b"\0"), der(0x30), inner)
    assert signed_content(der(0x30, der(6, OID + b"\x09\x10\x01\x09"), der(0xA0, fields))) == b"words"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (der(0x30, der(6, OID + b"\x07\x03"), der(0xA0, der(0x30))), "encrypted"),
        (signed(b""), "empty"),
        (signed(b"words")[:-3], "damaged"),
    ],
)
def test_what_has_no_content_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        extract(data, "a.p7m")
    assert caught.value.code == code


def test_a_signed_mail_is_opened_within_the_mail() -> None:
    inner = base64.encodebytes(signed(b"Content-Type: text/plain\n\nThe words\n"))
    head = b"From: a@b.org\nTo: c@d.org\nSubject: Hello\nContent-Type: application/pkcs7-mime; name=smime.p7m\n"
    assert extract(head + b"Content-Transfer-Encoding: base64\n\n" + inner, "a").text.endswith("\n\nThe words\n")


@settings(max_examples=80)
@given(st.integers(), st.integers(1, 10), st.integers(0, 150))
def test_a_damaged_signed_file_is_read_or_refused(seed: int, flips: int, cut: int) -> None:
    data = bytearray(signed(b"words " * 20, ber)[: -cut or None])
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with suppress(Refused):
        extract(bytes(data), "a.p7m")
