"""What a PDF holds besides the text on its pages, read with pypdf: notes, form fields, bookmarks, properties, files.

It is a complement: the text comes from another reader, so whatever a damaged file makes pypdf do costs that part only.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from worker.extracted import Member, Refused

if TYPE_CHECKING:
    from pypdf import PdfReader

__all__ = ["Page", "Parts", "look_inside", "page_text"]

#: No honest document has more; each bounds a walk through a structure that a hostile file may tie in knots.
_MOST_PAGES = 50_000
_MOST_NOTES = 20_000
_MOST_BOOKMARKS = 5_000
_MOST_FILES = 1_000
_MOST_DEPTH = 60
#: characters of one note, field or property
_MOST_CHARS = 20_000
#: bytes of one XFA form and of one XMP packet
_MOST_XML_BYTES = 8 << 20

_T = TypeVar("_T")


@dataclass(slots=True)
class Page:
    """One page: what stands beside its text, and how it lies."""

    #: x and y of the lower left and of the upper right corner of what is shown
    box: tuple[float, float, float, float] = (0.0, 0.0, 612.0, 792.0)
    rotate: int = 0
    #: whether anything but text can be on it: a picture, a drawing
    drawn: bool = False
    notes: list[str] = field(default_factory=list)
    #: its dictionary and the number of the object that holds it
    source: Any = None
    resources: Any = None
    number: tuple[int, int] | None = None


@dataclass(slots=True)
class Parts:
    reader: PdfReader
    root: Any
    pages: list[Page] = field(default_factory=list)
    bookmarks: list[str] = field(default_factory=list)
    #: texts of an XFA form, which is no page
    form: list[str] = field(default_factory=list)
    properties: dict[str, object] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)

    def members(self) -> Iterator[Member]:
        for name, stream in self.files.items():
            yield Member(name, partial(_content, stream))


def look_inside(data: bytes, passwords: Sequence[str] = ()) -> Parts | None:
    """None for a file that pypdf cannot open, be it that no password fits."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it says of damage is said by the outcome
    reader: PdfReader | None = _tried(lambda: _opened(pypdf.PdfReader(io.BytesIO(data)), passwords), None)
    if reader is None:
        return None
    root: dict[str, Any] = _tried(
        _dict, dict[str, Any](), reader.trailer.raw_get("/Root") if "/Root" in reader.trailer else None
    )
    parts = Parts(reader, root)
    _gather(parts.pages, _pages, root)
    for page in parts.pages:
        _gather(page.notes, _notes, page.source, parts.files)
    _gather(parts.bookmarks, _bookmarks, root)
    _gather(parts.form, _xfa, root)
    parts.properties = {**_tried(_xmp, {}, root), **_tried(_info, {}, reader)}
    _tried(_embedded, None, root, parts.files)
    return parts


def _opened(reader: PdfReader, passwords: Sequence[str]) -> PdfReader | None:
    open_to_us = not reader.is_encrypted or any(reader.decrypt(password) for password in ("", *passwords))
    return reader if open_to_us else None


def _tried(step: Callable[..., _T], otherwise: _T, *arguments: Any) -> _T:
    """A damaged or hostile file makes pypdf raise anything, up to running out of stack: the part is left out."""
    try:
        return step(*arguments)
    except Exception:
        return otherwise


def _gather(into: list[_T], step: Callable[..., Iterator[_T]], *arguments: Any) -> None:
    """Keep what came before the damage."""
    _tried(into.extend, None, _started(step, *arguments))


def _started(step: Callable[..., Iterator[_T]], *arguments: Any) -> Iterator[_T]:
    yield from step(*arguments)


def _dict(value: Any) -> dict[str, Any]:
    """An object, followed to where it is; {} for anything but a dictionary."""
    found = value.get_object() if hasattr(value, "get_object") else value
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    found = value.get_object() if hasattr(value, "get_object") else value
    return found if isinstance(found, list) else []


def _text(value: Any) -> str:
    """A text string or the text of a stream, "" for anything else; hidden marks of language removed."""
    found = value.get_object() if hasattr(value, "get_object") else value
    if hasattr(found, "get_data"):
        found = _content(found, _MOST_CHARS).decode("utf-8", "replace")
    if isinstance(found, bytes):
        found = found.decode("latin-1")
    if not isinstance(found, str):
        return ""
    found = re.sub("\x1b[^\x1b]*\x1b", "", found[:_MOST_CHARS]).replace("\x00", "")
    return found.replace("\r\n", "\n").replace("\r", "\n").strip()


# -- pages --------------------------------------------------------------------------------------------------------

_INHERITED = ("/MediaBox", "/CropBox", "/Rotate", "/Resources")


def _pages(root: dict[str, Any]) -> Iterator[Page]:
    """The leaves of the page tree in order, with what they inherit."""
    open_nodes: list[tuple[Any, dict[str, Any]]] = [(root.get("/Pages"), {})]
    seen: set[int] = set()
    count = 0
    while open_nodes and count < _MOST_PAGES:
        reference, inherited = open_nodes.pop()
        node = _dict(reference)
        if id(node) in seen:
            continue
        given = {**inherited, **{key: node[key] for key in _INHERITED if key in node}}
        if "/Kids" in node:
            seen.add(id(node))
            open_nodes += [(kid, given) for kid in reversed(_list(node["/Kids"]))]
        else:
            count += 1
            yield _tried(_page, Page(source=node), node, given)


def _page(node: dict[str, Any], given: dict[str, Any]) -> Page:
    media = _box(given.get("/MediaBox")) or (0.0, 0.0, 612.0, 792.0)
    crop = _box(given.get("/CropBox")) or media
    shown = (max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3]))
    if shown[0] >= shown[2] or shown[1] >= shown[3]:
        shown = media
    reference = getattr(node, "indirect_reference", None)
    number = None if reference is None else (int(reference.idnum), int(reference.generation))
    turn = given.get("/Rotate", 0)
    turn = turn.get_object() if hasattr(turn, "get_object") else turn
    resources = _dict(given.get("/Resources"))
    turned = int(turn) if isinstance(turn, int | float) else 0
    return Page(shown, turned, bool(_dict(resources.get("/XObject"))), [], node, resources, number)


def _box(value: Any) -> tuple[float, float, float, float] | None:
    corners = [float(corner.get_object()) for corner in _list(value)[:4]]
    if len(corners) < 4:
        return None
    x, y = sorted((corners[0], corners[2])), sorted((corners[1], corners[3]))
    return x[0], y[0], x[1], y[1]


def page_text(page: Page, most_bytes: int) -> tuple[str, int]:
    """The text of a page as pypdf reads it, and how many bytes that were; "" beyond the limit or when it cannot."""
    return _tried(_page_text, ("", 0), page, most_bytes)


def _page_text(page: Page, most_bytes: int) -> tuple[str, int]:
    from pypdf import PageObject
    from pypdf.generic import NameObject

    source = PageObject(None)
    source.update(page.source)
    source[NameObject("/Resources")] = page.resources
    contents = source.get_contents()
    size = len(contents.get_data()) if contents is not None else 0
    if not 0 < size <= most_bytes:
        return "", 0
    return source.extract_text().encode("utf-8", "ignore").decode(), size


# -- notes and form fields ----------------------------------------------------------------------------------------


def _notes(page: dict[str, Any], files: dict[str, Any]) -> Iterator[str]:
    """What is written in the annotations of a page, in their order; files attached to it join the others."""
    for reference in _list(page.get("/Annots"))[:_MOST_NOTES]:
        note = _tried(_dict, dict[str, Any](), reference)
        kind = note.get("/Subtype")
        if kind == "/Widget":
            yield from _tried(_field, list[str](), note)
        elif kind not in ("/Link", "/Popup"):
            if kind == "/FileAttachment":
                _tried(_add_file, None, note.get("/FS"), files)
            yield from _tried(_note, list[str](), note)


def _note(note: dict[str, Any]) -> list[str]:
    written = _text(note.get("/Contents")) or _markup(_text(note.get("/RC")))
    return [written] if written else []


def _markup(rich: str) -> str:
    return " ".join(re.sub(r"<[^<>]*>", " ", rich).split())


def _field(widget: dict[str, Any]) -> list[str]:
    """A filled field as "label: value". A button says nothing."""
    inherited: dict[str, Any] = {}
    node, depth = widget, 0
    while node and depth < _MOST_DEPTH:
        for key in ("/FT", "/V", "/TU", "/T"):
            if key in node:
                inherited.setdefault(key, node[key])
        node, depth = _dict(node.get("/Parent")), depth + 1
    if inherited.get("/FT") not in ("/Tx", "/Ch"):
        return []
    values = [_text(value) for value in (_list(inherited.get("/V")) or [inherited.get("/V")])]
    value = ", ".join(filter(None, values))
    label = _text(inherited.get("/TU")) or _text(inherited.get("/T"))
    return [f"{label}: {value}" if label else value] if value else []


def _xfa(root: dict[str, Any]) -> Iterator[str]:
    """The words of an XFA form: captions and help of its template, values of its data."""
    packets = _dict(root.get("/AcroForm")).get("/XFA")
    streams = _list(packets) or [packets]
    whole = b"".join(_content(part.get_object(), _MOST_XML_BYTES) for part in streams if _is_stream(part))
    for element in _elements(whole[:_MOST_XML_BYTES]):
        name = element.tag.rpartition("}")[2]
        words = " ".join((element.text or "").split())
        if words and name not in _XFA_UNREAD and not _XFA_CODE.search(element.tag):
            yield words[:_MOST_CHARS]
        elif name == "exData":
            words = " ".join("".join(element.itertext()).split())
            yield from [words[:_MOST_CHARS]] if words else []


#: Elements of the form's machinery.
_XFA_UNREAD = frozenset(
    (
        "script", "submit", "encrypt", "digestMethod", "encoding", "handler", "oid", "subjectDN", "issuers", "picture",
        "integer", "decimal", "float", "boolean", "present", "ref", "connect", "bind",
    )
)  # fmt: skip
#: Packets that configure the reader program.
_XFA_CODE = re.compile(r"xci/|xfa-locale|xmpmeta|adobe:ns|rdf-syntax|purl\.org/dc|xfdf|xhtml")


def _is_stream(part: Any) -> bool:
    return hasattr(part, "get_object") and hasattr(part.get_object(), "get_data")


def _elements(source: bytes) -> Iterator[Any]:
    """The elements of XML one by one, up to where it is damaged."""
    from xml.etree import ElementTree

    parser: Any = ElementTree.XMLPullParser(("end",))
    with suppress(ElementTree.ParseError):
        parser.feed(source)
    with suppress(ElementTree.ParseError):
        for _, element in parser.read_events():
            yield element


# -- bookmarks ----------------------------------------------------------------------------------------------------


def _bookmarks(root: dict[str, Any]) -> Iterator[str]:
    seen: set[int] = set()
    waiting = [_dict(root.get("/Outlines")).get("/First")]
    while waiting and len(seen) < _MOST_BOOKMARKS:
        item = _dict(waiting.pop())
        if not item or id(item) in seen:
            continue
        seen.add(id(item))
        title = " ".join(_text(item.get("/Title")).split())
        if title:
            yield title
        waiting += [item.get("/Next"), item.get("/First")]


# -- properties ---------------------------------------------------------------------------------------------------

_INFO = {"/Title": "title", "/Author": "author", "/Subject": "subject", "/Keywords": "keywords"}
#: Properties about the making of the file, not about what it says.
_INFO_UNREAD = frozenset(("/Creator", "/Producer", "/Trapped", "/CreationDate", "/ModDate", "/PTEX.Fullbanner"))
_DATE = re.compile(
    r"(?:D:)?(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d))?)?)?)?)?\s*(?:(Z)|([+-])(\d\d)'?(?:(\d\d)'?)?)?"
)


def _info(reader: PdfReader) -> dict[str, object]:
    info = _dict(reader.trailer.get("/Info"))
    found: dict[str, object] = {ours: _text(info.get(theirs)) for theirs, ours in _INFO.items()}
    found["created"] = _date(_text(info.get("/CreationDate")))
    found["modified"] = _date(_text(info.get("/ModDate")))
    return {key: value for key, value in found.items() if value}


def _date(value: str) -> str | None:
    """ISO 8601, as exact as the document has it."""
    match = _DATE.match(value)
    if not match:
        return None
    year, month, day, hour, minute, second, zulu, sign, hours, minutes = match.groups()
    if not (1 <= int(month or 1) <= 12 and 1 <= int(day or 1) <= 31 and int(hour or 0) < 24):
        return None
    date = "-".join(filter(None, (year, month, day)))
    if hour is None:
        return date
    zone = "Z" if zulu else f"{sign}{hours}:{minutes or '00'}" if sign else ""
    return f"{date}T{hour}:{minute or '00'}:{second or '00'}{zone}"


_XMP = {"title": "title", "creator": "author", "description": "subject", "subject": "keywords", "language": "language"}


def _xmp(root: dict[str, Any]) -> dict[str, object]:
    """The Dublin Core fields of the metadata packet."""
    packet: Any = root.get("/Metadata")
    if not _is_stream(packet):
        return {}
    found: dict[str, object] = {}
    for element in _elements(_content(packet.get_object(), _MOST_XML_BYTES)):
        space, _, name = element.tag.rpartition("}")
        if "purl.org/dc/" in space and name in _XMP:
            values = [" ".join((part or "").split())[:_MOST_CHARS] for part in element.itertext()]
            found.setdefault(_XMP[name], ", ".join(dict.fromkeys(filter(None, values))))
    return {key: value for key, value in found.items() if value}


# -- files within -------------------------------------------------------------------------------------------------


def _embedded(root: dict[str, Any], files: dict[str, Any]) -> None:
    for specification in _list(root.get("/AF")):
        _tried(_add_file, None, specification, files)
    seen: set[int] = set()
    waiting = [_dict(root.get("/Names")).get("/EmbeddedFiles")]
    while waiting and len(files) < _MOST_FILES and len(seen) < _MOST_FILES:
        node = _dict(waiting.pop())
        if id(node) in seen:
            continue
        seen.add(id(node))
        for specification in _list(node.get("/Names"))[1::2]:
            _tried(_add_file, None, specification, files)
        waiting += reversed(_list(node.get("/Kids")))


def _add_file(reference: Any, files: dict[str, Any]) -> None:
    specification = _dict(reference)
    name = _text(specification.get("/UF")) or _text(specification.get("/F")) or "attachment"
    streams = _dict(specification.get("/EF"))
    stream = next((streams[key].get_object() for key in ("/UF", "/F") if key in streams), None)
    if stream is None or any(stream is known for known in files.values()) or len(files) >= _MOST_FILES:
        return
    name = name.replace("\\", "/").strip("/")
    number, unique = 2, name
    while unique in files:
        unique, number = f"{number}/{name}", number + 1
    files[unique] = stream


def _content(stream: Any, most: int) -> bytes:
    """At most so many bytes of a stream. The usual compression is undone here, no further than that."""
    try:
        filters = stream.get("/Filter")
        names = [str(name) for name in _list(filters)] or ([str(filters)] if filters is not None else [])
        if not names:
            return bytes(stream._data[:most])
        if names in (["/FlateDecode"], ["/Fl"]) and "/DecodeParms" not in stream:
            return zlib.decompressobj().decompress(stream._data, most)
        return bytes(stream.get_data()[:most])  # pypdf has limits of its own
    except MemoryError:
        raise
    except Exception as error:  # a hostile stream makes the decoders raise anything
        raise Refused("damaged", "a damaged file within a PDF") from error
