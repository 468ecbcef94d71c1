"""Rich Text Format: characters, destinations, tables, objects."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Input, Refused
from worker.rtf import read_rtf


def read(body: bytes, head: bytes = rb"\ansi") -> Extracted:
    return extract(rb"{\rtf1" + head + body + b"}", "x.rtf")


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (rb"\ansi\ansicpg1250", rb" P\'f8\'edli\'9a", "Příliš"),
        (rb"\ansi{\fonttbl{\f0\fcharset204 A;}{\f1\fcharset128 B;}}", rb"\f0 \'cf\'f0\f1 \'93\'fa", "Пр日"),
        (rb"\ansi\ansicpg932", rb" \'93\'fa\'96{\b\'7b}", "日本"),
        (rb"\mac", rb" caf\'8e", "café"),
        (rb"\ansi\uc1", rb" \u26085?\u-10179?\u-8704? {\uc2\u228ab}x", "日😀 äx"),
        (rb"\ansi", rb" a\emdash b\'9f c\~d\{e\}", "a—bŸ c d{e}"),
    ],
)
def test_characters_of_all_kinds(head: bytes, body: bytes, text: str) -> None:
    assert read(body, head).text == text


def test_what_stands_apart_follows_its_paragraph_and_headers_the_text() -> None:
    found = read(
        rb"{\header Top\par}{\footerf Foot}Body{\footnote\pard Note}{\*\atnauthor Ann}{\*\annotation Why?}{\shp"
        rb"{\*\shpinst{\sp{\sn wzDescription}{\sv A cat}}{\shptxt Box\par}}{\shprslt{\*\do\dptxbxtext Box}}}\par End"
    )
    assert found.text.split("\n\n") == ["Body", "Note", "Comment by Ann: Why?", "A cat", "Box", "End", "Top", "Foot"]


def test_links_keep_their_target_and_what_is_hidden_or_deleted_is_left_out() -> None:
    link = rb'{\field{\*\fldinst{HYPERLINK "http://a.example/b"}}{\fldrslt here}}'
    assert read(rb" See " + link + rb"{\v not}{\deleted gone} now").text == "See here now <http://a.example/b>"


def test_rows_are_lines_with_tabs_between_the_cells() -> None:
    row = rb"\trowd\cellx1\cellx2\intbl %b\cell{\listtext 1.\tab}%b\cell\row"
    found = read(row % (b"a", b"b") + row % (b"c", b"d") + rb"\pard Text")
    assert found.text == "a\t1. b\nc\t1. d\n\nText"


def test_a_row_without_its_end_is_kept() -> None:
    assert read(rb"\intbl a\cell b\par c").text == "a\n\nb\n\nc"
    assert read(rb"\intbl a\cell b\row\pard Text").text == "a\tb\n\nText"


def test_properties_are_kept() -> None:
    found = read(
        rb"{\info{\title The title}{\author Eve}{\keywords k1}{\creatim\yr2020\mo1\dy2\hr3}}"
        rb"{\*\userprops{\propname Client}\proptype30{\staticval Acme}}Body"
    )
    assert found.title == "The title"
    assert found.metadata == {"author": "Eve", "keywords": "k1", "created": "2020-01-02T03:00:00"}
    assert found.text == "Body\n\nKeywords: k1\nClient: Acme"


def test_embedded_files_are_members_under_their_name() -> None:
    def counted(data: bytes) -> bytes:
        return struct.pack("<I", len(data)) + data

    native = b"\2\0note.txt\0C:\\note.txt\0\0\0\3\0" + counted(b"C:\\t\0") + counted(b"content")
    ole = struct.pack("<II", 0x501, 2) + counted(b"Package\0") + counted(b"") + counted(b"") + counted(native)
    found = read(rb" x{\object{\*\objclass Package}{\*\objdata " + ole.hex("\n", 32).encode() + rb"}{\result R}}y")
    assert found.text == "xRy"
    assert [(member.name, member.read(100)) for member in found.members] == [("note.txt", b"content")]


def test_binary_data_is_stepped_over_and_a_cut_is_said() -> None:
    assert read(b" a{\\pict\\bin5 {}{}{b}c").text == "ac"
    cut = extract(rb"{\rtf1\ansi Body {\b bold", "x.rtf")
    assert (cut.text, cut.partial) == ("Body bold", "the document ends before its end")


WORDS = (
    rb"{ } \par \cell \row \u55 \'9f \* \footnote \objdata 01 \info \sv \fldinst HYPERLINK \creatim \yr1 \bin99 \uc9 "
    rb"text \upr \ud \f1 \intbl"
).split()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_order_of_words_ends(tokens: list[bytes]) -> None:
    with contextlib.suppress(Refused):
        found = read_rtf(Input(b"{\\rtf1" + b" ".join(tokens), "x.rtf", "rtf"))
        assert all(member.read(10) is not None for member in found.members)
