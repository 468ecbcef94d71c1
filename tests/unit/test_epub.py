"""Books: their chapters in the order of the spine."""

from __future__ import annotations

import contextlib
import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.epub import read_epub
from worker.extract import extract
from worker.extracted import Extracted, Input, Refused

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
PACKAGE = """<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The book</dc:title>
<dc:creator>Ann</dc:creator><dc:creator>Bob</dc:creator><dc:language>en</dc:language></metadata><manifest>
<item id="two" href="b.xhtml"/><item id="one" href="text/a%20a.xhtml"/><item id="css" href="x.css"/></manifest>
<spine><itemref idref="one"/><itemref idref="two"/><itemref idref="one"/></spine></package>"""


def book(**parts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", PACKAGE)
        archive.writestr("OEBPS/text/a a.xhtml", "<html><body><h1>First</h1><p>Words é</p></body></html>")
        archive.writestr("OEBPS/b.xhtml", "<html><body><h1>Second</h1></body></html>")
        for name, part in parts.items():
            archive.writestr(name.replace("__", "/") + ".xml", part)
    return file.getvalue()


def test_chapters_are_pages_in_the_order_of_the_spine() -> None:
    found = extract(book(), "file")
    assert (found.kind, found.text) == ("epub", "# First\n\nWords é\n\n# Second\n")
    assert [found.text[start:][:7] for start in found.pages] == ["# First", "# Secon"]
    assert (found.title, found.metadata) == ("The book", {"author": "Ann, Bob", "language": "en"})


def test_a_protected_book_is_refused_and_one_with_protected_fonts_is_read() -> None:
    method = '<enc:EncryptionMethod Algorithm="http://www.{}"/>'
    fonts = book(**{"META-INF__encryption": method.format("idpf.org/2008/embedding")})
    assert extract(fonts, "x.epub").text.startswith("# First")
    with pytest.raises(Refused) as refused:
        extract(book(**{"META-INF__encryption": method.format("w3.org/2001/04/xmlenc#aes128-cbc")}), "x.epub")
    assert refused.value.code == "encrypted"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(book())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        assert isinstance(read_epub(Input(bytes(whole), "x.epub", "epub")), Extracted)
