"""Documents that are small and want to become large, and documents that name what is not theirs."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

from small_documents import docx, pdf, pptx, xlsx, zipped

__all__ = ["BOMBS", "ENTITIES"]

_MIB = 1024 * 1024


def _flat_docx() -> bytes:
    """1 GiB of one letter in 1 MiB."""
    return _with_member(docx("x"), "word/document.xml", _deflated_letters(1024))


def _flat_xlsx() -> bytes:
    return _with_member(xlsx("x"), "xl/worksheets/sheet1.xml", _deflated_letters(1024))


def _flat_pptx() -> bytes:
    return _with_member(pptx("x"), "ppt/slides/slide1.xml", _deflated_letters(1024))


def _nested() -> bytes:
    """Zips in a zip in a zip, 1 TiB in all."""
    inner = zipped({"0": bytes(64 * _MIB)})
    for _ in range(5):
        inner = zipped({f"{n}.zip": inner for n in range(10)})
    return _with_members(docx("x"), {"word/embeddings/o.zip": inner})


def _many_entries() -> bytes:
    return _with_members(docx("x"), {f"word/media/{n}.xml": b"" for n in range(100_000)})


def _overlapping() -> bytes:
    """10,000 directory entries that all name one body of 64 MiB: 640 GiB from 700 KB."""
    packed = zlib.compress(b"<" * (64 * _MIB), 9)[2:-4]
    size, checksum = 64 * _MIB, zlib.crc32(b"<" * (64 * _MIB))
    name = b"word/document.xml"
    fixed = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, checksum, len(packed), size, len(name), 0)
    out = b"PK\3\4" + fixed + name + packed
    start = len(out)
    entry = b"PK\1\2" + struct.pack("<H", 20) + fixed + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    directory = entry * 10_000
    return out + directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 10_000, 10_000, len(directory), start, 0)


def _pdf_stream() -> bytes:
    """A page whose content inflates to 1 GiB, packed twice."""
    plain = pdf("x")
    packed = zlib.compress(_zlib_zeros(1024), 9)
    head, _, rest = plain.partition(b"<< /Length")
    tail = rest[rest.index(b"endstream") :]
    return head + b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%b\n" % (len(packed), packed) + tail


def _laughs(levels: int = 12) -> str:
    names = [f'<!ENTITY e0 "{"ha" * 10}">']
    names += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels)]
    return f"<!DOCTYPE x [{''.join(names)}]>"


def _quadratic() -> tuple[str, str]:
    return f'<!DOCTYPE x [<!ENTITY a "{"a" * 200_000}">]>', "&a;" * 50_000


def _xml_laughs() -> bytes:
    return f"{_laughs()}<x>&e11;</x>".encode()


def _xml_quadratic() -> bytes:
    prolog, words = _quadratic()
    return f"{prolog}<x>{words}</x>".encode()


def _xml_deep() -> bytes:
    return b"<a>" * 1_000_000 + b"x" + b"</a>" * 1_000_000


def _attributes() -> bytes:
    return b"<x " + b" ".join(b'a%d="1"' % n for n in range(1_000_000)) + b">x</x>"


def _html_deep() -> bytes:
    return b"<!DOCTYPE html><html><body>" + b"<div>" * 500_000 + b"x"


def _front_matter() -> bytes:
    """YAML that multiplies by its anchors."""
    lines = ["---", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join([*lines, "---", "words"]).encode()


def _deflated_letters(mebibytes: int) -> tuple[bytes, int, int]:
    """Raw deflated letters, their size and checksum, made piece by piece."""
    packer, piece, checksum, out = zlib.compressobj(9, zlib.DEFLATED, -15), b"a" * _MIB, 0, b""
    for _ in range(mebibytes):
        out += packer.compress(piece)
        checksum = zlib.crc32(piece, checksum)
    return out + packer.flush(), mebibytes * _MIB, checksum


def _zlib_zeros(mebibytes: int) -> bytes:
    packer, piece = zlib.compressobj(9), b" " * _MIB
    return b"".join([*(packer.compress(piece) for _ in range(mebibytes)), packer.flush()])


def _with_members(document: bytes, more: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO(document)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, data in more.items():
            archive.writestr(name, data)
    return out.getvalue()


def _with_member(document: bytes, name: str, body: tuple[bytes, int, int]) -> bytes:
    """One member replaced by a body that is deflated already."""
    packed, size, checksum = body
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        rest = {other: archive.read(other) for other in archive.namelist() if other != name}
    out = io.BytesIO(zipped(rest))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), packed)
    # stored as it is, then declared as deflated in both of its headers
    data = bytearray(out.getvalue())
    local, central = data.rindex(b"PK\3\4"), data.rindex(b"PK\1\2")
    for at in (local + 8, central + 10):
        data[at : at + 2] = struct.pack("<H", 8)
    for at in (local + 14, central + 16):
        data[at : at + 12] = struct.pack("<III", checksum, len(packed), size)
    return bytes(data)


#: name -> file name and what makes the document
BOMBS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "zip flat docx": ("a.docx", _flat_docx),
    "zip flat xlsx": ("a.xlsx", _flat_xlsx),
    "zip flat pptx": ("a.pptx", _flat_pptx),
    "zip nested": ("a.docx", _nested),
    "zip many entries": ("a.docx", _many_entries),
    "zip overlapping": ("a.docx", _overlapping),
    "pdf stream": ("a.pdf", _pdf_stream),
    "xml laughs": ("a.xml", _xml_laughs),
    "xml quadratic": ("a.xml", _xml_quadratic),
    "xml deep": ("a.xml", _xml_deep),
    "xml attributes": ("a.xml", _attributes),
    "html deep": ("a.html", _html_deep),
    "docx laughs": ("a.docx", lambda: docx("&e11;", _laughs())),
    "xlsx laughs": ("a.xlsx", lambda: xlsx("&e11;", _laughs())),
    "pptx laughs": ("a.pptx", lambda: pptx("&e11;", _laughs())),
    "docx quadratic": ("a.docx", lambda: docx(_quadratic()[1], _quadratic()[0])),
    "yaml anchors": ("a.md", _front_matter),
}


def _entity(url: str) -> str:
    return f'<!DOCTYPE x [<!ENTITY % p SYSTEM "{url}"> %p; <!ENTITY e SYSTEM "{url}">]>'


def _epub(url: str) -> bytes:
    container = (
        '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    opf = (
        f'{_entity(url)}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        '<item id="i" href="c.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="i"/></spine></package>'
    )
    page = f'{_entity(url)}<html xmlns="http://www.w3.org/1999/xhtml"><body><p>words &e;</p></body></html>'
    members = {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "c.opf": opf, "c.xhtml": page}
    return zipped(members)


def _svg_html(url: str) -> bytes:
    parts = f'<img src="{url}"><link rel="stylesheet" href="{url}"><iframe src="{url}"></iframe><script src="{url}">'
    return f"<!DOCTYPE html><html><body><p>words</p>{parts}</script></body></html>".encode()


def _odt(url: str) -> bytes:
    oasis = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'{_entity(url)}<office:document-content xmlns:office="{oasis}:office:1.0" xmlns:text="{oasis}:text:1.0">'
        "<office:body><office:text><text:p>words &e;</text:p></office:text></office:body></office:document-content>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def _remote_template(url: str) -> bytes:
    """A relationship that points outside."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/attachedTemplate"
    rels = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="rId9" Type="{kind}" Target="{url}" TargetMode="External"/></Relationships>'
    )
    return _with_members(docx("words"), {"word/_rels/document.xml.rels": rels.encode()})


#: name -> file name and what makes a document that names a URL (file:// or http://)
ENTITIES: Mapping[str, tuple[str, Callable[[str], bytes]]] = {
    "xml": ("a.xml", lambda url: f"{_entity(url)}<x>words &e;</x>".encode()),
    "docx": ("a.docx", lambda url: docx("words &e;", _entity(url))),
    "xlsx": ("a.xlsx", lambda url: xlsx("words &e;", _entity(url))),
    "pptx": ("a.pptx", lambda url: pptx("words &e;", _entity(url))),
    "epub": ("a.epub", _epub),
    "odt": ("a.odt", _odt),
    "template": ("a.docx", _remote_template),
    "html": ("a.html", _svg_html),
    "svg": (
        "a.svg",
        lambda url: f'{_entity(url)}<svg xmlns="http://www.w3.org/2000/svg"><text>&e;</text></svg>'.encode(),
    ),
    "xinclude": (
        "a.xml",
        lambda url: f'<x xmlns:i="http://www.w3.org/2001/XInclude"><i:include href="{url}" parse="text"/></x>'.encode(),
    ),
}
