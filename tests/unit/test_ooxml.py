"""Office documents of the ZIP kind: the parts that the library leaves out, and what belongs to which slide or sheet."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.embedded import packed_file, unpacked
from worker.extract import Extracted, Refused, extract
from worker.known import Known
from worker.package import Broken

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
NAMESPACES = " ".join(
    f'xmlns:{prefix}="{address}"'
    for prefix, address in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "p": "http://schemas.openxmlformats.org/presentationml/2006/main",
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
        "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
        "r": f"{OFFICE}/relationships",
        "v": "urn:schemas-microsoft-com:vml",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "xdr": "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing",
    }.items()
)
CHART = (
    f"<c:chartSpace {NAMESPACES}>"
    "<c:title><c:tx><c:rich><a:p><a:r><a:t>Fruit</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    "<c:ser><c:cat><c:strRef><c:f>Sheet1!$A$1</c:f><c:strCache><c:pt><c:v>March</c:v></c:pt><c:pt><c:v>April</c:v>"
    "</c:pt></c:strCache></c:strRef></c:cat><c:val><c:numRef><c:numCache><c:formatCode>General</c:formatCode>"
    "<c:pt><c:v>7</c:v></c:pt></c:numCache></c:numRef></c:val></c:ser></c:chartSpace>"
)


def package(parts: dict[str, str | bytes]) -> bytes:
    """A ZIP of parts; relations are written as "part > type: target" lines under the key "relations"."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        types = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        types += '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        archive.writestr(
            "[Content_Types].xml", types + '<Default Extension="xml" ContentType="application/xml"/></Types>'
        )
        for name, part in parts.items():
            archive.writestr(name, part)
    return written.getvalue()


def relations(*listed: str) -> str:
    """Each "type target"; a target with "://" is external. Ids are r1, r2, ..."""
    items = []
    for number, (kind, target) in enumerate((line.split(" ", 1) for line in listed), 1):
        mode = ' TargetMode="External"' if "://" in target else ""
        items.append(f'<Relationship Id="r{number}" Type="{OFFICE}/relationships/{kind}" Target="{target}"{mode}/>')
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{space}">{"".join(items)}</Relationships>'


def paragraph(words: str) -> str:
    return f"<w:p><w:r><w:t>{words}</w:t></w:r></w:p>"


def word(body: str, *related: str, **parts: str | bytes) -> bytes:
    return package(
        {
            "_rels/.rels": relations("officeDocument word/document.xml", "custom-properties docProps/custom.xml"),
            "word/document.xml": f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relations(*related),
            **{f"word/{name.replace('__', '/')}.xml": part for name, part in parts.items()},
        }
    )


def part(root: str, content: str) -> str:
    return f"<{root} {NAMESPACES}>{content}</{root}>"


def slide(words: str, more: str = "") -> str:
    shape = f"<p:sp><p:nvSpPr/><p:txBody><a:p><a:r><a:t>{words}</a:t></a:r></a:p></p:txBody></p:sp>"
    return part("p:sld", f"<p:cSld><p:spTree>{shape}{more}</p:spTree></p:cSld>")


def presentation(order: list[int], **parts: str | bytes) -> bytes:
    listed = "".join(f'<p:sldId id="{255 + number}" r:id="r{number}"/>' for number in order)
    count = len(order)
    return package(
        {
            "_rels/.rels": relations("officeDocument ppt/presentation.xml"),
            "ppt/presentation.xml": part("p:presentation", f"<p:sldIdLst>{listed}</p:sldIdLst>"),
            "ppt/_rels/presentation.xml.rels": relations(*(f"slide slides/slide{n + 1}.xml" for n in range(count))),
            **{f"ppt/slides/slide{n + 1}.xml": slide(f"Words of file {n + 1}") for n in range(count)},
            **{f"ppt/{name.replace('__', '/')}": content for name, content in parts.items()},
        }
    )


def workbook(*sheets: tuple[str, str], **parts: str | bytes) -> bytes:
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, (name, _) in enumerate(sheets, 1))
    root, count = f'<workbook xmlns="{space}" xmlns:r="{OFFICE}/relationships">', len(sheets)
    bodies = (f'<worksheet xmlns="{space}">{body}</worksheet>' for _, body in sheets)
    return package(
        {
            "_rels/.rels": relations("officeDocument xl/workbook.xml"),
            "xl/workbook.xml": f"{root}<sheets>{listed}</sheets></workbook>",
            "xl/_rels/workbook.xml.rels": relations(*(f"worksheet worksheets/s{n + 1}.xml" for n in range(count))),
            **{f"xl/worksheets/s{n}.xml": body for n, body in enumerate(bodies, 1)},
            **{f"xl/{name.replace('__', '/')}": content for name, content in parts.items()},
        }
    )  # fmt: skip


def cells(words: str) -> str:
    cell = f'<c r="A1" t="inlineStr"><is><t>{words}</t></is></c>'
    return f'<sheetData><row r="1">{cell}</row></sheetData>'


def page_of(read: Extracted, words: str) -> int:
    at = read.text.index(words)
    return sum(start <= at for start in read.pages)


# Word -----------------------------------------------------------------------------------------------------


def test_headers_notes_charts_and_diagrams_stand_below_the_body() -> None:
    data = word(
        paragraph("The body"),
        "header header1.xml",
        "footnotes footnotes.xml",
        "chart charts/chart1.xml",
        "diagramData diagrams/data1.xml",
        header1=part("w:hdr", paragraph("Above each page")),
        footnotes=part("w:footnotes", f"<w:tbl><w:tr><w:tc>{paragraph('In a note')}</w:tc></w:tr></w:tbl>"),
        charts__chart1=CHART,
        diagrams__data1=part(
            "dgm:dataModel", "<dgm:pt><dgm:t><a:p><a:r><a:t>Step one</a:t></a:r></a:p></dgm:t></dgm:pt>"
        ),
    )

    text = extract(data, "a.docx").text

    assert text.startswith("The body")
    assert "## Headers and footers\n\nAbove each page" in text
    assert "## Charts\n\nFruit\nMarch April\n7" in text
    assert "In a note" in text
    assert "Step one" in text


def test_a_comment_has_its_author() -> None:
    comments = part("w:comments", f'<w:comment w:id="0" w:author="Ann Other">{paragraph("Is this right?")}</w:comment>')

    text = extract(word(paragraph("The body"), "comments comments.xml", comments=comments), "a.docx").text

    assert "Ann Other" in text
    assert text.count("Is this right?") == 1


def test_addresses_come_from_relations_fields_and_drawings() -> None:
    field = '<w:p><w:r><w:instrText> INCLUDETEXT "http://a.example/part" </w:instrText></w:r></w:p>'
    shape = '<w:p><w:r><w:pict><v:shape href="http://b.example/"/></w:pict></w:r></w:p>'

    text = extract(word(paragraph("Body") + field + shape, "subDocument http://c.example/1.docx"), "a.docx").text

    assert all(address in text for address in ("http://a.example/part", "http://b.example/", "http://c.example/1.docx"))
    assert "INCLUDETEXT" not in text


def test_a_text_box_in_two_versions_is_read_once() -> None:
    box = f"<w:txbxContent>{paragraph('Words in a box')}</w:txbxContent>"
    versions = (
        f'<w:p><w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing>{box}</w:drawing></mc:Choice>'
        f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )

    assert extract(word(paragraph("Body") + versions), "a.docx").text.count("Words in a box") == 1


def test_deleted_and_moved_words_are_left_out() -> None:
    body = (
        "<w:p><w:r><w:t>Kept</w:t></w:r><w:del><w:r><w:delText>Gone</w:delText></w:r></w:del>"
        '<w:moveFrom w:id="1"><w:r><w:t>Moved</w:t></w:r></w:moveFrom></w:p>'
        '<w:p><w:moveTo w:id="1"><w:r><w:t>Moved</w:t></w:r></w:moveTo></w:p>'
    )

    text = extract(word(body), "a.docx").text

    assert "Gone" not in text
    assert text.count("Moved") == 1


def test_references_tabs_and_hyphens_of_a_word_document_are_kept() -> None:
    body = paragraph("AT&amp;T &lt;x&gt; &#8364;") + (
        "<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr><w:r><w:t>Name:</w:t><w:tab/><w:t>Ann</w:t>"
        "<w:noBreakHyphen/><w:t>Sophie</w:t></w:r></w:p>"
    )

    text = extract(word(body), "a.docx").text

    assert "AT&T <x> \u20ac" in text
    assert "Name:\tAnn-Sophie" in text


def test_custom_properties_are_metadata_and_those_for_people_text() -> None:
    data = word(paragraph("Body"))
    custom = (
        '<Properties xmlns="x"><property name="Project"><v>Blue Whale</v></property>'
        "<property name='MSIP_Label'><v>true</v></property></Properties>"
    )
    with zipfile.ZipFile(held := io.BytesIO(data), "a") as archive:
        archive.writestr("docProps/custom.xml", custom)

    read = extract(held.getvalue(), "a.docx")

    assert read.metadata["Project"] == "Blue Whale"
    assert "## Properties\n\nProject: Blue Whale" in read.text
    assert not [key for key in read.metadata if key.startswith("MSIP")]


def test_words_of_other_parts_make_a_document_with_an_empty_body() -> None:
    data = word("<w:p/>", "footer footer1.xml", footer1=part("w:ftr", paragraph("Only here")))

    assert "Only here" in extract(data, "a.docx").text


def test_a_broken_part_makes_the_document_partial() -> None:
    data = word(paragraph("Body"), "footer footer1.xml", footer1=f"<w:ftr {NAMESPACES}>{paragraph('First')}<w:p><w:r>")

    read = extract(data, "a.docx")

    assert "First" in read.text
    assert read.partial == "1 part could not be read"


# PowerPoint -----------------------------------------------------------------------------------------------


def test_slides_stand_in_the_order_of_the_presentation_with_their_own_parts() -> None:
    data = presentation(
        [2, 1],
        **{
            "slides/_rels/slide2.xml.rels": relations("notesSlide ../notesSlides/n.xml", "chart ../charts/c.xml"),
            "notesSlides/n.xml": slide("Say this aloud"),
            "charts/c.xml": CHART,
        },
    )

    read = extract(data, "a.pptx")

    assert len(read.pages) == 2
    assert page_of(read, "Words of file 2") == page_of(read, "Say this aloud") == page_of(read, "Fruit") == 1
    assert page_of(read, "Words of file 1") == 2


def test_a_master_gives_its_own_words_but_no_prompts() -> None:
    shape = "<p:sp><p:nvSpPr>{}</p:nvSpPr><p:txBody><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:txBody></p:sp>"
    master = shape.format('<p:nvPr><p:ph type="title"/></p:nvPr>', "Click to edit") + shape.format("", "Our company")
    data = presentation(
        [1],
        **{
            "slides/_rels/slide1.xml.rels": relations("slideLayout ../slideLayouts/l.xml"),
            "slideLayouts/l.xml": part("p:sldLayout", ""),
            "slideLayouts/_rels/l.xml.rels": relations("slideMaster ../slideMasters/m.xml"),
            "slideMasters/m.xml": part("p:sldMaster", f"<p:cSld><p:spTree>{master}</p:spTree></p:cSld>"),
        },
    )

    text = extract(data, "a.pptx").text

    assert "Our company" in text
    assert "Click to edit" not in text


# Excel ----------------------------------------------------------------------------------------------------


def test_what_hangs_on_a_sheet_stands_with_the_sheet() -> None:
    codes = '&amp;L&amp;"Arial,Bold"&amp;12Left&amp;CR&amp;&amp;D&amp;RPage &amp;P'
    header = f"<headerFooter><oddHeader>{codes}</oddHeader></headerFooter>"
    box = "<xdr:sp><xdr:txBody><a:p><a:r><a:t>In a shape</a:t></a:r></a:p></xdr:txBody></xdr:sp>"
    data = workbook(
        ("One", cells("first")),
        ("Empty", "<sheetData/>"),
        ("Three", cells("third") + header),
        **{
            "worksheets/_rels/s1.xml.rels": relations("drawing ../drawings/d.xml", "hyperlink http://a.example/"),
            "drawings/d.xml": part("xdr:wsDr", box),
        },
    )  # fmt: skip

    read = extract(data, "a.xlsx")

    assert len(read.pages) == 3
    assert page_of(read, "first") == page_of(read, "In a shape") == page_of(read, "http://a.example/") == 1
    assert page_of(read, "third") == page_of(read, "Left R&D Page") == 3


def test_a_sheet_comment_has_the_name_of_its_author() -> None:
    comments = (
        "<comments><authors><author>Ann</author><author>Bob</author></authors><commentList>"
        '<comment ref="A1" authorId="1"><text><r><t>Check this</t></r></text></comment></commentList></comments>'
    )
    data = workbook(
        ("One", cells("first")),
        **{"worksheets/_rels/s1.xml.rels": relations("comments ../comments1.xml"), "comments1.xml": comments},
    )

    assert "Bob: Check this" in extract(data, "a.xlsx").text


def test_words_of_cells_are_found_when_the_library_cannot_read_the_workbook() -> None:
    strings = "<sst><si><t>Lost and</t></si><si><r><t>fo</t></r><r><t>und</t></r></si></sst>"
    read = extract(workbook(("One", "<sheetData><row"), **{"sharedStrings.xml": strings}), "a.xlsx")

    assert "Lost and" in read.text
    assert "found" in read.text
    assert read.partial


def test_japanese_words_have_their_reading_behind_them() -> None:
    strings = '<sst><si><t>\u6771\u4eac</t><rPh sb="0" eb="2"><t>\u3068\u3046</t></rPh></si></sst>'
    row = '<sheetData><row r="1"><c r="A1" t="s"><v>0</v></c></row></sheetData>'
    data = workbook(("One", row), **{"sharedStrings.xml": strings})
    listed = relations("worksheet worksheets/s1.xml", "sharedStrings sharedStrings.xml")
    parts = {
        name: zipfile.ZipFile(io.BytesIO(data)).read(name) for name in zipfile.ZipFile(io.BytesIO(data)).namelist()
    }
    parts["xl/_rels/workbook.xml.rels"] = listed.encode()
    del parts["[Content_Types].xml"]

    assert "\u6771\u4eac \u3068\u3046" in extract(package(dict(parts)), "a.xlsx").text


# Embedded files -------------------------------------------------------------------------------------------


def test_embedded_files_and_alternative_chunks_are_members() -> None:
    data = word(
        paragraph("Body"),
        "package embeddings/Sheet.xml",
        "aFChunk chunk.xml",
        embeddings__Sheet=b"PK-1",
        chunk="<html/>",
    )

    members = [(member.name, member.read(100)) for member in extract(data, "a.docx").members]

    assert members == [("Sheet.xml", b"PK-1"), ("chunk.xml", b"<html/>")]


def test_the_packager_gives_name_and_paths() -> None:
    stream = b"\x02\x00note.txt\0C:\\old\\note.txt\0\0\0\x03\0" + struct.pack("<I", 12) + b"C:\\tmp\\n.txt"
    stream += struct.pack("<I", 5) + b"hello"

    found = packed_file(struct.pack("<I", len(stream)) + stream, "oleObject1.bin")

    assert (found.name, found.paths, found.data) == ("note.txt", ("C:\\old\\note.txt", "C:\\tmp\\n.txt"), b"hello")


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_head_of_a_container_end_in_an_answer(tail: bytes) -> None:
    with suppress(Broken):
        unpacked(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + tail, "a.bin")


# Drawn pages ----------------------------------------------------------------------------------------------


def test_xps_pages_stand_in_the_order_of_the_document() -> None:
    glyphs = '<Glyphs UnicodeString="{}" OriginX="{}" OriginY="{}" FontRenderingEmSize="10"/>'
    data = package(
        {
            "_rels/.rels": relations("fixedrepresentation FixedDocSeq.fdseq"),
            "FixedDocSeq.fdseq": '<S><DocumentReference Source="Documents/1/D.fdoc"/></S>',
            "Documents/1/D.fdoc": '<D><PageContent Source="Pages/2.fpage"/><PageContent Source="Pages/1.fpage"/></D>',
            "Documents/1/Pages/1.fpage": f"<P>{glyphs.format('last', 0, 0)}</P>",
            "Documents/1/Pages/2.fpage": f"<P>{glyphs.format('Hello', 0, 0)}{glyphs.format('all', 90, 0)}"
            f"{glyphs.format('next', 0, 20)}</P>",
        }
    )

    read = extract(data, "a.xps")

    assert read.text == "Hello all\nnext\n\nlast"
    assert read.pages == (0, 16)


# Known ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "pieces", "known"),
    [
        ("Quarterly  report", [], True),
        ("bold in the middle", ["bold", " in the ", "middle"], True),
        ("Quarterly summary", ["Quarterly ", "summary"], False),
        ("art", [], False),
        ("I1", [], True),
        ("...", [], True),
    ],
)
def test_words_are_known_whatever_their_marks(words: str, pieces: list[str], known: bool) -> None:
    assert Known("# Quarterly report\n\n**bold**[1] in the middle party\n- I 1").has(words, pieces) is known


# Damage ---------------------------------------------------------------------------------------------------

SOUND = word(
    paragraph("The body"),
    "header header1.xml",
    "oleObject embeddings/o.xml",
    header1=part("w:hdr", paragraph("Above")),
    embeddings__o=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(SOUND)))
def test_damaged_documents_are_read_or_refused(flips: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SOUND)
    for at, value in flips:
        data[at] = value
    try:
        read = extract(bytes(data[:end] if end % 3 else data), "a.docx")
        for member in read.members:
            member.read(1000)
    except Refused:
        pass
