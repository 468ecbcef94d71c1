"""PDF files built here by hand: pages, notes, fields, bookmarks, files within, and what damage makes of them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from worker.extracted import Extracted, Input, Refused
from worker.office import engine_is_broken
from worker.pdf import read_pdf

BOX = "/MediaBox [0 0 612 792]"


def pdf(*objects: str, root: str = "", before: bytes = b"") -> bytes:
    """Objects 2, 3 ... as given; object 1 is the catalog, whose pages are object 2."""
    out, places = before + b"%PDF-1.7\n", []
    for number, body in enumerate((f"<< /Type /Catalog /Pages 2 0 R {root} >>", *objects), 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = len(out)
    out += f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    return out + f"trailer\n<< /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()


def stream(content: str, keys: str = "") -> str:
    return f"<< /Length {len(content)} {keys} >>\nstream\n{content}\nendstream"


def words(text: str, x: int = 50, y: int = 700) -> str:
    return stream(f"BT /F1 12 Tf {x} {y} Td ({text}) Tj ET")


FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pages(*contents: str, box: str = BOX, more: str = "", extra: tuple[str, ...] = (), root: str = "") -> bytes:
    """One page for each content stream; `more` goes into each page, `extra` are objects 4 + 2 n and on."""
    first = 4
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(len(contents)))
    body: list[str] = []
    for n, content in enumerate(contents):
        body.append(
            f"<< /Type /Page /Parent 2 0 R {box} /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {first + 2 * n + 1} 0 R {more} >>"
        )
        body.append(content)
    return pdf(f"<< /Type /Pages /Count {len(contents)} /Kids [{kids}] >>", FONT, *body, *extra, root=root)


def read(data: bytes, *passwords: str) -> Extracted:
    return read_pdf(Input(data, "a.pdf", "pdf", "application/pdf", passwords))


def test_each_page_starts_where_its_words_do() -> None:
    found = read(pages(words("first"), words(""), words("third")))

    assert len(found.pages) == 3 == found.metadata["pages"]
    assert found.text[found.pages[0] :].startswith("first")
    assert found.text[found.pages[2] :].startswith("third")
    assert not found.text[found.pages[1] : found.pages[2]].strip()
    assert found.partial is None  # an empty page misses nothing


@pytest.mark.parametrize(
    "box",
    [
        "/MediaBox [0 0 612 792] /CropBox [40 600 300 792]",
        "/MediaBox [0 600 612 792]",
        "/MediaBox [0 0 612 792] /Rotate 90",
        "/MediaBox [-100 -100 512 750]",
    ],
)
def test_a_cropped_moved_or_turned_page_keeps_its_words(box: str) -> None:
    assert "shown words" in read(pages(words("shown words"), box=box)).text


def test_notes_stand_on_their_page_and_links_do_not() -> None:
    extra = (
        "<< /Type /Annot /Subtype /FreeText /Rect [0 0 9 9] /Contents (a free text) >>",
        "<< /Type /Annot /Subtype /Text /Rect [0 0 9 9] /Contents (a comment) >>",
        "<< /Type /Annot /Subtype /Link /Rect [0 0 9 9] /Contents (a link) >>",
    )
    found = read(pages(words("one"), more="/Annots [6 0 R 7 0 R 8 0 R]", extra=extra))

    assert found.text == "one\n\na free text\n\na comment"


def test_filled_fields_are_read_with_their_labels() -> None:
    extra = (
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (f1) /TU (Your name) /V (Ada Lovelace) /Rect [0 0 9 9] >>",
        "<< /Type /Annot /Subtype /Widget /Parent 8 0 R /Rect [0 0 9 9] >>",
        "<< /FT /Ch /T (Town) /V [(London) (Paris)] /Kids [7 0 R] >>",
        "<< /Type /Annot /Subtype /Widget /FT /Btn /T (Send) /V /Yes /Rect [0 0 9 9] >>",
    )
    found = read(pages(words("one"), more="/Annots [6 0 R 7 0 R 9 0 R]", extra=extra, root="/AcroForm << >>"))

    assert found.text == "one\n\nYour name: Ada Lovelace\n\nTown: London, Paris"


def test_the_words_of_an_xfa_form_are_read() -> None:
    form = "<template xmlns='http://www.xfa.org/schema/xfa-template/2.8/'><text>Caption</text><script>x = 1</script>"
    extra = (stream(form + "<value><text>An answer</text></value></template>"),)
    found = read(pages(words("Please wait"), extra=extra, root="/AcroForm << /XFA 6 0 R >>"))

    assert found.text == "Please wait\n\nCaption\nAn answer"


def test_bookmarks_that_the_text_does_not_have_are_added_at_its_end() -> None:
    extra = (
        "<< /First 7 0 R /Last 8 0 R >>",
        "<< /Title (The Text) /Next 8 0 R /Parent 6 0 R >>",
        "<< /Title (Another heading) /Next 7 0 R /Parent 6 0 R >>",  # a ring
    )
    found = read(pages(words("the text"), extra=extra, root="/Outlines 6 0 R"))

    assert found.text == "the text\n\nAnother heading"


def test_files_within_are_members_of_which_no_more_is_unpacked_than_asked_for() -> None:
    extra = (
        "<< /Type /Filespec /F (a\\\\b.txt) /EF << /F 7 0 R >> >>",
        stream("hello world", "/Type /EmbeddedFile"),
        "<< /Type /Filespec /UF (c.txt) /EF << /F 9 0 R >> >>",
        stream("other", "/Type /EmbeddedFile"),
    )
    root = "/Names << /EmbeddedFiles << /Names [(1) 6 0 R (2) 8 0 R (again) 6 0 R] >> >>"
    found = read(pages(words("one"), extra=extra, root=root))

    assert [(member.name, member.read(5)) for member in found.members] == [("a/b.txt", b"hello"), ("c.txt", b"other")]


def test_properties_keep_their_time_zone() -> None:
    data = pages(
        words("one"), extra=("<< /Title (A title) /Keywords (a; b) /CreationDate (D:20200102030405+02'00') >>",)
    )
    found = read(data.replace(b"/Root 1 0 R", b"/Root 1 0 R /Info 6 0 R"))

    assert found.title == "A title"
    assert found.metadata["keywords"] == ["a", "b"]
    assert found.metadata["created"] == "2020-01-02T03:04:05+02:00"


def test_a_date_of_another_form_costs_the_date_only() -> None:
    data = pages(words("one"), extra=("<< /Title (A title) /CreationDate (3'!\x94\x80T6V) >>",))
    found = read(data.replace(b"/Root 1 0 R", b"/Root 1 0 R /Info 6 0 R"))

    assert (found.text, found.title) == ("one", "A title")
    assert "created" not in found.metadata


def test_properties_are_found_in_the_metadata_packet_as_well() -> None:
    packet = (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'><r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#' "
        "xmlns:dc='http://purl.org/dc/elements/1.1/'><r:Description><dc:title><r:Alt><r:li>From XMP</r:li></r:Alt>"
        "</dc:title><dc:creator><r:Seq><r:li>A</r:li><r:li>B</r:li></r:Seq></dc:creator></r:Description></r:RDF>"
        "</x:xmpmeta>"
    )
    found = read(pages(words("one"), extra=(stream(packet, "/Type /Metadata /Subtype /XML"),), root="/Metadata 6 0 R"))

    assert (found.title, found.metadata["author"]) == ("From XMP", "A, B")


def test_pages_that_are_pictures_are_said_to_lack_a_text_layer() -> None:
    picture = "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 /ColorSpace /DeviceGray"
    data = pages(words("one"), stream("/Im Do"), extra=(f"{picture} /Length 1 >>\nstream\nx\nendstream",))
    at = data.rindex(b"/F1 3 0 R >>")
    changed = data[:at] + b"/F1 3 0 R >> /XObject << /Im 8 0 R >>" + data[at + 12 :]

    assert read(changed).partial == "1 of 2 pages has no text layer"


#: RC4 of 40 bits, made with qpdf: "a secret", for the user password "open" or the owner password "own".
ENCRYPTED = base64.b64decode(
    """
    JVBERi0xLjcKJb/3ov4KMSAwIG9iago8PCAvUGFnZXMgMiAwIFIgL1R5cGUgL0NhdGFsb2cgPj4KZW5kb2JqCjIgMCBvYmoKPDwgL0NvdW50ID
    EgL0tpZHMgWyAzIDAgUiBdIC9UeXBlIC9QYWdlcyA+PgplbmRvYmoKMyAwIG9iago8PCAvQ29udGVudHMgNCAwIFIgL01lZGlhQm94IFsgMCAw
    IDYxMiA3OTIgXSAvUGFyZW50IDIgMCBSIC9SZXNvdXJjZXMgPDwgL0ZvbnQgPDwgL0YxIDUgMCBSID4+ID4+IC9UeXBlIC9QYWdlID4+CmVuZG
    9iago0IDAgb2JqCjw8IC9MZW5ndGggNDcgL0ZpbHRlciAvRmxhdGVEZWNvZGUgPj4Kc3RyZWFtCqQUmDdyRGCuOh1xVGXw7bBrSs5JLligA0FZ
    vZeryXxheoxkzDyOGxrWyL22sMKJZW5kc3RyZWFtCmVuZG9iago1IDAgb2JqCjw8IC9CYXNlRm9udCAvSGVsdmV0aWNhIC9TdWJ0eXBlIC9UeX
    BlMSAvVHlwZSAvRm9udCA+PgplbmRvYmoKNiAwIG9iago8PCAvRmlsdGVyIC9TdGFuZGFyZCAvTGVuZ3RoIDQwIC9PIDwxZTYxOTczYjQ0NDdj
    NmJlZjc2ZjM5NmM3ZWQwOWQxNzdlMDg2ZTY5ZTBiZjFkN2NiNmRiMzIxMGZjNzM0MDllPiAvUCAtNCAvUiAyIC9VIDxkNzk2NzI3NjA1ZmY5Mj
    Y2YTczZDYxMzg0NjNlMzIxN2QwZjM3OGQ4YzEzYmQ0OTU4N2IxOTliZDIwNThlMmJhPiAvViAxID4+CmVuZG9iagp4cmVmCjAgNwowMDAwMDAw
    MDAwIDY1NTM1IGYgCjAwMDAwMDAwMTUgMDAwMDAgbiAKMDAwMDAwMDA2NCAwMDAwMCBuIAowMDAwMDAwMTIzIDAwMDAwIG4gCjAwMDAwMDAyNT
    EgMDAwMDAgbiAKMDAwMDAwMDM2OCAwMDAwMCBuIAowMDAwMDAwNDM4IDAwMDAwIG4gCnRyYWlsZXIgPDwgL1Jvb3QgMSAwIFIgL1NpemUgNyAv
    SUQgWzwzMTQxNTkyNjUzNTg5NzkzMjM4NDYyNjQzMzgzMjc5NT48MzE0MTU5MjY1MzU4OTc5MzIzODQ2MjY0MzM4MzI3OTU+XSAvRW5jcnlwdC
    A2IDAgUiA+PgpzdGFydHhyZWYKNjQ0CiUlRU9GCg==
    """
)


@pytest.mark.parametrize("passwords", [("open",), ("no", "own")])
def test_a_password_that_fits_opens_it(passwords: tuple[str, ...]) -> None:
    assert read(ENCRYPTED, *passwords).text == "a secret"


@pytest.mark.parametrize("passwords", [(), ("no",)])
def test_without_a_password_that_fits_it_is_refused(passwords: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="protected by a password") as refusal:
        read(ENCRYPTED, *passwords)
    assert refusal.value.code == "encrypted"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_ends_in_an_outcome(data: st.DataObject) -> None:
    whole = bytearray(
        pages(
            words("first"),
            words("second"),
            more="/Annots [8 0 R]",
            extra=(
                "<< /Type /Annot /Subtype /Text /Rect [0 0 9 9] /Contents (a comment) >>",
                "<< /First 10 0 R /Last 10 0 R >>",
                "<< /Title (Heading) /Parent 9 0 R >>",
            ),
            root="/Outlines 9 0 R",
            box="/MediaBox [0 0 612 792] /CropBox [40 600 300 792]",
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(whole) // 2, len(whole)))
    try:
        found = read(bytes(whole[:cut]))
    except OSError:
        assert engine_is_broken()  # a child of its own would end now
        assume(False)
    except Refused as refusal:
        assert refusal.code in ("damaged", "encrypted", "too large")
    else:
        assert list(found.pages) == sorted(found.pages)
        assert all(start <= len(found.text) for start in found.pages)
