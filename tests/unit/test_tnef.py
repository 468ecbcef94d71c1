"""winmail.dat: body and files of attributes that are made here."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import Refused, extract, read


def attribute(kind: int, data: bytes) -> bytes:
    return b"\1" + struct.pack("<II", kind, len(data)) + data + b"\0\0"


def value(kind: int, number: int, data: bytes) -> bytes:
    return struct.pack("<HHII", kind, number, 1, len(data)) + data + bytes(-len(data) % 4)


def properties(*values: bytes) -> bytes:
    return struct.pack("<I", len(values)) + b"".join(values)


NAMED = struct.pack("<HH16sIIII", 3, 0x8001, bytes(16), 1, 6, 0, 7)
NAMED = NAMED[:28] + b"abc\0\0\0\0\0" + NAMED[-4:]  # a name of six bytes, then the number
RTF = struct.pack("<II4sI", 0, 0, b"MELA", 0) + rb"{\rtf1\ansi\fromhtml1 {\*\htmltag <p>}Rich words{\*\htmltag </p>}}"
SAMPLE = b"\x78\x9f\x3e\x22\1\0" + b"".join(
    (
        attribute(0x9007, struct.pack("<II", 1251, 0)),
        attribute(0x8004, "Привет".encode("cp1251") + b"\0"),
        attribute(0x9003, properties(struct.pack("<HHI", 3, 0x17, 1), NAMED, value(0x102, 0x1009, RTF))),
        attribute(0x9002, bytes(14)),
        attribute(0x8010, b"REPO~1.PDF\0"),
        attribute(0x800F, b"%PDF"),
        attribute(0x9005, properties(value(0x1F, 0x3707, "Report.pdf\0".encode("utf-16-le")))),
        attribute(0x9002, bytes(14)),
        attribute(0x9005, properties(value(0x0D, 0x3701, bytes(16) + b"\x78\x9f\x3e\x22\1\0"))),
    )
)


def test_subject_body_and_files_are_read() -> None:
    found = read(SAMPLE, "winmail.dat")
    assert (found.kind, found.title) == ("tnef", "Привет")
    assert found.text.strip() == "Subject: Привет\n\nRich words"
    assert {one.name: one.read(4) for one in found.members} == {
        "Report.pdf": b"%PDF", "message.dat": b"\x78\x9f\x3e\x22",
    }  # fmt: skip


@settings(max_examples=100)
@given(st.integers(), st.integers(0, 20), st.integers(0, 300))
def test_damage_ends_in_a_text_or_a_refusal(seed: int, flips: int, cut: int) -> None:
    data = bytearray(SAMPLE[: -cut or None])
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(4, len(data))] = chance.randrange(256)
    with suppress(Refused):
        extract(bytes(data), "winmail.dat")
