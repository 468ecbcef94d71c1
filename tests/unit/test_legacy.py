"""Office documents of before 2007, from streams and containers that are made here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.biff import Protected, is_bare
from worker.extract import extract, read
from worker.extracted import Extracted, Refused
from worker.olestreams import property_sets
from worker.olewriter import container
from worker.sheetbinary import tables_of, words_of
from worker.slidebinary import read_deck
from worker.wordbinary import words_of as words_of_document


class FakeStreams:
    """Streams by name, as ``Streams`` gives them."""

    def __init__(self, streams: Mapping[str, bytes]) -> None:
        self._streams = {name.lower(): data for name, data in streams.items()}

    def names(self) -> list[str]:
        return list(self._streams)

    def read(self, name: str) -> bytes:
        return self._streams.get(name.lower(), b"")


def in_container(streams: Mapping[str, bytes]) -> bytes:
    return container({tuple(name.split("/")): data for name, data in streams.items()})


# -- Word -------------------------------------------------------------------------------------------------------


def word_words(streams: Mapping[str, bytes]) -> dict[str, list[str]]:
    found = words_of_document(FakeStreams(streams))  # type: ignore[arg-type]  # a fake
    return {heading: lines for heading, lines in found.items() if lines}


def word_document(parts: list[str], *, wide: bool = True) -> dict[str, bytes]:
    """Word 97: main text, footnotes, headers ... in one piece each, the wide ones as UTF-16."""
    main = bytearray(0x400)
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
    found = word_words(word_document(parts, wide=wide))
    assert found == {
        "Text": ["Main “text”", "Second"], "Footnotes": ["A note"], "Headers and footers": ["Head"],
        "Comments": ["Remark"], "Endnotes": ["End note"], "Text boxes": ["Box", "Head box"],
    }  # fmt: skip


def test_letters_beyond_the_first_65536_do_not_shift_the_parts() -> None:
    found = word_words(word_document(["𐌲𐌿𐍄\r", "Note\r", "", "", "", "", "", ""]))
    assert (found["Text"], found["Footnotes"]) == (["𐌲𐌿𐍄"], ["Note"])


def test_of_a_field_its_result_is_read() -> None:
    main = 'See \x13 HYPERLINK "http://x" \x13 INNER \x15\x14this page\x15 and \x13 PAGE \x15more\r'
    found = word_words(word_document([main, "", "", "", "", "", "", ""]))
    assert found == {"Text": ["See this page and more"], "Links": ["http://x"]}


def test_rows_of_a_table_are_rows() -> None:
    main = "Before\rA\x07B\x07\x07C\x07D\x07\x07After\r"
    found = word_words(word_document([main, "", "", "", "", "", "", ""]))
    assert found["Text"] == ["Before", "| A | B |", "| C | D |", "After"]


def test_a_document_of_word_6_is_read_by_the_code_page_of_its_language() -> None:
    main = bytearray(0x400)
    struct.pack_into("<HHHHH", main, 0, 0xA5DC, 0x65, 0, 0x0419, 0)
    text = "Цапля ждёт\r".encode("cp1251")
    struct.pack_into("<II", main, 0x18, len(main), len(main) + len(text))
    struct.pack_into("<8i", main, 0x34, len(text), 0, 0, 0, 0, 0, 0, 0)
    assert word_words({"WordDocument": bytes(main) + text})["Text"] == ["Цапля ждёт"]


def formatted(text: str, runs: dict[int, list[tuple[int, int, bytes]]]) -> dict[str, bytes]:
    """A document whose characters (0xFA) or paragraphs (0x102) from one place to another have these modifiers."""
    streams = word_document([text, "", "", "", "", "", "", ""])
    main, table = bytearray(streams["WordDocument"]), streams["0Table"]
    main += bytes(-len(main) % 512)
    for place, spans in runs.items():
        width = 13 if place == 0x102 else 1
        borders = [0x400 + 2 * start for start, _, _ in spans] + [0x400 + 2 * spans[-1][1]]
        page = bytearray(512)
        struct.pack_into(f"<{len(borders)}I", page, 0, *borders)
        at = 400
        for index, (_, _, modifiers) in enumerate(spans):
            page[4 * len(borders) + width * index] = at // 2
            size = (len(modifiers) + 2) // 2 if place == 0x102 else len(modifiers)
            page[at : at + 1 + len(modifiers)] = bytes((size,)) + modifiers
            at += 2 * ((len(modifiers) + 3) // 2)
        page[-1] = len(spans)
        bins = struct.pack("<III", borders[0], borders[-1], len(main) // 512)
        struct.pack_into("<II", main, place, len(table), len(bins))
        main, table = main + page, table + bins
    return {"WordDocument": bytes(main), "0Table": table}


def test_deleted_words_are_not_read() -> None:
    spans = [(0, 5, b""), (5, 10, struct.pack("<HB", 0x0800, 1)), (10, 15, struct.pack("<HB", 0x0800, 0))]
    assert word_words(formatted("Keep this more\r", {0xFA: spans})) == {"Text": ["Keep more"]}


def test_headings_and_rows_are_known_by_their_formatting() -> None:
    row = struct.pack("<HHB", 0, 0x2416, 1)
    end = row + struct.pack("<HB", 0x2417, 1)
    spans = [(0, 4, struct.pack("<H", 2)), (4, 8, row), (8, 10, row), (10, 12, row), (12, 13, end)]
    found = word_words(formatted("One\rtwo\rx\x07y\x07\x07# z\r", {0x102: spans}))
    assert found == {"Text": ["## One", "| two x | y |", "\\# z"]}


def test_the_paths_under_which_a_document_was_saved_are_read() -> None:
    streams = word_document(["Text\r", "", "", "", "", "", "", ""])
    names = b"".join(struct.pack("<H", len(name)) + name.encode("utf-16-le") for name in ("Ada", "C:\\a.doc"))
    block = b"\xff\xff" + struct.pack("<HH", 2, 0) + names
    main = bytearray(streams["WordDocument"])
    struct.pack_into("<II", main, 0x2D2, len(streams["0Table"]), len(block))
    found = word_words({"WordDocument": bytes(main), "0Table": streams["0Table"] + block})
    assert found["Saved as"] == ["C:\\a.doc"]


# -- Excel ------------------------------------------------------------------------------------------------------


def record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def wide(text: str) -> bytes:
    return struct.pack("<HB", len(text), 1) + text.encode("utf-16-le")


def begin(what: int = 0x10, version: int = 0x600) -> bytes:
    return record(0x809, struct.pack("<HH", version, what) + bytes(12))


def workbook(sheets: dict[str, bytes], globals_: bytes = b"") -> bytes:
    heads = [struct.pack("<BBBB", 0, 0, len(name), 0) + name.encode("latin-1") for name in sheets]
    at = len(begin(5) + globals_ + record(0x0A)) + sum(8 + len(head) for head in heads)
    book = begin(5) + globals_
    for head, cells in zip(heads, sheets.values(), strict=True):
        book += record(0x85, struct.pack("<I", at) + head)
        at += len(begin() + cells + record(0x0A))
    return book + record(0x0A) + b"".join(begin() + cells + record(0x0A) for cells in sheets.values())


def cell(kind: int, row: int, column: int, value: bytes, style: int = 0) -> bytes:
    return record(kind, struct.pack("<HHH", row, column, style) + value)


def test_cells_are_tables_sheet_by_sheet() -> None:
    shared = record(0xFC, struct.pack("<II", 2, 2) + wide("Äpfel") + struct.pack("<HB", 4, 0) + b"Pe")
    shared += record(0x3C, b"\x01" + "är".encode("utf-16-le"))
    styles = record(0xE0, bytes(20)) + record(0xE0, struct.pack("<HH", 0, 14) + bytes(16))
    fruit = cell(0xFD, 0, 0, struct.pack("<I", 0)) + cell(0xFD, 1, 0, struct.pack("<I", 1))
    fruit += cell(0x203, 1, 2, struct.pack("<d", 44197.5), 1) + cell(0x27E, 2, 2, struct.pack("<I", (1234 << 2) | 3))
    fruit += cell(0x06, 3, 0, b"\0\0\0\0\0\0\xff\xff" + bytes(6)) + record(0x207, wide("a|b"))
    fruit += cell(0x205, 4, 0, b"\x2a\x01") + begin(0x20) + cell(0x203, 0, 0, struct.pack("<d", 9)) + record(0x0A)
    text, pages = tables_of(workbook({"Fruit": fruit, "Other": cell(0x204, 0, 0, wide("x"))}, shared + styles))
    assert text == (
        "## Fruit\n\n| Äpfel |  |\n| --- | --- |\n"
        "| Peär | 2021-01-01 12:00:00 |\n|  | 12.34 |\n| a\\|b |  |\n| #N/A |  |\n"
        "\n## Other\n\n| x |\n| --- |\n\n"
    )
    assert [text[page:].split("\n")[0] for page in pages] == ["## Fruit", "## Other"]


@pytest.mark.parametrize("stream", ["Workbook", "PowerPoint Document", "WordDocument"])
def test_a_document_of_zeros_is_damaged(stream: str) -> None:
    with pytest.raises(Refused) as refused:
        extract(in_container({stream: bytes(5000)}), "x")
    assert refused.value.code in ("damaged", "empty")


def test_an_encrypted_workbook_is_said_to_be_so() -> None:
    with pytest.raises(Protected):
        tables_of(workbook({"A": b""}, record(0x2F, bytes(6))))


def test_words_around_the_cells_of_a_workbook_are_read() -> None:
    header = '&L&"Arial,Bold"&12Left && right&CPage &P of &N&RNorth'
    book = begin()
    book += record(0x14, struct.pack("<HB", len(header), 0) + header.encode("latin-1"))
    for kind, text in ((0x06, "R&D wö"), (0x19, "Why?")):
        book += record(0x5D, struct.pack("<HHH", 0x15, 18, kind) + bytes(14))
        book += record(0x1B6, bytes(10) + struct.pack("<H", len(text)) + bytes(6))
        book += record(0x3C, b"\1" + text[:2].encode("utf-16-le")) + record(0x3C, b"\0" + text[2:].encode("latin-1"))
    book += record(0x100D, struct.pack("<HBB", 0, 6, 0) + b"Series")
    address = "http://x.org\0".encode("utf-16-le")
    link = bytes(32) + bytes.fromhex("e0c9ea79f9bace118c8200aa004ba90b") + struct.pack("<I", len(address)) + address
    name = "A heron\0".encode("utf-16-le")
    shape = struct.pack("<HHI", 0x13, 0xF00B, 6 + len(name)) + struct.pack("<HI", 0xC381, len(name)) + name
    book += record(0x1B8, link) + record(0xEC, shape[:9]) + record(0xEC, shape[9:])
    assert words_of(book) == {
        "Headers and footers": ["Left & right", "Page of", "North"], "Text boxes": ["R&D wö"], "Comments": ["Why?"],
        "Charts": ["Series"], "Links": ["http://x.org"], "Pictures": ["A heron"],
    }  # fmt: skip


def test_the_header_of_an_old_workbook_is_bytes() -> None:
    book = begin(version=0x500) + record(0x42, struct.pack("<H", 1251)) + record(0x15, b"\x03&C\xdf")
    assert words_of(book) == {"Headers and footers": ["Я"]}


def test_a_code_page_that_nobody_knows_is_taken_for_the_western_one() -> None:
    book = begin(version=0x500) + record(0x42, struct.pack("<H", 228)) + record(0x15, b"\x03&C\xe4")
    assert words_of(book) == {"Headers and footers": ["ä"]}


def test_workbooks_from_before_there_were_containers_are_read() -> None:
    for kind, body, cells in (
        (0x0009, struct.pack("<HH", 2, 0x10), record(0x04, struct.pack("<HH3xB", 0, 0, 3) + b"two")),
        (0x0209, struct.pack("<HHH", 3, 0x10, 0), cell(0x204, 0, 0, b"\3\0two")),
        (0x0409, struct.pack("<HHH", 4, 0x10, 0), cell(0x204, 0, 0, b"\3\0two")),
    ):
        found = extract(record(kind, body) + cells + record(0x0A), "old.xls")
        assert found.kind == "xls" and "| two |" in found.text and found.pages == (0,)


def test_a_text_is_no_old_workbook() -> None:
    assert not is_bare(b"\t\x00 tab")


# -- PowerPoint -------------------------------------------------------------------------------------------------


def atom(kind: int, body: bytes, instance: int = 0) -> bytes:
    return struct.pack("<HHI", instance << 4, kind, len(body)) + body


def holder(kind: int, *inner: bytes, instance: int = 0) -> bytes:
    body = b"".join(inner)
    return struct.pack("<HHI", 0xF | instance << 4, kind, len(body)) + body


def said(text: str, kind: int = 1) -> bytes:
    return atom(0xF9F, struct.pack("<I", kind)) + atom(0xFA0, text.encode("utf-16-le"))


def string(text: str, instance: int = 0) -> bytes:
    return atom(0xFBA, text.encode("utf-16-le"), instance)


def presentation() -> dict[str, bytes]:
    """Two slides, the later one written first, an old one that is no longer used, notes, a master and a comment."""
    comment = holder(0x2EE0, string("Ada"), string("A remark", 1))
    parts = [
        (2, holder(0x3EE, said("Second"), holder(0x1388, holder(0x138A, string("x"), atom(0x138B, comment))))),
        (0, holder(0x3EE, said("Thrown away"))),
        (3, holder(0x3EE, said("Body", 1), holder(0xFD9, string("Footer")))),
        (4, holder(0x3F0, atom(0x3F1, struct.pack("<I", 256)), said("My notes"))),
        (5, holder(0x3F8, holder(0xF004, atom(0xBC3, struct.pack("<IB3x", 0, 1)), said("Click here")), said("Motto"))),
    ]
    listed = [(3, 256, said("First\x0btitle", 0)), (2, 257, b"")]
    outline = [atom(0x3F3, struct.pack("<IIII", number, 0, 0, slide)) + text for number, slide, text in listed]
    link = holder(0x409, holder(0xFD7, string("here"), string("http://x.org", 1)))
    parts.append((1, holder(0x3E8, link, holder(0xFF0, *outline))))
    data, places = b"", {}
    for number, part in parts:
        places[number] = len(data)
        data += part
    places.pop(0)
    data += atom(0x1011, struct.pack("<I", 9) + zlib.compress(in_container({"Package": b"PK packed"})), 1)
    directory = b"".join(struct.pack("<II", number | 1 << 20, place) for number, place in places.items())
    edit = struct.pack("<IIIII", 0, 0, 0, len(data), 1) + bytes(8)
    user = atom(0xFF6, struct.pack("<III", 0x14, 0xE391C05F, len(data + atom(0x1772, directory))))
    return {"PowerPoint Document": data + atom(0x1772, directory) + atom(0xFF5, edit), "Current User": user}


def test_a_presentation_is_read_slide_by_slide_without_what_is_no_longer_in_it() -> None:
    found = read(in_container(presentation()), "x.ppt")
    assert found.text == (
        "## First title\n\nBody\n\n### Notes\n\nMy notes\n\nSecond\n\n### Comments\n\nAda\n\nA remark\n\n"
        "## Links\n\nhttp://x.org\n\n## Headers and footers\n\nFooter\n\n## Slide master\n\nMotto\n"
    )
    assert [found.text[page:].split("\n")[0] for page in found.pages] == ["## First title", "Second"]
    assert [(member.name, member.read(100)) for member in found.members] == [("object-1.bin", b"PK packed")]


def test_a_presentation_that_does_not_say_what_is_in_use_is_read_whole() -> None:
    streams = {"PowerPoint Document": presentation()["PowerPoint Document"]}
    deck = read_deck(FakeStreams(streams))  # type: ignore[arg-type]  # a fake
    assert ["Thrown away"] in [slide.paragraphs for slide in deck.slides]


# -- files within -----------------------------------------------------------------------------------------------


def test_a_document_within_becomes_a_file() -> None:
    inner = {f"ObjectPool/_7/{name}": data for name, data in word_document(["Inner\r"] + [""] * 7).items()}
    outer = in_container(word_document(["Outer\r"] + [""] * 7) | inner)
    found = extract(outer, "outer.doc")
    assert found.text == "Outer\n"
    (member,) = found.members
    assert member.name == "_7.doc"
    assert extract(member.read(1 << 20), member.name).text == "Inner\n"


def test_a_file_of_the_packager_is_named_in_the_text() -> None:
    paths = b"\2\0a.txt\0C:\\a.txt\0\0\0\3\0" + struct.pack("<I", 9) + b"D:\\a.txt\0" + struct.pack("<I", 2) + b"hi"
    packed = {"ObjectPool/_7/\x01Ole10Native": struct.pack("<I", len(paths)) + paths}
    found = extract(in_container(word_document(["Outer\r"] + [""] * 7) | packed), "outer.doc")
    assert found.text == "Outer\n\n## Embedded files\n\na.txt\n\nC:\\a.txt\n\nD:\\a.txt\n"
    assert [(member.name, member.read(9)) for member in found.members] == [("a.txt", b"hi")]


#: on both sides of the borders between small and large sectors and streams
SIZES = (0, 1, 64, 65, 4095, 4096, 4097, 9000)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.from_regex("([A-Z]{1,3}/)?[a-z]{4,9}", fullmatch=True), st.sampled_from(SIZES).map(bytes)))
def test_a_container_has_what_was_put_into_it(streams: dict[str, bytes]) -> None:
    import olefile

    with olefile.OleFileIO(io.BytesIO(in_container(streams)), raise_defects=olefile.DEFECT_UNSURE) as file:
        assert {"/".join(path): file.openstream(path).read() for path in file.listdir()} == streams


def test_a_container_of_many_megabytes_is_whole() -> None:
    import olefile

    data = bytes(range(256)) * 40_000
    with olefile.OleFileIO(io.BytesIO(container({("Big",): data})), raise_defects=olefile.DEFECT_UNSURE) as file:
        assert file.openstream("Big").read() == data


# -- other containers -------------------------------------------------------------------------------------------


def test_of_a_publication_the_text_is_read() -> None:
    text = "Herons\rof the marsh".encode("utf-16-le")
    entry = b"\x18\0TEXT" + bytes(6) + b"TEXT" + struct.pack("<II", 0x100, len(text))
    quill = b"CHNKINK ".ljust(0x20, b"\0") + entry
    found = extract(in_container({"Quill/QuillSub/CONTENTS": quill.ljust(0x100, b"\0") + text}), "x.pub")
    assert (found.kind, found.text, found.partial) == ("ole", "Herons\n\nof the marsh\n", None)


def test_of_an_unknown_container_the_properties_are_read_and_the_rest_is_said_to_be_missing() -> None:
    values = {2: text_value(b"Plan"), 3: text_value(b"Marsh")}
    data = in_container({"Drawing": b"?", "\x05SummaryInformation": property_set(bytes(16), values)})
    found = extract(data, "x.vsd")
    assert found.text == "# Plan\n\n## Properties\n\nSubject: Marsh\n" and found.partial


def test_a_container_that_says_nothing_is_not_read() -> None:
    with pytest.raises(Refused) as refused:
        extract(in_container({"Thing": b"?"}), "x.bin")
    assert refused.value.code == "unsupported"


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
def test_damage_ends_in_a_reading_or_a_refusal(which: str, data: st.DataObject) -> None:
    samples = {
        "word": word_document(["Main\r", "Note\r", "Head\r", "", "", "", "", ""]),
        "sheet": {"Workbook": workbook({"A": cell(0x204, 0, 0, wide("x")) + record(0x14, b"\5\0\0&Labc") * 3})},
        "slide": presentation(),
        "set": word_document(["A\r"] + [""] * 7)
        | {"\x05SummaryInformation": property_set(bytes(16), {1: struct.pack("<Ih", 2, 1252), 2: text_value(b"T")})},
    }
    whole = bytearray(in_container(samples[which]))
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole) - 700]))])
    try:
        found = read(damaged, f"x.{which}")
    except Refused as refused:
        assert refused.reason
    else:
        assert isinstance(found, Extracted)
