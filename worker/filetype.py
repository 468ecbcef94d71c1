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

from worker.biff import is_bare
from worker.extracted import Refused
from worker.headings import LINE_HEADINGS

__all__ = ["ARCHIVES", "Format", "of_text", "sniff"]


@dataclass(frozen=True, slots=True)
class Format:
    """One row of what can be read. Without a `reader` it is text, which needs no library."""

    kind: str
    mime: str = ""
    #: module:function of a `Reader`, imported when the first document of this kind comes
    reader: str = ""


_OFFICE = "application/vnd.openxmlformats-officedocument."

#: kinds that have no text of their own beside the files within them
ARCHIVES = frozenset(("zip", "tar", "7z", "compressed", "mbox", "warc"))
_ZIP = Format("zip", "application/zip", "worker.archives:read_zip")
_TAR = Format("tar", "application/x-tar", "worker.archives:read_tar")
_SEVEN_ZIP = Format("7z", "application/x-7z-compressed", "worker.archives:read_7z")
_COMPRESSED = Format("compressed", "", "worker.archives:read_compressed")
_LIBRARY = "worker.office:read_document"
_OOXML = "worker.ooxml:read_ooxml"
_PROTECTED = Format("protected", "application/x-ole-storage", "worker.protected:read_protected")
_BARE_WORKBOOK = Format("xls", "application/vnd.ms-excel", "worker.legacy:read_bare_workbook")
_OLE = Format("ole", "application/x-ole-storage", "worker.olecontainer:read_container")
_PDF = Format("pdf", "application/pdf", "worker.pdf:read_pdf")
_ONE = Format("one", "application/onenote", "worker.onenote:read_onenote")
_RTF = Format("rtf", "application/rtf", "worker.rtf:read_rtf")
_EML = Format("eml", "message/rfc822", "worker.mail:read_mail")
_EMLX = Format("eml", "message/rfc822", "worker.mail:read_emlx")
_MHTML = Format("mhtml", "multipart/related", "worker.mail:read_saved_page")
_MBOX = Format("mbox", "application/mbox", "worker.mail:read_mbox")
_XML = Format("xml", "application/xml", "worker.xmltext:read_xml")
_WARC = Format("warc", "application/warc", "worker.webarchive:read_warc")
_ARC = Format("warc", "application/x-arc", "worker.webarchive:read_arc")
_SAFARI = Format("webarchive", "application/x-webarchive", "worker.webarchive:read_safari")
_TNEF = Format("tnef", "application/ms-tnef", "worker.tnef:read_tnef")
_SIGNED = Format("p7m", "application/pkcs7-mime", "worker.smime:read_signed")
_IPYNB = Format("ipynb", "application/x-ipynb+json", _LIBRARY)

#: A name inside the ZIP that only this format has.
_ZIP_MEMBERS = (
    ("word/document.xml", Format("docx", _OFFICE + "wordprocessingml.document", _OOXML)),
    ("word/document2.xml", Format("docx", _OFFICE + "wordprocessingml.document", _OOXML)),
    ("ppt/presentation.xml", Format("pptx", _OFFICE + "presentationml.presentation", _OOXML)),
    ("xl/workbook.xml", Format("xlsx", _OFFICE + "spreadsheetml.sheet", _OOXML)),
    ("xl/workbook.bin", Format("xlsx", "application/vnd.ms-excel.sheet.binary.macroEnabled.12", _OOXML)),
    ("visio/document.xml", Format("vsdx", "application/vnd.ms-visio.drawing", "worker.drawnpages:read_visio")),
    ("META-INF/container.xml", Format("epub", "application/epub+zip", "worker.epub:read_epub")),
)
#: Parts that hold a whole document of Apple's iWork '09 and before.
_IWORK_PARTS = ("index.xml", "index.apxl", "index.xml.gz", "index.apxl.gz")
_IWORK_KINDS = {"pages": "pages", "numbers": "numbers", "key": "keynote"}
#: Content of the entry `mimetype`, which EPUB and OpenDocument store first.
_ZIP_MIMETYPES = {
    "application/epub+zip": Format("epub", "application/epub+zip", "worker.epub:read_epub"),
    "application/hwp+zip": Format("hwpx", "application/hwp+zip", "worker.hwp:read_hwpx"),
}
#: OpenDocument and OpenOffice 1, templates included; what stands after the prefix tells the kind.
_ODF = re.compile(r"application/(?:x-)?vnd\.(?:oasis\.opendocument|sun\.xml)\.([a-z]+)[a-z.-]*")
_ODF_KINDS = {
    "text": "odt", "writer": "odt", "spreadsheet": "ods", "calc": "ods", "presentation": "odp", "impress": "odp",
    "graphics": "odg", "draw": "odg",
}  # fmt: skip
#: A stream name (UTF-16) that only this format has in its OLE2 container; what embeds others comes first.
_OLE_STREAMS = (
    ("__properties_version1.0", Format("msg", "application/vnd.ms-outlook", "worker.outlook:read_item")),
    ("WordDocument", Format("doc", "application/msword", "worker.legacy:read_legacy")),
    ("PowerPoint Document", Format("ppt", "application/vnd.ms-powerpoint", "worker.legacy:read_legacy")),
    ("WORKBOOK", Format("xls", "application/vnd.ms-excel", "worker.legacy:read_legacy")),
    ("Workbook", Format("xls", "application/vnd.ms-excel", "worker.legacy:read_legacy")),
    ("Book", Format("xls", "application/vnd.ms-excel", "worker.legacy:read_legacy")),
    ("FileHeader", Format("hwp", "application/x-hwp", "worker.hwp:read_hwp")),
)

#: Signature of what has a reader, where it stands, and what it is. One of letters only needs a NUL byte nearby to
#: count: a text may begin with it.
_FORMAT_SIGNATURES = (
    (b"{\\rtf", 0, _RTF),
    (b"\x1f\x8b", 0, _COMPRESSED),
    (b"1AY&SY", 4, _COMPRESSED),
    (b"\xfd7zXZ\x00", 0, _COMPRESSED),
    (b"7z\xbc\xaf\x27\x1c", 0, _SEVEN_ZIP),
    (b"ustar", 257, _TAR),
    (b"\x78\x9f\x3e\x22", 0, _TNEF),
    # guidFileType of a section and of a table of contents
    (bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3"), 0, _ONE),
    (bytes.fromhex("a12fff43d9ef764c9ee210ea5722765f"), 0, _ONE),
)

_ARCHIVE, _IMAGE, _SOUND = "archives of this kind are not read", "images are not read", "sound and video are not read"
#: Signature, where it stands, what the file is and why it is not read. As above for those of letters only.
_SIGNATURES: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\x1f\x9d", 0, "unsupported", _ARCHIVE),
    (b"Rar!\x1a\x07", 0, "unsupported", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", 0, "unsupported", _ARCHIVE),
    (b"!<arch>\n", 0, "unsupported", _ARCHIVE),
    (b"MSCF\x00", 0, "unsupported", _ARCHIVE),
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
    (b"HWP Document File V", 0, "unsupported", "documents of Hangul before version 5 are not read"),
    (b"ITSF", 0, "unsupported", "compiled help is not read"),
)

#: Signature of a picture that OCR reads, where it stands, its media type. As above, letters need a NUL byte nearby.
_PICTURES = (
    (b"\x89PNG\r\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"II*\x00", 0, "image/tiff"),
    (b"MM\x00*", 0, "image/tiff"),
    (b"WEBPVP8", 8, "image/webp"),
    (b"\x00\x00\x00\x00", 6, "image/bmp"),  # reserved bytes after "BM" and the length
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
    "eml": "eml emlx mht mhtml",
    "mbox": "mbox mbx",
    "p7m": "p7m p7s p7b p7c tsd",
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
_ODF_START = re.compile(_PROLOGUE + r"(?:<!doctype[^>]*+>\s*+)?<office:document(?:-content)?\s", re.I | re.S)
_XML_START = re.compile(
    r"\s*+<(?:\?xml\s|(?:rss|feed|rdf:RDF|opml|kml|FictionBook|TEI|tmx|xliff)[\s>]|[a-zA-Z][\w:.-]*+\s[^<>]{0,2000}?\bxmlns)"
)
#: How some kinds whose headings stand in lines of their own must begin.
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
#: Records of a crawl, with the first line of the version that they are of.
_WARC_START = re.compile(rb"WARC/\d\.\d{1,2}\r?\n[A-Za-z-]{1,40}:")
_ARC_START = re.compile(rb"filedesc:[^\r\n ]{1,1000} [^\r\n]{1,300} \d{1,10}\r?\n")
#: A saved web page is a mail whose head says so.
_PAGE_HEADER = re.compile(rb"^(?:snapshot-content-location:|from: *\"?<?saved by )", re.I | re.M)
#: What may stand before the head: a mailbox line (1) or the count of Apple Mail (2).
_MAIL_START = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}+(?:>?(From )[^\r\n]{0,400}\r?\n|([ \t]*\d{1,10}[ \t]*\r?\n))?")
#: Signed, encrypted, compressed or time-stamped data (CMS) in binary or as Base64.
_SIGNED_START = re.compile(
    rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)"
    rb"\x06[\x09\x0b]\x2a\x86\x48\x86\xf7\x0d\x01(?:\x07[\x02-\x06]|\x09\x10\x01)",
    re.S,
)
_SIGNED_TEXT = re.compile(rb"\s*(?:MI[A-Za-z0-9+/]{20}|-----BEGIN (?:PKCS|CMS))")


def sniff(data: bytes, name: str) -> Format | None:
    """The format that the bytes themselves show, None when they may be text.

    Raises `Refused` for what is recognised and cannot be read.
    """
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data, name)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _ole(data, name)
    for signature, at, found in _FORMAT_SIGNATURES:
        if data.startswith(signature, at) and (b"\0" in data[:1024] or not signature.isalnum()):
            return found
    if _is_pdf(data, name):  # after what may hold one, packed as it is, in its first bytes
        return _PDF
    if is_bare(data):
        return _BARE_WORKBOOK
    if site := _site(data):
        return site
    if picture := _picture(data):
        return Format("image", picture, "worker.ocr:read_picture")
    for signature, at, code, reason in _SIGNATURES:
        if data.startswith(signature, at) and (b"\0" in data[:1024] or not signature.isalnum()):
            raise Refused(code, reason)
    if _SIGNED_START.match(data) or (_kind_of_name(name) == "p7m" and _SIGNED_TEXT.match(data)):
        return _SIGNED
    return _mail(data, name)


def of_text(text: str, name: str) -> Format:
    """The format of decoded characters. Raises `Refused` for a drawing."""
    by_name = _kind_of_name(name)
    head = text[:8192]
    if by_name in ("code", "json", "csv"):  # templates and dumps begin with foreign markup
        return Format(by_name)
    if _SVG_START.match(head):
        raise Refused("unsupported", _IMAGE)
    if _ODF_START.match(head):
        return _open_document(head, "flat")
    if by_name == "html" or _HTML_START.match(head):
        return Format("html")
    if by_name == "ipynb":
        return _IPYNB if '"cells"' in text else Format("json")
    if by_name == "xml" or (not by_name and _XML_START.match(head)):
        return _XML
    if by_name in ("markdown", "rst", "subtitles"):
        return Format(by_name)
    lines = by_name or next((kind for kind, start in _STARTS if start.match(head)), "")
    if lines in LINE_HEADINGS:
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


def _site(data: bytes) -> Format | None:
    """A saved web site."""
    if data.startswith(b"bplist00"):
        return _SAFARI if b"WebMainResource" in data else None
    if _WARC_START.match(data):
        return _WARC
    if _ARC_START.match(data):
        return _ARC
    return _SAFARI if data.startswith(b"<?xml") and b"<key>WebMainResource</key>" in data[:4096] else None


def _picture(data: bytes) -> str:
    """The media type of a picture, "" of anything else."""
    for signature, at, mime in _PICTURES:
        sure = b"\0" in data[:1024] if signature.isalnum() else mime != "image/bmp" or data.startswith(b"BM")
        if sure and data.startswith(signature, at):
            return mime
    return ""


def _mail(data: bytes, name: str) -> Format | None:
    """A mail or mailbox: by its name, or by header lines at the very start, three of them such as only mail has."""
    by_name = _kind_of_name(name)
    if by_name not in ("", "eml", "mbox"):
        return None
    start = data[: 1 << 16] if b"\n" in data[:4096] else data[: 1 << 16].replace(b"\r", b"\n")
    before = _MAIL_START.match(start)
    block = _HEADER.match(start, before.end() if before else 0)
    if not (by_name == "eml" and b"\x00" not in data[:4096]) and not _is_head(block):
        return None
    if before and before[1]:
        return _MBOX
    if before and before[2]:
        return _EMLX
    is_page = block is not None and _PAGE_HEADER.search(block[0])
    return _MHTML if is_page or name.lower().endswith((".mht", ".mhtml")) else _EML


def _is_head(block: re.Match[bytes] | None) -> bool:
    return block is not None and len(set(_MAIL_HEADER.findall(block[0].lower()))) >= 3


def _zip(data: bytes, name: str) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _zip_format(archive, name)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # zlib, lzma, struct ... errors: a hostile archive finds them all
        raise Refused("damaged", "a damaged ZIP container") from error


def _zip_format(archive: zipfile.ZipFile, name: str) -> Format:
    names = {info.filename.replace("\\", "/").lower() for info in archive.infolist()}
    mimetype = _zip_mimetype(archive)
    if _ODF.fullmatch(mimetype):
        return _open_document(mimetype, "package")
    if mimetype in _ZIP_MIMETYPES:
        return _ZIP_MIMETYPES[mimetype]
    for member, found in _ZIP_MEMBERS:
        if member.lower() in names:
            return found
    if any(name.endswith(".fdseq") for name in names):
        return Format("xps", "application/oxps", "worker.drawnpages:read_xps")
    if "index/document.iwa" in names or {"index.zip", "metadata/properties.plist"} <= names:
        kind = _IWORK_KINDS.get(name.lower().rpartition(".")[2], _iwa_kind(names))
        return Format(kind, reader="worker.iwork13:read_iwork13")
    if kind := _iwork_kind(archive, names, name):
        return Format(kind, reader="worker.iwork:read_iwork")
    if "content.xml" in names and "meta-inf/manifest.xml" in names:
        return _open_document(_member(archive, "META-INF/manifest.xml", 1 << 16).decode("latin-1"), "package")
    if "[content_types].xml" in names or mimetype:
        raise Refused("unsupported", "this Office format is not read")
    return _ZIP


def _open_document(source: str, form: str) -> Format:
    """The format by the first media type that stands in `source`."""
    mime = _ODF.search(source)
    kind = _ODF_KINDS.get(mime[1], "odf") if mime else "odt"
    return Format(kind, mime[0] if mime else "", f"worker.opendocument:read_{form}")


def _iwa_kind(names: set[str]) -> str:
    """What an iWork document since 2013 is, by the archives that only this kind has."""
    if any(member.startswith(("index/slide", "index/masterslide", "index/templateslide")) for member in names):
        return "keynote"
    return "numbers" if any(member.startswith("index/tables/tile") for member in names) else "pages"


def _iwork_kind(archive: zipfile.ZipFile, names: set[str], name: str) -> str:
    """By the root element where it can be seen, else by the name; "" for other archives."""
    member = next((part for part in _IWORK_PARTS if part in names), "")
    if "apxl" in member:
        return "keynote"
    head = _member(archive, member, 4096) if member else b""
    if b"developer.apple.com/namespaces" in head:
        return "numbers" if b"<ls:document" in head else "pages"
    return _IWORK_KINDS.get(name.lower().rpartition(".")[2], "") if member else ""


def _zip_mimetype(archive: zipfile.ZipFile) -> str:
    return _member(archive, "mimetype", 200).decode("ascii", "replace").strip()


def _member(archive: zipfile.ZipFile, name: str, limit_bytes: int) -> bytes:
    """The start of a member, empty when there is none."""
    try:
        with archive.open(name) as file:
            return file.read(limit_bytes)
    except (KeyError, RuntimeError):  # RuntimeError: the member itself is encrypted
        return b""


def _ole(data: bytes, name: str) -> Format:
    """The format of an OLE2 container, by the streams that are not in a storage of something embedded."""
    from worker.olestreams import Streams  # needs a library, as few documents do
    from worker.package import Broken

    try:
        streams = Streams(data)
    except Broken:
        if "EncryptedPackage".encode("utf-16-le") in data:
            return _PROTECTED
        found = [row for stream, row in _OLE_STREAMS if (stream + "\0").encode("utf-16-le") in data]
    else:
        if streams.has("EncryptedPackage"):
            return _PROTECTED
        found = [row for stream, row in _OLE_STREAMS if streams.has(stream)]
    extension = name.lower().rpartition(".")[2]
    return next((row for row in found if row.kind == extension), found[0] if found else _OLE)
