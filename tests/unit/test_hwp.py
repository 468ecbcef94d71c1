"""Documents of the Hangul Word Processor."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Input, Refused
from worker.hwp import _read_records, _records, _Text, _undistributed, read_hwpx


def record(tag: int, level: int, content: bytes) -> bytes:
    return struct.pack("<I", tag | level << 10 | min(len(content), 0xFFF) << 20) + content


def words(text: str, level: int = 1) -> bytes:
    return record(67, level, text.encode("utf-16-le"))


def control(name: str, level: int = 1) -> bytes:
    return record(71, level, name.ljust(4)[::-1].encode() + bytes(4))


def cell(row: int, level: int = 2) -> bytes:
    return record(72, level, struct.pack("<IIHH", 1, 0, 0, row))


def read_records(*records: bytes) -> list[str]:
    text = _Text()
    _read_records(_records(b"".join(records)), text)
    return text.blocks()


def test_controls_are_no_words() -> None:
    section = "\x02abcdefg"  # a control of eight places
    assert read_records(words(section + "One\x09abcdefg" + "two\x0athree\x0d")) == ["One two\nthree"]


def test_tables_notes_and_headers_are_told_apart() -> None:
    found = read_records(
        words("Text"),
        control("tbl"), cell(0), words("a", 3), cell(0), words("b", 3), cell(1), words("c", 3), words("d", 3),
        control("fn"), words("Note", 3),
        control("head"), words("Top", 3),
        words("End", 1),
    )  # fmt: skip
    assert found == [
        "Text", "| a | b |", "| --- | --- |", "| c d |", "[note] Note", "End", "## Headers and footers", "Top",
    ]  # fmt: skip


def test_a_document_for_reading_only_is_opened_with_its_own_key() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    seed, key, plain = 0x12345, b"0123456789abcdef", b"sixteen bytes ok" * 2
    hidden = bytearray(struct.pack("<I", seed) + bytes(252))
    hidden[4 + (seed & 0xF) : 20 + (seed & 0xF)] = key
    state, left, mask = seed, 0, 0
    for at in range(256):
        if not left:
            state = (state * 214013 + 2531011) % (1 << 32)
            mask = (state >> 16) % 256
            state = (state * 214013 + 2531011) % (1 << 32)
            left = (state >> 16) % 16 + 1
        if at >= 4:
            hidden[at] ^= mask
        left -= 1
    cipher = Cipher(AES(key), ECB()).encryptor()
    data = record(28, 0, bytes(hidden)) + cipher.update(plain)
    assert _undistributed(data) == plain


def package(section: str, **parts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/hwp+zip")
        archive.writestr("Contents/section0.xml", f'<hs:sec xmlns:hs="s" xmlns:hp="p">{section}</hs:sec>')
        for name, part in parts.items():
            archive.writestr(name.replace("__", "/"), part)
    return file.getvalue()


def paragraph(inner: str) -> str:
    return f"<hp:p><hp:run>{inner}</hp:run></hp:p>"


def test_hwpx_gives_its_paragraphs_tables_and_headers() -> None:
    def row(*cells: str) -> str:
        return "<hp:tr>" + "".join(f"<hp:tc>{paragraph(f'<hp:t>{c}</hp:t>')}</hp:tc>" for c in cells) + "</hp:tr>"

    table = f"<hp:tbl>{row('a', 'b')}{row('c', 'd')}</hp:tbl>"
    header = f"<hp:header>{paragraph('<hp:t>Top</hp:t>')}</hp:header>"
    data = package(
        paragraph(f"{header}<hp:t>한글 <hp:tab/>words</hp:t>") + paragraph(table),
    )
    found = extract(data, "file")
    assert found.kind == "hwpx"
    assert found.text == "한글 words\n\n| a | b |\n| --- | --- |\n| c | d |\n\n## Headers and footers\n\nTop\n"


def test_an_encrypted_hwpx_is_refused() -> None:
    file = io.BytesIO(package(paragraph("<hp:t>x</hp:t>")))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("META-INF/manifest.xml", "<m><encryption-data/></m>")
    with pytest.raises(Refused) as refused:
        extract(file.getvalue(), "x.hwpx")
    assert refused.value.code == "encrypted"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(package(paragraph("<hp:t>x</hp:t>") * 20))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        assert isinstance(read_hwpx(Input(bytes(whole), "x.hwpx", "hwpx")), Extracted)


@given(st.binary(max_size=200))
def test_any_records_end(data: bytes) -> None:
    with contextlib.suppress(ValueError, zlib.error):
        _read_records(_records(data), _Text())
