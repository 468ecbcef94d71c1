"""Office documents of before 2007 that are large or hostile cost time in proportion to their size."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from worker.olestreams import Streams
from worker.olewriter import container
from worker.package import Broken
from worker.slidebinary import read_deck
from worker.wordbinary import words_of

#: quadratic time would take hours, linear time takes a second
pytestmark = pytest.mark.timeout(60)
_MANY = 400_000


def streams_of(streams: Mapping[str, bytes]) -> Streams:
    return Streams(container({(name,): data for name, data in streams.items()}))


def word_text(text: str) -> list[str]:
    """What is read of a Word 97 document that has this text and no formatting."""
    main = bytearray(0x400)
    struct.pack_into("<HH", main, 0, 0xA5EC, 0xC1)
    struct.pack_into("<i", main, 0x4C, len(text))
    pieces = struct.pack("<IIHIH", 0, len(text), 0, (2 * len(main)) | 0x40000000, 0)
    clx = b"\x02" + struct.pack("<I", len(pieces)) + pieces
    struct.pack_into("<II", main, 0x1A2, 0, len(clx))
    streams = {"WordDocument": bytes(main) + text.encode("cp1252"), "0Table": clx}
    return words_of(streams_of(streams))["Text"]


def test_a_long_paragraph_is_read_in_one_go() -> None:
    assert word_text("ab" * _MANY + "\r") == ["ab" * _MANY]


def test_cells_of_which_no_row_ends_are_paragraphs() -> None:
    assert word_text("a\x07" * _MANY) == ["a"] * _MANY


def test_fields_and_links_that_never_end_are_words() -> None:
    assert len(word_text("\x13a" * _MANY)) == 1
    assert len(word_text("HYPERLINK " * (_MANY // 10) + "\r")) == 1


def presentation(part: bytes, count: int) -> Streams:
    """A presentation whose directory says that a part begins at each of so many places, `part` long each."""
    data = struct.pack("<HHI", 0xF, 0x03E8, 0) + part * count
    places = [0, *range(8, 8 + len(part) * count, len(part))]
    runs = [places[at : at + 4000] for at in range(0, len(places), 4000)]
    firsts = range(0, len(places), 4000)
    directory = b"".join(
        struct.pack(f"<{len(run) + 1}I", len(run) << 20 | first, *run) for first, run in zip(firsts, runs, strict=True)
    )
    edit = struct.pack("<HHI4I", 0, 0x0FF5, 28, 0, 0, 0, len(data)) + bytes(12)
    listed = struct.pack("<HHI", 0, 0x1772, len(directory)) + directory
    user = bytes(16) + struct.pack("<I", len(data) + len(listed))
    return streams_of({"PowerPoint Document": data + listed + edit, "Current User": user})


def test_slides_beside_each_other_are_all_read() -> None:
    words = struct.pack("<HHI", 0, 0x0FA8, 5) + b"Heron"
    slide = struct.pack("<HHI", 0xF, 0x03EE, len(words)) + words
    assert [deck.paragraphs for deck in read_deck(presentation(slide, 9000)).slides] == [["Heron"]] * 9000


def test_slides_within_each_other_are_damage() -> None:
    endless = struct.pack("<HHI", 0, 0x03EE, 0x7FFFFFFF)
    with pytest.raises(Broken):
        read_deck(presentation(endless, _MANY))
