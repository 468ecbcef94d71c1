"""Saved web sites: which page is the text, what is a member, and how an answer of a server is unpacked."""

from __future__ import annotations

import gzip
import plistlib
import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import Refused, extract
from worker.members import Reading, read_deep


def resource(url: str, mime: str, data: bytes, encoding: str = "UTF-8") -> dict[str, object]:
    return {
        "WebResourceURL": url, "WebResourceMIMEType": mime, "WebResourceData": data,
        "WebResourceTextEncodingName": encoding,
    }  # fmt: skip


PAGE = "<title>Herons</title><p>Größe</p>".encode("cp1252")
SAFARI = {
    "WebMainResource": resource("http://a.org/", "text/html", PAGE, "iso-8859-1"),
    "WebSubresources": [
        resource("http://a.org/a.css", "text/css", b"p {}"),
        resource("http://a.org/files/notes.txt", "text/plain", b"Notes"),
    ],
    "WebSubframeArchives": [{"WebMainResource": resource("http://a.org/f", "text/html", b"<p>In a frame</p>")}],
}  # fmt: skip


@pytest.mark.parametrize("form", [plistlib.FMT_BINARY, plistlib.FMT_XML])
def test_a_page_of_safari_is_read_with_its_frames(form: plistlib.PlistFormat) -> None:
    read = extract(plistlib.dumps(SAFARI, fmt=form), "a.webarchive")
    assert (read.kind, read.title, read.metadata["url"]) == ("webarchive", "Herons", "http://a.org/")
    assert "Größe" in read.text and "In a frame" in read.text
    assert [(one.name, one.read(100)) for one in read.members] == [("a.org/files/notes.txt", b"Notes")]


def test_another_binary_property_list_is_refused() -> None:
    with pytest.raises(Refused):
        extract(plistlib.dumps({"a": "b"}, fmt=plistlib.FMT_BINARY), "a.plist")


def warc(kind: str, url: str, block: bytes, mime: str = "application/http; msgtype=response") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2019-12-10T10:00:01Z\r\n"
    return f"{head}Content-Type: {mime}\r\nContent-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def answer(body: bytes, *heads: str, mime: str = "text/html") -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Type: {mime}", *heads, "", ""]).encode() + body


def found_in(data: bytes, name: str) -> dict[str | None, str]:
    return {piece.name: piece.read.text.strip() for piece in read_deep(data, name, Reading())}


def test_each_answer_of_a_crawl_is_a_document() -> None:
    chunked = b"5;x\r\n<p>On\r\n5\r\ne</p>\r\n0\r\n\r\n"
    data = (
        warc("warcinfo", "", b"software: x\r\n", "application/warc-fields")
        + warc("request", "http://a.org/", b"GET / HTTP/1.1\r\n\r\n")
        + warc("response", "http://a.org/", answer(chunked, "Transfer-Encoding: chunked"))
        + warc("response", "http://a.org/b/?q=1", answer(gzip.compress(b"<p>Two</p>"), "Content-Encoding: gzip"))
        + warc("conversion", "http://a.org/../c.txt", "Drei ü".encode(), "text/plain")
        + warc("response", "http://a.org/d.txt", answer("Größe".encode("cp1252"), mime="text/plain; charset=latin1"))
    )
    found = found_in(data, "a.warc")
    listed = found.pop(None).splitlines()
    assert listed[0] == "http://a.org/ text/html 2019-12-10T10:00:01Z" and len(listed) == 4
    assert list(found.values()) == ["One", "Two", "Drei ü", "Größe"]
    assert list(found) == ["a.org.html", "a.org/b.html", "a.org/c.txt", "a.org/d.txt"]


def test_records_are_found_in_packed_files_too() -> None:
    packed = b"".join(gzip.compress(warc("response", f"http://a.org/{n}", answer(b"<p>Page</p>"))) for n in "12")
    assert list(found_in(packed, "a.warc.gz").values()).count("Page") == 2


def test_the_format_before_it_is_read() -> None:
    block = answer(b"<p>Old page</p>")
    head = b"1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n"
    data = b"filedesc://a.arc 0.0.0.0 20140216050221 text/plain %d\n" % len(head) + head
    data += b"\nhttp://a.org/ 1.2.3.4 20140216050221 text/html %d\n" % len(block) + block + b"\n"
    found = found_in(data, "a.arc")
    assert list(found.items()) == [
        (None, "http://a.org/ text/html 2014-02-16T05:02:21Z"), ("a.org.html", "Old page"),
    ]  # fmt: skip


@pytest.mark.timeout(20)
def test_many_records_without_content_cost_little() -> None:
    with suppress(Refused):
        extract(b"WARC/1.0\nA: b\n\n" + b"WARC/1.0\n" * 1_000_000, "a.warc")


SAMPLES = (
    plistlib.dumps(SAFARI, fmt=plistlib.FMT_BINARY),
    warc("response", "http://a.org/", answer(b"5\r\n<p>On\r\n0\r\n\r\n", "Transfer-Encoding: chunked")) * 2,
)


@settings(max_examples=100)
@given(st.sampled_from(SAMPLES), st.integers(), st.integers(0, 20), st.integers(0, 200))
def test_a_damaged_site_is_read_or_refused(sample: bytes, seed: int, flips: int, cut: int) -> None:
    data = bytearray(sample[: -cut or None])
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with suppress(Refused):
        for member in extract(bytes(data), "a").members:
            with suppress(Refused):
                member.read(1 << 20)
