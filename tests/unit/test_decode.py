"""Bytes to characters: the right ones or none."""

# ruff: noqa: RUF001 - letters that look like others are what these tests are about

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.decode import Undecodable, decode

GERMAN = "Über große Straßen fährt man schöner, wenn es nicht regnet, sagte die Bäckerin.\n"
FRENCH = "L’été dernier, nous avons déjà mangé des crêpes à Besançon; ça coûtait 5 €.\n"
POLISH = "Zażółć gęślą jaźń, powiedział król, a źrebię pobiegło przez łąkę do świerków.\n"
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, šťastně řekl děda a šel domů přes řeku.\n"
HUNGARIAN = "Árvíztűrő tükörfúrógép, mondta a nő, és időben megérkezett a hűvös erdőből.\n"
TURKISH = "Şişli'de yağmurlu bir gün, çocuklar ağaçların altında ışığı bekliyordu.\n"
RUSSIAN = "Съешь ещё этих мягких французских булок, да выпей же чаю, сказал он вчера.\n"
GREEK = "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, είπε ο γέροντας και έφυγε από το χωριό.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
CHINESE = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "cp1252"), (GERMAN, "mac_roman"), (GERMAN, "cp850"), (FRENCH, "cp1252"),
        (FRENCH, "mac_roman"), (POLISH, "cp1250"), (POLISH, "iso8859_2"), (CZECH, "cp1250"),
        (CZECH, "iso8859_2"), (HUNGARIAN, "cp1250"), (TURKISH, "cp1254"), (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"), (RUSSIAN, "cp866"), (GREEK, "cp1253"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"), (CHINESE, "gb18030"), (KOREAN, "cp949"), (KOREAN, "iso2022_kr"),
    ],
)  # fmt: skip
def test_text_in_a_legacy_encoding_is_recognised_by_its_language(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text
    assert decode((text * 20).encode(encoding)).text == text * 20


@pytest.mark.parametrize("text", ["naïve", "caf\u00e9 au lait, d\u00e9j\u00e0 vu", "price £5 — it’s"])
def test_a_few_accents_are_enough_for_western_text(text: str) -> None:
    assert decode(text.encode("cp1252")).text == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Co", "Cn", "Cs"]), max_size=200))
def test_utf8_comes_back_as_it_is(text: str) -> None:
    expected = text.removeprefix("\ufeff")
    if "\ufffd" not in text and "\ufeff" not in text:
        assert decode(text.encode()).text == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_is_dropped(encoding: str) -> None:
    assert decode((GREEK + JAPANESE).encode(encoding)).text == GREEK + JAPANESE


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_recognised(encoding: str) -> None:
    text = "A plain line of text.\nAnd a second one, déjà vu.\n"
    assert decode(text.encode(encoding)).text == text


def test_line_ends_are_kept() -> None:
    assert decode(b"a\r\nb\rc\n").text == "a\r\nb\rc\n"


@pytest.mark.parametrize(
    "head",
    [
        '<?xml version="1.0" encoding="windows-1251"?>',
        '<meta charset="windows-1251">',
        "# -*- coding: cp1251 -*-",
    ],
)
def test_a_declared_charset_decides_where_utf8_fails(head: str) -> None:
    found = decode(head.encode() + "\nДа\n".encode("cp1251"))
    assert found.text.endswith("\nДа\n")
    assert found.encoding == codecs.lookup("cp1251").name


def test_utf8_wins_over_a_false_declaration() -> None:
    assert decode('<meta charset="iso-8859-1">Grüße'.encode()).text.endswith("Grüße")


@pytest.mark.parametrize("label", ["zlib", "rot13", "utf-7", "unicode_escape", "nonsense", "utf-16"])
def test_a_declared_codec_that_no_document_uses_is_ignored(label: str) -> None:
    data = f'<meta charset="{label}">'.encode() + GERMAN.encode("cp1252")
    assert decode(data).text.endswith(GERMAN)


def test_utf8_with_a_few_broken_bytes_stays_utf8_and_says_so() -> None:
    found = decode((JAPANESE * 5).encode() + b"\xff end")
    assert (found.text, found.replaced) == (JAPANESE * 5 + "\ufffd end", 1)


def test_utf8_cut_inside_its_last_character_stays_utf8() -> None:
    assert decode("汉字测试".encode()[:-1]).text == "汉字测\ufffd"


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 4, b"\x00" * 100, b"\x7fELF\x02\x01\x01\x00\x00", b"\x01\x02\x03\x04" * 50]
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(data)


@given(st.binary(max_size=400))
def test_any_bytes_give_text_or_undecodable(data: bytes) -> None:
    try:
        found = decode(data)
    except Undecodable:
        return
    assert "\x00" not in found.text
    assert found == decode(data)


def test_a_single_late_accent_in_a_long_line_is_found() -> None:
    text = "word " * 50_000 + "café"
    assert decode(text.encode("cp1252")).text == text
