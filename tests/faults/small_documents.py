"""Small valid documents of the office formats, made of nothing but the standard library."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape

__all__ = ["MAKERS", "zipped"]

_OFFICE = "http://schemas.openxmlformats.org"
_TYPES = f'<Types xmlns="{_OFFICE}/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>%s</Types>'  # noqa: E501
_RELS = f'<Relationships xmlns="{_OFFICE}/package/2006/relationships">%s</Relationships>'
_REL = f'<Relationship Id="rId%d" Type="{_OFFICE}/officeDocument/2006/relationships/%s" Target="%s"/>'
_OVERRIDE = '<Override PartName="/%s" ContentType="application/vnd.openxmlformats-officedocument.%s+xml"/>'


def zipped(members: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of these members, the same bytes each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, compression)
    return out.getvalue()


def docx(words: str, prolog: str = "") -> bytes:
    """``prolog`` goes before the root element: a DTD, say."""
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in words.split("\n"))
    return zipped(
        {
            "[Content_Types].xml": _TYPES % (_OVERRIDE % ("word/document.xml", "wordprocessingml.document.main")),
            "_rels/.rels": _RELS % (_REL % (1, "officeDocument", "word/document.xml")),
            "word/document.xml": f'{prolog}<w:document xmlns:w="{main}"><w:body>{body}</w:body></w:document>',
        }
    )


def xlsx(words: str, prolog: str = "") -> bytes:
    main, r = f"{_OFFICE}/spreadsheetml/2006/main", f"{_OFFICE}/officeDocument/2006/relationships"
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{line}</t></is></c></row>'
                   for n, line in enumerate(words.split("\n"), 1))  # fmt: skip
    kinds = (("xl/workbook.xml", "spreadsheetml.sheet.main"), ("xl/worksheets/sheet1.xml", "spreadsheetml.worksheet"))
    return zipped(
        {
            "[Content_Types].xml": _TYPES % "".join(_OVERRIDE % kind for kind in kinds),
            "_rels/.rels": _RELS % (_REL % (1, "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{r}"><sheets>'
            '<sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": _RELS % (_REL % (1, "worksheet", "worksheets/sheet1.xml")),
            "xl/worksheets/sheet1.xml": f'{prolog}<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>',
        }
    )


def pptx(words: str, prolog: str = "") -> bytes:
    p, a = f"{_OFFICE}/presentationml/2006/main", f"{_OFFICE}/drawingml/2006/main"
    r = f"{_OFFICE}/officeDocument/2006/relationships"
    lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in words.split("\n"))
    kinds = (
        ("ppt/presentation.xml", "presentationml.presentation.main"),
        ("ppt/slides/slide1.xml", "presentationml.slide"),
    )
    return zipped(
        {
            "[Content_Types].xml": _TYPES % "".join(_OVERRIDE % kind for kind in kinds),
            "_rels/.rels": _RELS % (_REL % (1, "officeDocument", "ppt/presentation.xml")),
            "ppt/presentation.xml": f'<p:presentation xmlns:p="{p}" xmlns:r="{r}"><p:sldIdLst>'
            '<p:sldId id="256" r:id="rId1"/></p:sldIdLst></p:presentation>',
            "ppt/_rels/presentation.xml.rels": _RELS % (_REL % (1, "slide", "slides/slide1.xml")),
            "ppt/slides/slide1.xml": f'{prolog}<p:sld xmlns:p="{p}" xmlns:a="{a}"><p:cSld><p:spTree><p:sp><p:txBody>'
            f"{lines}</p:txBody></p:sp></p:spTree></p:cSld></p:sld>",
        }
    )


def pdf(words: str) -> bytes:
    """One page, its text in a compressed stream."""
    shown = "\n".join(f"({line}) Tj T*" for line in words.split("\n"))
    content = zlib.compress(f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET".encode("latin-1"))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n%b" % (count, table)
    return out + head + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, len(out))


def html(words: str) -> bytes:
    body = "".join(f"<p>{escape(line)}</p>" for line in words.split("\n"))
    return f"<!DOCTYPE html><html><head><title>T</title></head><body>{body}</body></html>".encode()


#: format -> words to bytes
MAKERS: Mapping[str, Callable[[str], bytes]] = {"pdf": pdf, "docx": docx, "xlsx": xlsx, "pptx": pptx, "html": html}
