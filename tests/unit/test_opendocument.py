"""OpenDocument: what its readers take from a document, packed and flat."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Input, Refused
from worker.filetype import sniff
from worker.opendocument import read_package

NAMES = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in {
        "office": "office", "text": "text", "table": "table", "draw": "drawing", "style": "style", "meta": "meta",
        "presentation": "presentation", "svg": "svg-compatible", "script": "script",
    }.items()
)  # fmt: skip
NAMES += ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xlink="http://www.w3.org/1999/xlink"'
MIME = "application/vnd.oasis.opendocument."


def document(part: str, inner: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><office:{part} {NAMES}>{inner}</office:{part}>'


def package(body: str, mime: str = "text", **parts: str) -> bytes:
    """A package with this inside of office:body; `styles`, `meta` and other parts as they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", mime if "/" in mime else MIME + mime)
        archive.writestr("content.xml", document("document-content", f"<office:body>{body}</office:body>"))
        for name, part in parts.items():
            archive.writestr(name.replace("__", "/") + ".xml", part)
    return file.getvalue()


def read(body: str, mime: str = "text", **parts: str) -> Extracted:
    return extract(package(body, mime, **parts), "file")


def paragraph(text: str) -> str:
    return f"<text:p>{text}</text:p>"


def test_headings_paragraphs_and_lists_become_markdown() -> None:
    items = "".join(f"<text:list-item>{paragraph(item)}</text:list-item>" for item in ("one", "two"))
    found = read(
        f'<office:text><text:h text:outline-level="2">Part</text:h>{paragraph("a<text:s/>b<text:tab/>c")}'
        f"<text:list>{items}</text:list></office:text>"
    )
    assert (found.kind, found.text, found.title) == ("odt", "## Part\n\na b c\n\n- one\n- two\n", "Part")


def test_deleted_text_is_left_out_and_inserted_text_kept() -> None:
    deleted = f"<text:tracked-changes><text:deletion>{paragraph('gone')}</text:deletion></text:tracked-changes>"
    assert read(f"<office:text>{deleted}{paragraph('kept')}</office:text>").text == "kept\n"


def test_notes_comments_frames_and_alternative_texts_follow_their_paragraph() -> None:
    note = (
        "<text:note><text:note-citation>1</text:note-citation>"
        f"<text:note-body>{paragraph('The note')}</text:note-body></text:note>"
    )
    comment = f"<office:annotation><dc:creator>Ann</dc:creator>{paragraph('Why?')}</office:annotation>"
    frame = f"<draw:frame><draw:text-box>{paragraph('Box')}</draw:text-box><svg:desc>A cat</svg:desc></draw:frame>"
    found = read(f"<office:text>{paragraph('Words' + note + comment + frame + ' go on')}</office:text>")
    assert found.text.split("\n\n") == ["Words[1] go on", "[1] The note", "Comment by Ann: Why?", "Box", "A cat\n"]


def test_headers_footers_and_properties_stand_at_the_end_once() -> None:
    styles = document(
        "document-styles",
        "<office:master-styles><style:master-page><style:header><text:p>Top</text:p></style:header>"
        "<style:header-left><text:p>Top</text:p></style:header-left>"
        "<style:footer><text:p>Page <text:page-number>1</text:page-number></text:p></style:footer>"
        "</style:master-page></office:master-styles>",
    )
    meta = document(
        "document-meta",
        "<office:meta><dc:title>The title</dc:title><dc:creator>Eve</dc:creator><meta:keyword>k1</meta:keyword>"
        '<meta:user-defined meta:name="Client">Acme</meta:user-defined></office:meta>',
    )
    found = read(f"<office:text>{paragraph('Body')}</office:text>", styles=styles, meta=meta)
    assert found.text == (
        "Body\n\n## Headers and footers\n\nTop\n\nPage\n\n## Properties\n\n- Keywords: k1\n- Client: Acme\n"
    )
    assert (found.title, found.metadata) == ("The title", {"author": "Eve", "keywords": ["k1"]})


def test_sheets_are_pages_and_empty_repeated_cells_are_bounded() -> None:
    def sheet(name: str, rows: str) -> str:
        return f'<table:table table:name="{name}">{rows}</table:table>'

    row = (
        '<table:table-row table:number-rows-repeated="3"><table:table-cell office:value="7"/>'
        '<table:table-cell table:number-columns-repeated="2"/><table:table-cell><text:p>x</text:p></table:table-cell>'
        '<table:table-cell table:number-columns-repeated="16000"/></table:table-row>'
        '<table:table-row table:number-rows-repeated="1048576"><table:table-cell/></table:table-row>'
    )
    body = f"<office:spreadsheet>{sheet('One', row)}{sheet('Two', row)}</office:spreadsheet>"
    found = read(body, "spreadsheet-template")
    line = "| 7 |  |  | x |\n"
    assert found.kind == "ods"
    assert found.text.startswith(f"## One\n\n{line}| --- | --- | --- | --- |\n{line}{line}\n## Two\n")
    assert [found.text[start:][:6] for start in found.pages] == ["## One", "## Two"]


def test_what_is_repeated_without_end_costs_no_memory() -> None:
    cell = f'<table:table-cell table:number-columns-repeated="99999"><text:p>{"y" * 20_000}</text:p></table:table-cell>'
    row = f'<table:table-row table:number-rows-repeated="99999">{cell}</table:table-row>'
    found = read(f"<office:spreadsheet><table:table>{row * 20}</table:table></office:spreadsheet>", "spreadsheet")
    assert len(found.text) < 3_000_000


def test_slides_are_pages_with_titles_and_speaker_notes() -> None:
    def slide(title: str, rest: str) -> str:
        box = f"<draw:text-box>{paragraph(title)}</draw:text-box>"
        return f'<draw:page><draw:frame presentation:class="title">{box}</draw:frame>{rest}</draw:page>'

    shape = f"<draw:custom-shape>{paragraph('Shape')}</draw:custom-shape>"
    notes = f"<presentation:notes><draw:frame>{paragraph('Say this')}</draw:frame></presentation:notes>"
    found = read(f"<office:presentation>{slide('A', shape)}{slide('B', notes)}</office:presentation>", "presentation")
    assert found.text == "## A\n\nShape\n\n## B\n\nNotes:\n\nSay this\n"
    assert [found.text[start:][:4] for start in found.pages] == ["## A", "## B"]


def test_an_embedded_chart_gives_its_words_and_never_itself_again() -> None:
    itself = '<draw:object xlink:href="./"/><draw:object xlink:href="./Chart"/>'
    chart = document("document-content", "<office:body><text:p>Sales</text:p></office:body>")
    found = read(f"<office:text>{paragraph('See')}{itself}</office:text>", Chart__content=chart)
    assert "Sales" in found.text
    assert found.text.count("See") <= 4


def test_a_flat_document_is_read_and_its_macro_kept() -> None:
    flat = document(
        "document",
        "<office:meta><dc:title>Flat</dc:title></office:meta>"
        "<office:scripts><script:module>Sub Main\n  Beep\nEnd Sub</script:module></office:scripts>"
        f"<office:body><office:text>{paragraph('Grüße')}</office:text></office:body>",
    ).replace("UTF-8", "ISO-8859-1")
    found = extract(flat.encode("latin-1"), "letter.fodt")
    assert (found.kind, found.title, found.own_lines) == ("odt", "Flat", False)
    assert found.text == "Grüße\n\n## Macros\n\n```\nSub Main\n  Beep\nEnd Sub\n```\n"


def test_open_office_1_has_other_names_for_the_same() -> None:
    content = (
        '<office:document-content xmlns:office="http://openoffice.org/2000/office" '
        'xmlns:text="http://openoffice.org/2000/text"><office:body><text:h text:level="1">Old</text:h>'
        "<text:unordered-list><text:list-item><text:p>item</text:p></text:list-item></text:unordered-list>"
        "</office:body></office:document-content>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.sun.xml.writer")
        archive.writestr("content.xml", content)
    found = extract(file.getvalue(), "old.sxw")
    assert (found.kind, found.text) == ("odt", "# Old\n\n- item\n")


def test_a_broken_part_is_said_and_a_broken_document_refused() -> None:
    found = read(f"<office:text>{paragraph('Body')}</office:text>", styles="<office:broken")
    assert (found.text, found.partial) == ("Body\n", "1 part could not be read")
    with pytest.raises(Refused) as refused:
        read("<office:text></wrong>")
    assert refused.value.code == "damaged"


def encrypted(password: str, cipher: str) -> bytes:
    """As OpenOffice (Blowfish) and LibreOffice (AES) do it."""
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    packer = zlib.compressobj(wbits=-15)
    plain = document("document-content", f"<office:body>{paragraph('Secret words')}</office:body>").encode()
    packed = packer.compress(plain) + packer.flush()
    strong = cipher == "aes"
    vector, salt, size = os.urandom(16 if strong else 8), os.urandom(16), 32 if strong else 16
    digest = hashlib.sha256 if strong else hashlib.sha1
    key = hashlib.pbkdf2_hmac("sha1", digest(password.encode()).digest(), salt, 1000, size)
    pad = 16 - len(packed) % 16
    encryptor = Cipher(AES(key), CBC(vector)).encryptor() if strong else Cipher(Blowfish(key), CFB(vector)).encryptor()
    data = encryptor.update(packed + bytes([0] * (pad - 1) + [pad]) * strong) + encryptor.finalize()

    def text(value: bytes) -> str:
        return base64.b64encode(value).decode()

    generation = f'<m:start-key-generation m:start-key-generation-name="x#sha256" m:key-size="{size}"/>'
    manifest = (
        '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        '<m:file-entry m:full-path="content.xml"><m:encryption-data m:checksum-type="'
        f'{"x#sha256-1k" if strong else "SHA1/1K"}" m:checksum="{text(digest(packed[:1024]).digest())}">'
        f'<m:algorithm m:algorithm-name="{"x#aes256-cbc" if strong else "Blowfish CFB"}" '
        f'm:initialisation-vector="{text(vector)}"/><m:key-derivation m:key-derivation-name="PBKDF2" '
        f'm:key-size="{size}" m:iteration-count="1000" m:salt="{text(salt)}"/>{generation if strong else ""}'
        "</m:encryption-data></m:file-entry></m:manifest>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", MIME + "text")
        archive.writestr("META-INF/manifest.xml", manifest)
        archive.writestr("content.xml", data)
    return file.getvalue()


@pytest.mark.parametrize("cipher", ["aes", "blowfish"])
def test_an_encrypted_document_opens_with_its_password_only(cipher: str) -> None:
    data = encrypted("letmein", cipher)
    with pytest.raises(Refused) as refused:
        extract(data, "secret.odt")
    assert refused.value.code == "encrypted"
    with pytest.raises(Refused):
        read_package(Input(data, "secret.odt", "odt", passwords=("wrong",)))
    assert read_package(Input(data, "secret.odt", "odt", passwords=("wrong", "letmein"))).text == "Secret words\n"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    rows = f"<table:table-row>{paragraph('w' * 50)}</table:table-row>"
    whole = bytearray(package(f"<office:text><table:table>{rows}</table:table></office:text>"))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(30, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(40, len(whole)))])
    try:
        sniff(broken, "x.odt")
        read_package(Input(broken, "x.odt", "odt"))
    except Refused:
        pass
