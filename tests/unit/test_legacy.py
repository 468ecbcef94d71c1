"""Office documents of before 2007: what is read beside the library's text, from streams that are made here."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import sheetbinary, slidebinary, wordbinary
from worker.olestreams import property_sets
from worker.package import Broken


class FakeStreams:
    """Streams by name, as ``Streams`` gives them."""

    def __init__(self, streams: Mapping[str, bytes]) -> None:
        self._streams = {name.lower(): data for name, data in streams.items()}

    def names(self) -> list[str]:
        return list(self._streams)

    def read(self, name: str) -> bytes:
        return self._streams.get(name.lower(), b"")


def words(module: object, **streams: bytes) -> dict[str, list[str]]:
    named = {name.replace("_", " "): data for name, data in streams.items()}
    return module.words_of(FakeStreams(named))  # type: ignore[attr-defined]  # three modules with one function each


# -- Word -------------------------------------------------------------------------------------------------------


def word_document(parts: list[str], *, wide: bool = True) -> dict[str, bytes]:
    """Word 97: main text, footnotes, headers ... in one piece each, the wide ones as UTF-16."""
    main = bytearray(0x200)
    struct.pack_into("<HH", main, 0, 0xA5EC, 0xC1)
    lengths = [len(part.encode("utf-16-le")) // 2 for part in parts]
    struct.pack_into(f"<{len(lengths)}i", main, 0x4C, *lengths)
    borders, places = [0], []
    for part, length in zip(parts, lengths, strict=True):
        places.append(len(main) if wide else (2 * len(main)) | 0x40000000)
        main += part.encode("utf-16-le" if wide else "cp1252")
        borders.append(borders[-1] + length)
    pieces = b"".join(struct.pack("<HIH", 0, place, 0) for place in places)
    table = struct.pack(f"<{len(borders)}I", *borders) + pieces
    clx = b"\x01\x02\x00ab\x02" + struct.pack("<I", len(table)) + table
    struct.pack_into("<II", main, 0x1A2, 0, len(clx))
    return {"WordDocument": bytes(main), "0Table": clx}


@pytest.mark.parametrize("wide", [True, False])
def test_the_parts_of_a_word_document_are_told_apart(wide: bool) -> None:
    parts = [
        "Main “text”\rSecond\r",
        "\x02 A note\r",
        "Head\r",
        "",
        "\x05Remark\r",
        "End note\r",
        "Box\r",
        "Head box\r",
    ]
    found = words(wordbinary, **word_document(parts, wide=wide))
    assert found == {
        "Text": ["Main “text”", "Second"], "Footnotes": ["A note"], "Headers and footers": ["Head"],
        "Comments": ["Remark"], "Endnotes": ["End note"], "Text boxes": ["Box", "Head box"],
    }  # fmt: skip


def test_letters_beyond_the_first_65536_do_not_shift_the_parts() -> None:
    found = words(wordbinary, **word_document(["𐌲𐌿𐍄\r", "Note\r", "", "", "", "", "", ""]))
    assert (found["Text"], found["Footnotes"]) == (["𐌲𐌿𐍄"], ["Note"])


def test_of_a_field_its_result_is_read() -> None:
    main = 'See \x13 HYPERLINK "http://x" \x13 INNER \x15\x14this page\x15 and \x13 PAGE \x15more\r'
    assert words(wordbinary, **word_document([main, "", "", "", "", "", "", ""]))["Text"] == ["See this page and more"]


def test_rows_of_a_table_are_rows() -> None:
    main = "Before\rA\x07B\x07\x07C\x07D\x07\x07After\r"
    found = words(wordbinary, **word_document([main, "", "", "", "", "", "", ""]))
    assert found["Text"] == ["Before", "| A | B |", "| C | D |", "After"]


def test_a_document_of_word_6_is_read_by_the_code_page_of_its_language() -> None:
    main = bytearray(0x400)
    struct.pack_into("<HHHHH", main, 0, 0xA5DC, 0x65, 0, 0x0419, 0)
    text = "Цапля ждёт\r".encode("cp1251")
    struct.pack_into("<II", main, 0x18, len(main), len(main) + len(text))
    struct.pack_into("<8i", main, 0x34, len(text), 0, 0, 0, 0, 0, 0, 0)
    assert words(wordbinary, WordDocument=bytes(main) + text)["Text"] == ["Цапля ждёт"]


# -- Excel ------------------------------------------------------------------------------------------------------

BOX = "Boxwö".encode("utf-16-le")


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def test_words_around_the_cells_of_a_workbook_are_read() -> None:
    header = '&L&"Arial,Bold"&12Left && right&CPage &P of &N&RNorth'
    book = record(0x809, struct.pack("<HH", 0x600, 5) + bytes(12))
    book += record(0x14, struct.pack("<HB", len(header), 0) + header.encode("latin-1"))
    book += record(0x1B6, bytes(10) + struct.pack("<H", 5) + bytes(6)) + record(
        0x3C, b"\1" + "Boxwörter"[:5].encode("utf-16-le")
    )
    book += record(0x100D, struct.pack("<HBB", 0, 6, 0) + b"Series")
    found = words(sheetbinary, Workbook=book)
    assert found == {
        "Headers and footers": ["Left & right", "Page of", "North"], "Text boxes": ["Boxwö"], "Charts": ["Series"],
    }  # fmt: skip


def test_the_header_of_an_old_workbook_is_bytes() -> None:
    book = record(0x809, struct.pack("<HH", 0x500, 5) + bytes(4)) + record(0x15, b"\x08&CB\xfcndel")
    assert words(sheetbinary, Book=book) == {"Headers and footers": ["Bündel"]}


# -- PowerPoint -------------------------------------------------------------------------------------------------


def atom(kind: int, body: bytes) -> bytes:
    return struct.pack("<HHI", 0, kind, len(body)) + body


def container(kind: int, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return struct.pack("<HHI", 0xF, kind, len(body)) + body


def test_the_words_of_a_presentation_are_read_and_the_prompts_of_its_master_are_not() -> None:
    prompt = atom(0xFA0, "Click to edit Master title style\rSecond level".encode("utf-16-le"))
    deck = container(0x3F8, prompt, atom(0xFA8, b"Our own motto"), atom(0xFBA, "Arial".encode("utf-16-le")))
    deck += container(0x3EE, atom(0xFA0, "Title\rBody".encode("utf-16-le")))
    deck += container(0x2EE0, atom(0xFBA, "A remark".encode("utf-16-le")))
    deck += container(0x3F0, container(0xFD9, atom(0xFBA, "Footer".encode("utf-16-le"))))
    found = words(slidebinary, PowerPoint_Document=deck)
    assert found == {
        "Text": ["Our own motto", "Title", "Body"], "Comments": ["A remark"], "Headers and footers": ["Footer"],
    }  # fmt: skip


# -- properties -------------------------------------------------------------------------------------------------


def property_set(identity: bytes, values: dict[int, bytes]) -> bytes:
    head = struct.pack("<HHI16sI", 0xFFFE, 0, 0, bytes(16), 1) + identity + struct.pack("<I", 48)
    places, body = b"", b""
    start = 8 + 8 * len(values)
    for number, value in values.items():
        places += struct.pack("<II", number, start + len(body))
        body += value + bytes(-len(value) % 4)
    return head + struct.pack("<II", start + len(body), len(values)) + places + body


def text_value(text: bytes) -> bytes:
    return struct.pack("<II", 0x1E, len(text) + 1) + text + b"\0"


def test_properties_are_read_in_their_code_page() -> None:
    created = struct.pack("<IQ", 0x40, 132_539_328_000_000_000)
    values = {
        1: struct.pack("<Ih", 2, 1251),
        2: text_value("Цапли".encode("cp1251")),
        4: text_value(b"Ada"),
        12: created,
    }
    named, custom = property_sets(FakeStreams({"\x05SummaryInformation": property_set(bytes(16), values)}))  # type: ignore[arg-type]  # a fake
    assert named == {"title": "Цапли", "author": "Ada", "created": "2021-01-01T00:00:00+00:00"} and custom == {}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["word", "sheet", "slide", "set"]), st.data())
def test_damage_ends_in_words_or_is_said(which: str, data: st.DataObject) -> None:
    samples = {
        "word": word_document(["Main\r", "Note\r", "Head\r", "", "", "", "", ""]),
        "sheet": {"Workbook": record(0x809, struct.pack("<HH", 0x600, 5)) + record(0x14, b"\x05\0\0&Labc") * 3},
        "slide": {
            "PowerPoint Document": container(0x3EE, atom(0xFA0, b"a\0b\0"), container(0xFD9, atom(0xFBA, b"c\0")))
        },
        "set": {
            "\x05SummaryInformation": property_set(bytes(16), {1: struct.pack("<Ih", 2, 1252), 2: text_value(b"T")})
        },
    }
    streams = {name: bytearray(stream) for name, stream in samples[which].items()}
    for stream in streams.values():
        for _ in range(data.draw(st.integers(0, 6))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    damaged = FakeStreams({name: bytes(stream) for name, stream in streams.items()})
    if which == "set":
        property_sets(damaged)  # type: ignore[arg-type]  # a fake
        return
    module = {"word": wordbinary, "sheet": sheetbinary, "slide": slidebinary}[which]
    try:
        module.words_of(damaged)  # type: ignore[arg-type]  # a fake
    except Broken as broken:
        assert str(broken)
