"""Pages, Numbers and Keynote since 2013, written here as their programs do."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Input, Refused
from worker.iwa import objects
from worker.iwork13 import read_iwork13


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def reference(identifier: int) -> bytes:
    return message((1, identifier))


def archive(found: dict[int, tuple[int, bytes]]) -> bytes:
    data = b""
    for identifier, (kind, payload) in found.items():
        info = message((1, identifier), (2, message((1, kind), (3, len(payload)))))
        data += varint(len(info)) + info + payload
    literals = b"".join(
        bytes([len(data[at : at + 60]) - 1 << 2]) + data[at : at + 60] for at in range(0, len(data), 60)
    )
    block = varint(len(data)) + literals
    return b"\0" + len(block).to_bytes(3, "little") + block


def package(**archives: dict[int, tuple[int, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, found in archives.items():
            target.writestr(f"Index/{name.replace('__', '/')}.iwa", archive(found))
    return file.getvalue()


def storage(text: str, kind: int = 0) -> tuple[int, bytes]:
    return 2001, message((1, kind), (3, text))


def test_pages_gives_its_text_notes_and_headers() -> None:
    found = extract(
        package(
            Document={1: (10000, b""), 2: storage("Body\n日本 words"), 3: storage("Top", 1), 4: storage("Note", 2)}
        ),
        "a.pages",
    )
    assert (found.kind, found.text) == ("pages", "Body\n日本 words\n\nNote\n\n## Headers and footers\n\nTop\n")


def test_slides_come_in_the_order_of_the_show_with_their_notes() -> None:
    show = message((3, message((2, reference(11)), (2, reference(12)))))
    nodes = {at: (4, message((2, reference(slide)))) for at, slide in ((11, 31), (12, 21))}
    found = extract(
        package(
            Document={1: (2, show), **nodes},
            Slide={21: (5, b""), 22: storage("Second")},
            Slide__1={31: (5, b""), 32: storage("First"), 33: storage("Say it", 4)},
            MasterSlide={41: storage("Type here")},
        ).replace(b"Index/Slide/1.iwa", b"Index/Slide-1.iwa"),
        "talk",
    )
    assert (found.kind, found.text) == ("keynote", "First\n\nNotes:\n\nSay it\n\nSecond\n")
    assert [found.text[start:][:5] for start in found.pages] == ["First", "Secon"]


def numbers() -> bytes:
    cells = [
        struct.pack("<BB6xII", 5, 3, 8, 7),  # the string 7
        struct.pack("<BB6xId", 5, 2, 2, -872.4),
        struct.pack("<BB6xI", 5, 2, 1) + (1234).to_bytes(14, "little") + bytes([0x3C, 0x30]),  # 12.34
        struct.pack("<BB6xId", 5, 5, 4, 86400.0),
    ]
    places, buffer = [], b""
    for cell in cells:
        places.append(len(buffer))
        buffer += cell
    row = message((6, buffer), (7, struct.pack("<6h", places[0], -1, *places[1:], -1)))
    store = message((3, message((1, message((2, reference(60)))))), (4, reference(70)))
    return package(
        Document={1: (2, message((1, "Budget"), (2, reference(40))))},
        CalculationEngine={9: storage("engine")},
        Tables__Tile={60: (6002, message((5, row)))},
        Tables__DataList={70: (6005, message((3, message((1, 7), (3, "Rent")))))},
        Tables__Table={40: (6000, message((2, reference(50)))), 50: (6001, message((4, store), (8, "Costs")))},
    )


def test_sheets_are_pages_with_their_tables_cell_by_cell() -> None:
    found = extract(numbers(), "file")
    row = "| Rent |  | -872.4 | 12.34 | 2001-01-02 |\n| --- | --- | --- | --- | --- |\n"
    assert (found.kind, found.text) == ("numbers", f"## Budget\n\n### Costs\n\n{row}")
    assert found.pages == (0,)


def test_what_is_written_once_is_copied() -> None:
    payload = b"abc" * 20
    info = message((1, 1), (2, message((1, 2001), (3, len(payload)))))
    plain = varint(len(info)) + info + b"abc"
    block = varint(len(plain) + 57) + bytes([len(plain) - 1 << 2]) + plain + bytes([56 << 2 | 2, 3, 0])
    assert [found.data for found in objects(b"\0" + len(block).to_bytes(3, "little") + block)] == [payload]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(numbers())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        assert isinstance(read_iwork13(Input(bytes(whole), "x", "numbers")), Extracted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_archive_ends(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(objects(b"\0" + len(data).to_bytes(3, "little") + data))
