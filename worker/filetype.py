"""What a document is: by its content first, by its name second.

`sniff` looks at the bytes and finds containers and binary kinds; `of_text` looks at decoded characters and,
where they say nothing, at the name. A wrong or missing extension never overrules what the content shows.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.extracted import Refused

__all__ = ["Format", "of_text", "sniff"]


@dataclass(frozen=True, slots=True)
class Format:
    """One row of what can be read. Without a `reader` it is text, which needs no library."""

    kind: str
    mime: str = ""
    #: module:function of a `Reader`, imported when the first document of this kind comes
    reader: str = ""


_OFFICE = "application/vnd.openxmlformats-officedocument."
_ODF = "application/vnd.oasis.opendocument."

_LIBRARY = "worker.office:read_document"
_PDF = Format("pdf", "application/pdf", _LIBRARY)
_RTF = Format("rtf", "application/rtf", _LIBRARY)
_EML = Format("eml", "message/rfc822", _LIBRARY)
_XML = Format("xml", "application/xml", "worker.xmltext:read_xml")
_IPYNB = Format("ipynb", "application/x-ipynb+json", _LIBRARY)

#: A name inside the ZIP that only this format has.
_ZIP_MEMBERS = (
    ("word/document.xml", Format("docx", _OFFICE + "wordprocessingml.document", _LIBRARY)),
    ("word/document2.xml", Format("docx", _OFFICE + "wordprocessingml.document", _LIBRARY)),
    ("ppt/presentation.xml", Format("pptx", _OFFICE + "presentationml.presentation", _LIBRARY)),
    ("xl/workbook.xml", Format("xlsx", _OFFICE + "spreadsheetml.sheet", _LIBRARY)),
    ("xl/workbook.bin", Format("xlsx", "application/vnd.ms-excel.sheet.binary.macroEnabled.12", _LIBRARY)),
    ("META-INF/container.xml", Format("epub", "application/epub+zip", _LIBRARY)),
)
#: Content of the entry `mimetype`, which EPUB and OpenDocument store first.
_ZIP_MIMETYPES = {
    "application/epub+zip": Format("epub", "application/epub+zip", _LIBRARY),
    _ODF + "text": Format("odt", _ODF + "text", _LIBRARY),
    _ODF + "spreadsheet": Format("ods", _ODF + "spreadsheet", _LIBRARY),
}
#: A stream name (UTF-16) that only this format has in its OLE2 container; what embeds others comes first.
_OLE_STREAMS = (
    ("__properties_version1.0", Format("msg", "application/vnd.ms-outlook", _LIBRARY)),
    ("WordDocument", Format("doc", "application/msword", _LIBRARY)),
    ("PowerPoint Document", Format("ppt", "application/vnd.ms-powerpoint", _LIBRARY)),
    ("WORKBOOK", Format("xls", "application/vnd.ms-excel", _LIBRARY)),
    ("Workbook", Format("xls", "application/vnd.ms-excel", _LIBRARY)),
    ("Book", Format("xls", "application/vnd.ms-excel", _LIBRARY)),
)

#: The header token that the Current User stream of an encrypted presentation has.
_PPT_ENCRYPTED = b"\xdf\xc4\xd1\xf3"

_ARCHIVE, _IMAGE, _SOUND = "archives are not read", "images are not read", "sound and video are not read"
#: Signature, where it stands, what the file is. One of letters only needs a NUL byte nearby to count: a text
#: may begin with "ID3 tags are" or "GIF89a is".
_SIGNATURES: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\x1f\x8b", 0, "unsupported", _ARCHIVE),
    (b"\x1f\x9d", 0, "unsupported", _ARCHIVE),
    (b"BZh91AY&SY", 0, "unsupported", _ARCHIVE),
    (b"\xfd7zXZ\x00", 0, "unsupported", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", 0, "unsupported", _ARCHIVE),
    (b"Rar!\x1a\x07", 0, "unsupported", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", 0, "unsupported", _ARCHIVE),
    (b"ustar", 257, "unsupported", _ARCHIVE),
    (b"\x89PNG\r\n", 0, "unsupported", _IMAGE),
    (b"\xff\xd8\xff", 0, "unsupported", _IMAGE),
    (b"GIF87a", 0, "unsupported", _IMAGE),
    (b"GIF89a", 0, "unsupported", _IMAGE),
    (b"II*\x00", 0, "unsupported", _IMAGE),
    (b"MM\x00*", 0, "unsupported", _IMAGE),
    (b"WEBPVP8", 8, "unsupported", _IMAGE),
    (b"\x00\x00\x01\x00", 0, "unsupported", _IMAGE),
    (b"ftypavif", 4, "unsupported", _IMAGE),
    (b"ftypheic", 4, "unsupported", _IMAGE),
    (b"ftyp", 4, "unsupported", _SOUND),
    (b"WAVEfmt", 8, "unsupported", _SOUND),
    (b"AVI", 8, "unsupported", _SOUND),
    (b"ID3", 0, "unsupported", _SOUND),
    (b"\xff\xfb", 0, "unsupported", _SOUND),
    (b"fLaC\x00", 0, "unsupported", _SOUND),
    (b"OggS\x00", 0, "unsupported", _SOUND),
    (b"\x1aE\xdf\xa3", 0, "unsupported", _SOUND),
    (b"\x7fELF", 0, "binary", "an executable"),
    (b"\xca\xfe\xba\xbe", 0, "binary", "an executable"),
    (b"\xcf\xfa\xed\xfe", 0, "binary", "an executable"),
    (b"\x00asm", 0, "binary", "an executable"),
    (b"SQLite format 3\x00", 0, "unsupported", "databases are not read"),
    (b"bplist00", 0, "unsupported", "binary property lists are not read"),
    (b"ITSF", 0, "unsupported", "compiled help is not read"),
)

_EXTENSIONS = {
    "markdown": "md markdown mdown mkd mkdn mdx qmd rmd",
    "rst": "rst rest",
    "html": "html htm xhtml xht shtml",
    "json": "json jsonl ndjson geojson webmanifest jsonld",
    "csv": "csv tsv tab psv",
    "xml": (
        "xml xsd xsl xslt rss atom rdf kml gpx plist wsdl nxml fb2 opml resx xlf xliff dita ditamap dtd fodt "
        "tei dbk docbook tmx xbrl"
    ),
    "org": "org",
    "asciidoc": "adoc asciidoc",
    "mediawiki": "mediawiki wiki",
    "latex": "tex ltx latex",
    "texinfo": "texi texinfo txi",
    "subtitles": "srt vtt sbv ass ssa lrc",
    "eml": "eml",
    "ipynb": "ipynb",
    "code": (
        "py pyi pyx pxd ipy js mjs cjs jsx ts mts cts tsx vue svelte java kt kts scala sc groovy gradle "
        "clj cljs cljc c h cc cpp cxx hh hpp hxx ino m mm cs fs fsi fsx vb swift go rs zig d nim v odin "
        "rb erb rake gemspec php pl pm t lua tcl r jl ex exs erl hrl hs lhs ml mli elm purs dart pas pp f "
        "f90 f95 for ada adb ads asm s cob lisp lsp cl el scm rkt sh bash zsh fish ksh ps1 psm1 bat cmd "
        "awk sed sql graphql gql proto thrift cmake mk mak ninja bzl bazel nix tf tfvars hcl dockerfile "
        "yaml yml toml ini cfg conf properties env editorconfig css scss sass less styl vhd vhdl sv svh "
        "sty cls bib jinja j2 tmpl mustache hbs ejs pug sol cu cuh glsl hlsl wgsl vert frag metal "
        "patch diff gitignore dockerignore gitattributes po pot"
    ),
}
_KIND_OF_EXTENSION = {ext: kind for kind, exts in _EXTENSIONS.items() for ext in exts.split()}
_CODE_NAMES = frozenset(
    (
        "makefile", "gnumakefile", "dockerfile", "containerfile", "jenkinsfile", "vagrantfile", "rakefile",
        "gemfile", "procfile", "justfile", "cmakelists.txt", "meson.build", "build", "workspace", "brewfile",
    )
)  # fmt: skip

#: What may stand before the first element. Possessive: hostile markup must not make it try every combination.
_PROLOGUE = r"\s*+(?:(?:<\?xml[^>]*+>|(?><!--.*?-->))\s*+)*+"
_HTML_START = re.compile(_PROLOGUE + r"<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_SVG_START = re.compile(_PROLOGUE + r"(?:<!doctype\s+svg[^>]*+>\s*+)?(?><!--.*?-->)?\s*+<svg[\s>]", re.I | re.S)
_XML_START = re.compile(
    r"\s*+<(?:\?xml\s|(?:rss|feed|rdf:RDF|opml|kml|FictionBook|TEI|tmx|xliff)[\s>]|[a-zA-Z][\w:.-]*+\s[^<>]{0,2000}?\bxmlns)"
)
#: Kinds whose headings stand in lines of their own, and how some of them must begin.
_LINE_KINDS = frozenset(("org", "asciidoc", "mediawiki", "latex", "texinfo", "man"))
_STARTS = (
    ("man", re.compile(r"(?:[.'][ \t]*\\\"[^\n]*+\n|\s*+\n)*+\.(?:TH|Dd)[ \t]")),
    ("latex", re.compile(r"(?:\s*+%[^\n]*+\n|\s*+\n)*+\s*+\\documentclass\b")),
    ("texinfo", re.compile(r"\\input texinfo\b")),
)
_HEADER = re.compile(rb"(?:[!-9;-~]{1,76}:[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n){2,}")
_MAIL_HEADER = re.compile(
    rb"^(?:from|to|cc|subject|date|message-id|received|mime-version|return-path|delivered-to|reply-to|content-type):",
    re.I | re.M,
)


def sniff(data: bytes, name: str) -> Format | None:
    """The format that the bytes themselves show, None when they may be text.

    Raises `Refused` for what is recognised and cannot be read.
    """
    if _is_pdf(data, name):
        return _PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _ole(data, name)
    if data.startswith(b"{\\rtf"):
        return _RTF
    for signature, at, code, reason in _SIGNATURES:
        if data.startswith(signature, at) and (b"\0" in data[:1024] or not signature.isalnum()):
            raise Refused(code, reason)
    return _EML if _is_mail(data, _kind_of_name(name)) else None


def of_text(text: str, name: str) -> Format:
    """The format of decoded characters. Raises `Refused` for a drawing."""
    by_name = _kind_of_name(name)
    head = text[:8192]
    if by_name in ("code", "json", "csv"):  # templates and dumps begin with foreign markup
        return Format(by_name)
    if _SVG_START.match(head):
        raise Refused("unsupported", _IMAGE)
    if by_name == "html" or _HTML_START.match(head):
        return Format("html")
    if by_name == "ipynb":
        return _IPYNB if '"cells"' in text else Format("json")
    if by_name == "xml" or (not by_name and _XML_START.match(head)):
        return _XML
    if by_name in ("markdown", "rst", "subtitles"):
        return Format(by_name)
    lines = by_name or next((kind for kind, start in _STARTS if start.match(head)), "")
    if lines in _LINE_KINDS:
        return Format(lines)
    return Format(_kind_of_characters(head))


def _kind_of_characters(head: str) -> str:
    if head.startswith("WEBVTT"):
        return "subtitles"
    return "code" if head.startswith("#!/") else "text"


def _kind_of_name(name: str) -> str:
    """Kind by file name alone, "" when it tells none."""
    path = PurePosixPath(name.replace("\\", "/"))
    low = path.name.lower()
    if low in _CODE_NAMES:
        return "code"
    return _KIND_OF_EXTENSION.get(low.rpartition(".")[2] if "." in low else "", "")


def _is_pdf(data: bytes, name: str) -> bool:
    """A PDF may have up to 1,024 bytes before its head; a text that quotes one must not become a PDF."""
    head = data[:1024]
    at = head.find(b"%PDF-")
    return at >= 0 and (not head[:at].strip() or b"\0" in head[:at] or name.lower().endswith(".pdf"))


def _is_mail(data: bytes, by_name: str) -> bool:
    """A mail by its name, or by a block of header lines at the very start with three that only mail has."""
    if by_name:
        return by_name == "eml" and b"\x00" not in data[:4096]
    block = _HEADER.match(data[: 1 << 16])
    return block is not None and len(set(_MAIL_HEADER.findall(block[0].lower()))) >= 3


def _zip(data: bytes) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _zip_format(archive)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # zlib, lzma, struct ... errors: a hostile archive finds them all
        raise Refused("damaged", "a damaged ZIP container") from error


def _zip_format(archive: zipfile.ZipFile) -> Format:
    names = {info.filename.replace("\\", "/").lower() for info in archive.infolist()}
    mimetype = _zip_mimetype(archive)
    if mimetype.startswith(_ODF) and _encrypted_odf(archive):
        raise Refused("encrypted", "protected by a password")
    if mimetype in _ZIP_MIMETYPES:
        return _ZIP_MIMETYPES[mimetype]
    for member, found in _ZIP_MEMBERS:
        if member.lower() in names:
            return found
    if "[content_types].xml" in names or mimetype:
        raise Refused("unsupported", "this Office format is not read")
    raise Refused("unsupported", _ARCHIVE)


def _zip_mimetype(archive: zipfile.ZipFile) -> str:
    return _member(archive, "mimetype", 200).decode("ascii", "replace").strip()


def _encrypted_odf(archive: zipfile.ZipFile) -> bool:
    return b"encryption-data" in _member(archive, "META-INF/manifest.xml", 1 << 20)


def _member(archive: zipfile.ZipFile, name: str, limit_bytes: int) -> bytes:
    """The start of a member, empty when there is none."""
    try:
        with archive.open(name) as file:
            return file.read(limit_bytes)
    except (KeyError, RuntimeError):  # RuntimeError: the member itself is encrypted
        return b""


def _ole(data: bytes, name: str) -> Format:
    """The format of an OLE2 container; where one document embeds another, the name may say which is which."""
    if "EncryptedPackage".encode("utf-16-le") in data or _PPT_ENCRYPTED in data or _encrypted_word(data):
        raise Refused("encrypted", "protected by a password")
    found = [row for stream, row in _OLE_STREAMS if (stream + "\0").encode("utf-16-le") in data]
    if not found:
        raise Refused("unsupported", "this OLE container is not read")
    extension = name.lower().rpartition(".")[2]
    return next((row for row in found if row.kind == extension), found[0])


def _encrypted_word(data: bytes) -> bool:
    """The bit fEncrypted in the head of the WordDocument stream, which begins on a sector border."""
    for at in range(512, len(data) - 12, 512):
        if data.startswith(b"\xec\xa5", at):
            return bool(data[at + 11] & 0x01)
    return False
