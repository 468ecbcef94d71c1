"""Saved web sites: Safari's web archives, and the records of crawlers (WARC, ISO 28500, and the ARC before it)."""

from __future__ import annotations

import plistlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote

from worker.endings import ending_of
from worker.extracted import Extracted, Input, Member, Refused, flat
from worker.labelled import characters
from worker.mime import Part, part_of
from worker.webpage import read_page

__all__ = ["read_arc", "read_safari", "read_warc"]

#: Pages in frames within each other.
MAX_DEPTH = 8
#: Records of one file.
MAX_RECORDS = 200_000
#: The header of a record or an answer.
MAX_HEAD_BYTES = 16 * 1024
MAX_NAME_CHARS = 200

#: What belongs to the looks of a page.
_LOOKS = re.compile(r"image/|font/|text/css|(?:application|text)/(?:x-)?(?:javascript|ecmascript|font)")
_HTML = ("text/html", "application/xhtml+xml")


# Safari ---------------------------------------------------------------------------------------------------


def read_safari(found: Input) -> Extracted:
    """The page and the pages in its frames as text; what else is no picture and no script, members."""
    try:
        archive = plistlib.loads(found.data)
        pages = list(_pages(archive, 0))
        resources = list(_resources(archive, 0))
    except MemoryError:
        raise
    except Exception as error:  # plistlib meets a hostile list with errors of every kind
        raise Refused("damaged", "a damaged web archive") from error
    if not pages and not resources:
        raise Refused("empty", "no text in the document")
    read = [read_page(text) for text in pages]
    text = "\n".join(page.text for page in read)
    members = tuple(Member(name, lambda limit, data=data: data[:limit]) for name, data in resources)  # type: ignore[misc]
    title = next((page.title for page in read if page.title), None)
    metadata = {**(read[0].metadata if read else {}), **flat({"url": _main(archive).get("WebResourceURL")})}
    return Extracted(found.kind, text, 0, title, metadata, (), False, None, members, markdown=True)


def _main(archive: object) -> Mapping[str, object]:
    main = archive.get("WebMainResource") if isinstance(archive, dict) else None
    return main if isinstance(main, dict) else {}


def _list(archive: object, key: str) -> list[object]:
    found = archive.get(key) if isinstance(archive, dict) else None
    return found if isinstance(found, list) else []


def _pages(archive: object, depth: int) -> Iterator[str]:
    """The page and those in its frames."""
    main = _main(archive)
    if _mime(main) in _HTML:
        yield characters(_bytes(main), str(main.get("WebResourceTextEncodingName") or ""))
    for frame in _list(archive, "WebSubframeArchives") if depth < MAX_DEPTH else ():
        yield from _pages(frame, depth + 1)


def _resources(archive: object, depth: int) -> Iterator[tuple[str, bytes]]:
    """Documents that are shown as they are."""
    for one in (_main(archive), *_list(archive, "WebSubresources")):
        if isinstance(one, dict) and _bytes(one) and not _LOOKS.match(_mime(one)):
            is_page = one is _main(archive) and _mime(one) in _HTML
            if not is_page:
                yield _name(str(one.get("WebResourceURL") or ""), _mime(one)), _bytes(one)
    for frame in _list(archive, "WebSubframeArchives") if depth < MAX_DEPTH else ():
        yield from _resources(frame, depth + 1)


def _mime(resource: Mapping[str, object]) -> str:
    return str(resource.get("WebResourceMIMEType") or "").lower()


def _bytes(resource: Mapping[str, object]) -> bytes:
    data = resource.get("WebResourceData")
    return data if isinstance(data, bytes) else b""


# Crawls ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """What was found at an address; `start` to `end` are bytes of the file."""

    url: str
    date: str
    mime: str
    start: int
    end: int
    is_http: bool


def read_warc(found: Input) -> Extracted:
    return _crawl(found, _warc_records(found.data))


def read_arc(found: Input) -> Extracted:
    return _crawl(found, _arc_records(found.data))


def _crawl(found: Input, all_records: Iterator[_Record | None]) -> Extracted:
    """The addresses as text, what was found there as members."""
    first = list(islice(all_records, MAX_RECORDS + 1))
    records = [record for record in first[:MAX_RECORDS] if record is not None]
    partial = f"only the first {MAX_RECORDS} records are read" if len(first) > MAX_RECORDS else None
    text = "\n".join(_line(record, _answer(found.data, record, MAX_HEAD_BYTES)) for record in records)
    members = _answers(found.data, records)
    return Extracted(found.kind, text, own_lines=False, partial=partial, members=members)


def _line(record: _Record, answer: Part) -> str:
    return " ".join(filter(None, (record.url, answer.type, record.date)))


def _answers(data: bytes, records: list[_Record]) -> Iterator[Member]:
    for record in records:
        answer = _answer(data, record, record.end - record.start)
        if answer.body.strip():
            yield Member(_name(record.url, answer.type), lambda limit, answer=answer: _content(answer, limit))  # type: ignore[misc]


def _answer(data: bytes, record: _Record, most_bytes: int) -> Part:
    """Header and body of an answer; what is none of a web server has no header."""
    block = data[record.start : min(record.end, record.start + most_bytes)]
    if record.is_http and (status := re.match(rb"HTTP/[^\n]{0,300}\n", block)):
        return part_of(block[status.end() :], record.mime)
    return Part({}, block, record.mime)


_WARC_VERSION = re.compile(rb"WARC/\d\.\d{1,2}\r?\n")
_WARC_TYPES = ("response", "resource", "conversion")


def _warc_records(data: bytes) -> Iterator[_Record | None]:
    """None for what is no page: a request, say."""
    at = 0
    while (version := _WARC_VERSION.search(data, at)) is not None:
        block = data[version.end() : version.end() + MAX_HEAD_BYTES]
        head = part_of(block)
        start = version.end() + len(block) - len(head.body)
        length = head.text_of("content-length").strip()
        at = start + (min(int(length), len(data) - start) if re.fullmatch(r"\d{1,15}", length) else 0)
        mime = head.type if head.fields.get("content-type") else ""
        url = head.text_of("warc-target-uri").strip().strip("<>")
        is_page = head.text_of("warc-type").strip().lower() in _WARC_TYPES
        date = head.text_of("warc-date").strip()
        yield _Record(url, date, mime, start, at, mime == "application/http") if is_page else None


_ARC_LINE = re.compile(rb"(?:\A|(?<=\n))([a-z][a-z0-9+.-]{1,20}:[^ \r\n]{0,4000}) ([^\r\n]{1,1000}) (\d{1,15})\r?\n")


def _arc_records(data: bytes) -> Iterator[_Record | None]:
    at = 0
    while (line := _ARC_LINE.search(data, at)) is not None:
        at = min(line.end() + int(line[3]), len(data))
        fields = line[2].decode("latin-1").split(" ")
        if len(fields) >= 3 and not line[1].startswith(b"filedesc:"):
            url = line[1].decode("utf-8", "replace")
            yield _Record(url, _arc_date(fields[1]), fields[2].lower(), line.end(), at, url.startswith("http"))


def _arc_date(digits: str) -> str:
    parts = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", digits)
    return "{}-{}-{}T{}:{}:{}Z".format(*parts.groups()) if parts else ""


def _content(answer: Part, limit: int) -> bytes:
    """The body as the server meant it: whole, unpacked, text that is not UTF-8 by the charset that is named."""
    body = answer.body
    if "chunked" in answer.text_of("transfer-encoding").lower():
        body = _unchunked(body)
    if answer.text_of("content-encoding").strip().lower() in ("gzip", "x-gzip", "deflate"):
        body = _inflated(body, limit)
    body = body[:limit]
    if answer.type.startswith("text/") and answer.charset:
        return characters(body, answer.charset).encode("utf-8", "replace")[:limit]
    return body


def _unchunked(body: bytes) -> bytes:
    """The chunks joined; a body that is in none stays as it is, since crawlers join them without saying so."""
    pieces, at = [], 0
    while size := re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,1000})?\r?\n").match(body, at):
        end = size.end() + int(size[1], 16)
        pieces.append(body[size.end() : end])
        at = end + (2 if body[end : end + 2] == b"\r\n" else 1)
        if end == size.end():
            break
    return b"".join(pieces) if pieces else body


def _inflated(body: bytes, limit: int) -> bytes:
    for window in (47, -15):  # gzip or zlib, else deflate without a head
        try:
            return zlib.decompressobj(window).decompress(body, limit)
        except zlib.error:
            continue
    return body  # some crawlers unpack it and keep the header


# Names and characters -------------------------------------------------------------------------------------


def _name(url: str, mime: str) -> str:
    """Host and path of an address as a file name, with an ending that tells its type."""
    path = unquote(re.sub(r"^[a-z][a-z0-9+.-]*:/*|[?#].*$", "", url, flags=re.I | re.S)).strip()
    parts = [part for part in re.split(r"[/\\]+", path) if part not in ("", ".", "..")]
    name = "/".join(parts)[-MAX_NAME_CHARS:] or "page"
    has_ending = len(parts) > 1 and not path.endswith("/") and re.search(r"\.[A-Za-z0-9]{1,5}$", parts[-1])
    return name if has_ending else name + (ending_of(mime) or "")
