"""Outlook items from containers that are made here: heads, bodies, attachments, items within items."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ole_file import ole_file

from worker.extract import Refused, extract
from worker.rtfbody import decompressed, unwrapped

#: 2024-05-04 10:00 UTC in units of 100 ns since 1601
MOMENT = 133592904000000000


def prop(number: int, text: str) -> dict[str, bytes]:
    return {f"__substg1.0_{number:04X}001F": text.encode("utf-16-le")}


def fixed(head: int, **values: int) -> dict[str, bytes]:
    """The stream of numbers (`n0C15=1`) and times (`t0039=...`)."""
    rows = [
        struct.pack("<HHIQ", 0x40 if name[0] == "t" else 3, int(name[1:], 16), 6, value)
        for name, value in values.items()
    ]
    return {"__properties_version1.0": bytes(head) + b"".join(rows)}


def under(place: str, *parts: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{place}/{name}": data for part in parts for name, data in part.items()}


def item(*parts: dict[str, bytes], **values: int) -> bytes:
    streams = fixed(32, **values)
    for part in parts:
        streams |= part
    return ole_file(streams)


def person(number: int, kind: int, name: str, address: str) -> dict[str, bytes]:
    place = f"__recip_version1.0_#{number:08X}"
    return under(place, fixed(8, n0C15=kind), prop(0x3001, name), prop(0x3003, address))


def attached(number: int, *parts: dict[str, bytes]) -> dict[str, bytes]:
    return under(f"__attach_version1.0_#{number:08X}", fixed(8), *parts)


def test_the_head_names_people_with_their_addresses() -> None:
    data = item(
        prop(0x37, "Grüße"), prop(0xC1A, "Ann"), prop(0xC1F, "/O=EX/CN=ANN"), prop(0x5D01, "ann@a.org"),
        person(0, 1, "Bob", "bob@a.org"), person(1, 2, "Eve", "eve@a.org"), prop(0x1000, "The body\r\nends\r\n"),
        t0039=MOMENT,
    )  # fmt: skip
    read = extract(data, "a.msg")
    assert read.text == (
        "Subject: Grüße\nFrom: Ann <ann@a.org>\nTo: Bob <bob@a.org>\nCc: Eve <eve@a.org>\n"
        "Date: 2024-05-04T10:00:00+00:00\n\nThe body\nends\n"
    )
    assert (read.kind, read.title, read.metadata["to"]) == ("msg", "Grüße", ["Bob <bob@a.org>"])


def test_strings_that_are_not_unicode_have_the_code_page_of_the_item() -> None:
    data = item({"__substg1.0_1000001E": "Привет".encode("cp1251")}, n3FFD=1251)
    assert "Привет" in extract(data, "a.msg").text


def test_a_body_that_is_only_html_is_read() -> None:
    data = item({"__substg1.0_10130102": "<p>Größe</p>".encode("cp1252")}, n3FDE=1252)
    assert "Größe" in extract(data, "a.msg").text


HTML_IN_RTF = (
    rb"{\rtf1\ansi\ansicpg1252\fromhtml1 \deff0{\fonttbl{\f0\fswiss Arial;}{\f1\fcharset204 Arial;}}"
    rb"{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Gr\'f6\u223?e {\f1 \'cf\'f0\'e8}{\*\htmltag84 &amp;}"
    rb"\htmlrtf & \htmlrtf0 so\htmlrtf\par}\htmlrtf0 {\*\htmltag72 </p>}}"
)


def test_html_is_taken_out_of_the_rtf_around_it() -> None:
    assert unwrapped(HTML_IN_RTF) == ("html", "<p>Größe При&amp;so</p>")
    stream = struct.pack("<II4sI", 0, 0, b"MELA", 0) + HTML_IN_RTF
    assert "Größe При&so" in extract(item({"__substg1.0_10090102": stream}), "a.msg").text


def test_rtf_of_its_own_is_read_as_a_document() -> None:
    stream = struct.pack("<II4sI", 0, 0, b"MELA", 0) + rb"{\rtf1\ansi The words\par}"
    assert "The words" in extract(item({"__substg1.0_10090102": stream}), "a.msg").text


def test_compressed_rtf_is_the_example_of_the_specification() -> None:
    stream = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    assert decompressed(stream) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"


def test_what_is_copied_may_reach_into_itself() -> None:
    stream = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert decompressed(stream) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"


def test_attachments_are_members_under_their_long_names() -> None:
    data = item(
        prop(0x1000, "See"),
        attached(0, prop(0x3704, "REPO~1.PDF"), prop(0x3707, "../Report.pdf"), {"__substg1.0_37010102": b"%PDF"}),
    )
    read = extract(data, "a.msg")
    assert [(one.name, one.read(10)) for one in read.members] == [("Report.pdf", b"%PDF")]
    assert "Attachments: Report.pdf" in read.text


def test_an_item_within_the_item_is_read_below_it() -> None:
    inner = under("__substg1.0_3701000D", fixed(24), prop(0x37, "Inner"), prop(0x1000, "Its body"))
    read = extract(item(prop(0x37, "Outer"), prop(0x1000, "Body"), attached(0, inner)), "a.msg")
    assert read.title == "Outer"
    assert read.text.index("Body") < read.text.index("Attached: Inner") < read.text.index("Its body")


def test_items_within_items_without_end_are_read_in_part() -> None:
    streams: dict[str, bytes] = {}
    place = ""
    for _ in range(12):
        streams |= under(f"{place}__attach_version1.0_#00000000", fixed(8))
        place += "__attach_version1.0_#00000000/__substg1.0_3701000D/"
        streams |= {place + name: data for name, data in (fixed(24) | prop(0x1000, "Body")).items()}
    assert extract(item(streams), "a.msg").partial == "1 part could not be read"


def test_named_properties_tell_place_and_time_of_an_appointment() -> None:
    names = {"__nameid_version1.0/__substg1.0_00030102": struct.pack("<IHHIHH", 0x8208, 4, 7, 0x820D, 4, 8)}
    data = item(names, prop(0x8007, "Room 4"), prop(0x37, "Talk"), t8008=MOMENT)
    assert "Start: 2024-05-04T10:00:00+00:00\nLocation: Room 4" in extract(data, "a.msg").text


def test_an_encrypted_mail_is_refused() -> None:
    data = item(attached(0, prop(0x370E, "application/pgp-encrypted"), {"__substg1.0_37010102": b"Version: 1"}))
    with pytest.raises(Refused) as caught:
        extract(data, "a.msg")
    assert caught.value.code == "encrypted"


SAMPLE = item(
    prop(0x37, "Grüße"), person(0, 1, "Bob", "bob@a.org"), prop(0x1000, "Body"),
    attached(0, prop(0x3707, "a.txt"), {"__substg1.0_37010102": b"x" * 5000}),
)  # fmt: skip


@settings(max_examples=80)
@given(st.integers(), st.integers(0, 20), st.integers(0, 3000))
def test_a_damaged_item_is_read_or_refused(seed: int, flips: int, cut: int) -> None:
    data = bytearray(SAMPLE[: -cut or None])
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(8, len(data))] = chance.choice((0, 1, 2, 255, chance.randrange(256)))
    with suppress(Refused):
        for member in extract(bytes(data), "a.msg").members:
            member.read(1 << 20)
