"""What a PDF holds besides the text on its pages, read with pypdf: notes, form fields, bookmarks, properties, files.

It is a complement: the text comes from another reader, so whatever a damaged file makes pypdf do costs that part only.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from worker.extracted import Member
from worker.pdfobjects import MOST_CHARS, content, dictionary, elements, is_stream, items, text_of, tried

if TYPE_CHECKING:
    from pypdf import PdfReader

__all__ = ["Page", "Parts", "look_inside", "page_text"]

#: No honest document has more; each bounds a walk through a structure that a hostile file may tie in knots.
_MOST_PAGES = 50_000
_MOST_NOTES = 200_000
_MOST_NOTE_CHARS = 5_000_000
_MOST_CHOICES = 100
_MOST_BOOKMARKS = 5_000
_MOST_FILES = 1_000
_MOST_DEPTH = 60
#: pieces of one formatted text
_MOST_RUNS = 1_000
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
    #: whether a date is in letters that no date has
    odd_date: bool = False

    def members(self) -> Iterator[Member]:
        for name, stream in self.files.items():
            yield Member(name, partial(content, stream))


def look_inside(data: bytes, passwords: Sequence[str] = ()) -> Parts | None:
    """None for a file that pypdf cannot open, be it that no password fits."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it says of damage is said by the outcome
    reader: PdfReader | None = tried(lambda: _opened(pypdf.PdfReader(io.BytesIO(data)), passwords), None)
    if reader is None:
        return None
    root: dict[str, Any] = tried(
        dictionary, dict[str, Any](), reader.trailer.raw_get("/Root") if "/Root" in reader.trailer else None
    )
    parts = Parts(reader, root)
    _gather(parts.pages, _pages, root)
    _gather_notes(parts)
    _gather(parts.bookmarks, _bookmarks, root)
    _gather(parts.form, _xfa, root)
    parts.properties = {**tried(_xmp, {}, root), **tried(_info, {}, reader)}
    parts.odd_date = tried(_odd_date, False, reader)
    tried(_embedded, None, root, parts.files)
    return parts


def _gather_notes(parts: Parts) -> None:
    left, chars = _MOST_NOTES, _MOST_NOTE_CHARS
    for page in parts.pages:
        references = tried(items, list[Any](), page.source.get("/Annots"))[:left]
        notes: list[str] = []
        _gather(notes, _notes, references, parts.files)
        page.notes = list(dict.fromkeys(notes))
        left, chars = left - len(references), chars - sum(map(len, notes))
        if left <= 0 or chars <= 0:
            return


def _opened(reader: PdfReader, passwords: Sequence[str]) -> PdfReader | None:
    open_to_us = not reader.is_encrypted or any(reader.decrypt(password) for password in ("", *passwords))
    return reader if open_to_us else None


def _gather(into: list[_T], step: Callable[..., Iterator[_T]], *arguments: Any) -> None:
    """Keep what came before the damage."""
    tried(into.extend, None, _started(step, *arguments))


def _started(step: Callable[..., Iterator[_T]], *arguments: Any) -> Iterator[_T]:
    yield from step(*arguments)


# -- pages --------------------------------------------------------------------------------------------------------

_INHERITED = ("/MediaBox", "/CropBox", "/Rotate", "/Resources")


def _pages(root: dict[str, Any]) -> Iterator[Page]:
    """The leaves of the page tree in order, with what they inherit."""
    open_nodes: list[tuple[Any, dict[str, Any]]] = [(root.get("/Pages"), {})]
    seen: set[int] = set()
    count = 0
    while open_nodes and count < _MOST_PAGES:
        reference, inherited = open_nodes.pop()
        node = dictionary(reference)
        if id(node) in seen:
            continue
        given = {**inherited, **{key: node[key] for key in _INHERITED if key in node}}
        if "/Kids" in node:
            seen.add(id(node))
            open_nodes += [(kid, given) for kid in reversed(items(node["/Kids"]))]
        else:
            count += 1
            yield tried(_page, Page(source=node), node, given)


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
    resources = dictionary(given.get("/Resources"))
    turned = int(turn) if isinstance(turn, int | float) else 0
    return Page(shown, turned, bool(dictionary(resources.get("/XObject"))), [], node, resources, number)


def _box(value: Any) -> tuple[float, float, float, float] | None:
    corners = [float(corner.get_object()) for corner in items(value)[:4]]
    if len(corners) < 4:
        return None
    x, y = sorted((corners[0], corners[2])), sorted((corners[1], corners[3]))
    return x[0], y[0], x[1], y[1]


def page_text(page: Page, most_bytes: int) -> tuple[str, int]:
    """The text of a page as pypdf reads it, and how many bytes that were; "" beyond the limit or when it cannot."""
    return tried(_page_text, ("", 0), page, most_bytes)


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


def _notes(references: list[Any], files: dict[str, Any]) -> Iterator[str]:
    """What is written in the annotations of a page, in their order; files attached to it join the others."""
    for reference in references:
        note = tried(dictionary, dict[str, Any](), reference)
        kind = note.get("/Subtype")
        if kind == "/Widget":
            yield from tried(_field, list[str](), note)
        elif kind not in ("/Link", "/Popup"):
            if kind == "/FileAttachment":
                tried(_add_file, None, note.get("/FS"), files)
            yield from tried(_note, list[str](), note)


def _note(note: dict[str, Any]) -> list[str]:
    written = text_of(note.get("/Contents")) or _markup(text_of(note.get("/RC")))
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
        node, depth = dictionary(node.get("/Parent")), depth + 1
    if inherited.get("/FT") not in ("/Tx", "/Ch"):
        return []
    chosen = items(inherited.get("/V"))[:_MOST_CHOICES] or [inherited.get("/V")]
    values = [text_of(value) for value in chosen]
    value = ", ".join(filter(None, values))
    label = text_of(inherited.get("/TU")) or text_of(inherited.get("/T"))
    return [f"{label}: {value}" if label else value] if value else []


def _xfa(root: dict[str, Any]) -> Iterator[str]:
    """The words of an XFA form: captions and help of its template, values of its data."""
    packets = dictionary(root.get("/AcroForm")).get("/XFA")
    whole = b""
    for part in items(packets) or [packets]:
        if is_stream(part):
            whole += content(part.get_object(), _MOST_XML_BYTES - len(whole))
        if len(whole) >= _MOST_XML_BYTES:
            break
    for element in elements(whole):
        name = element.tag.rpartition("}")[2]
        words = " ".join((element.text or "").split())
        if words and name not in _XFA_UNREAD and not _XFA_CODE.search(element.tag):
            yield words[:MOST_CHARS]
        elif name == "exData":
            words = " ".join("".join(islice(element.itertext(), _MOST_RUNS)).split())
            yield from [words[:MOST_CHARS]] if words else []


#: Elements of the form's machinery.
_XFA_UNREAD = frozenset(
    (
        "script", "submit", "encrypt", "digestMethod", "encoding", "handler", "oid", "subjectDN", "issuers", "picture",
        "integer", "decimal", "float", "boolean", "present", "ref", "connect", "bind",
    )
)  # fmt: skip
#: Packets that configure the reader program.
_XFA_CODE = re.compile(r"xci/|xfa-locale|xmpmeta|adobe:ns|rdf-syntax|purl\.org/dc|xfdf|xhtml")


# -- bookmarks ----------------------------------------------------------------------------------------------------


def _bookmarks(root: dict[str, Any]) -> Iterator[str]:
    seen: set[int] = set()
    waiting = [dictionary(root.get("/Outlines")).get("/First")]
    while waiting and len(seen) < _MOST_BOOKMARKS:
        item = dictionary(waiting.pop())
        if not item or id(item) in seen:
            continue
        seen.add(id(item))
        title = " ".join(text_of(item.get("/Title")).split())
        if title:
            yield title
        waiting += [item.get("/Next"), item.get("/First")]


# -- properties ---------------------------------------------------------------------------------------------------

_INFO = {"/Title": "title", "/Author": "author", "/Subject": "subject", "/Keywords": "keywords"}
_DATE = re.compile(
    r"(?:D:)?(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d))?)?)?)?)?\s*(?:(Z)|([+-])(\d\d)'?(?:(\d\d)'?)?)?"
)


def _info(reader: PdfReader) -> dict[str, object]:
    info = dictionary(reader.trailer.get("/Info"))
    found: dict[str, object] = {ours: text_of(info.get(theirs)) for theirs, ours in _INFO.items()}
    found["created"] = _date(text_of(info.get("/CreationDate")))
    found["modified"] = _date(text_of(info.get("/ModDate")))
    return {key: value for key, value in found.items() if value}


def _odd_date(reader: PdfReader) -> bool:
    info = dictionary(reader.trailer.get("/Info"))
    return not all(str(info.get(key, "")).isascii() for key in ("/CreationDate", "/ModDate"))


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
    if not is_stream(packet):
        return {}
    found: dict[str, object] = {}
    for element in elements(content(packet.get_object(), _MOST_XML_BYTES)):
        space, _, name = element.tag.rpartition("}")
        if "purl.org/dc/" in space and name in _XMP:
            values = [" ".join(part.split()) for part in islice(element.itertext(), _MOST_CHOICES)]
            found.setdefault(_XMP[name], ", ".join(dict.fromkeys(filter(None, values)))[:MOST_CHARS])
    return {key: value for key, value in found.items() if value}


# -- files within -------------------------------------------------------------------------------------------------


def _embedded(root: dict[str, Any], files: dict[str, Any]) -> None:
    for specification in items(root.get("/AF")):
        tried(_add_file, None, specification, files)
    seen: set[int] = set()
    waiting = [dictionary(root.get("/Names")).get("/EmbeddedFiles")]
    while waiting and len(files) < _MOST_FILES and len(seen) < _MOST_FILES:
        node = dictionary(waiting.pop())
        if id(node) in seen:
            continue
        seen.add(id(node))
        for specification in items(node.get("/Names"))[1::2]:
            tried(_add_file, None, specification, files)
        waiting += reversed(items(node.get("/Kids")))


def _add_file(reference: Any, files: dict[str, Any]) -> None:
    specification = dictionary(reference)
    name = text_of(specification.get("/UF")) or text_of(specification.get("/F")) or "attachment"
    streams = dictionary(specification.get("/EF"))
    stream = next((streams[key].get_object() for key in ("/UF", "/F") if key in streams), None)
    if stream is None or any(stream is known for known in files.values()) or len(files) >= _MOST_FILES:
        return
    name = name.replace("\\", "/").strip("/")
    number, unique = 2, name
    while unique in files:
        unique, number = f"{number}/{name}", number + 1
    files[unique] = stream
