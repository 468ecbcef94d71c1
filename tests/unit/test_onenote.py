"""OneNote sections, in the revision store that is on disk and in the package that servers send."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.extract import extract
from worker.extracted import Extracted, Input, Refused
from worker.onenote import read_onenote

SECTION = bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3")
STORE = bytes.fromhex("3fdd9a101b91f549a5d01791edc8aed8")
PACKAGE = bytes.fromhex("2fe98d63d4a6c14b9a36b3fc2511a5b7")
TEXT, ASCII, TITLE = 0x1C001C22, 0x1C003498, 0x1C001CF3
CHILDREN = 0x24001C20
GUID = bytes(range(16))


def identifier(number: int) -> bytes:
    return GUID + struct.pack("<I", number)


def compact(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def properties(values: dict[int, bytes], children: tuple[int, ...] = (), pages: tuple[int, ...] = ()) -> bytes:
    """An ObjectSpaceObjectPropSet."""
    streams = struct.pack("<I", len(children)) + b"".join(map(compact, children))
    streams += struct.pack("<I", len(pages)) + b"".join(map(compact, pages))
    keys = struct.pack("<H", len(values) + 1) + b"".join(struct.pack("<I", key) for key in (*values, CHILDREN))
    data = b"".join(struct.pack("<I", len(value)) + value for value in values.values())
    return streams + keys + data + struct.pack("<I", len(children))


class Store:
    """Writes a revision store: each part is appended, and referred to by where it stands."""

    def __init__(self) -> None:
        self.data = bytearray(1024)
        self.data[:16], self.data[48:64] = SECTION, STORE

    def add(self, part: bytes) -> tuple[int, int]:
        self.data += part
        return len(self.data) - len(part), len(part)

    def nodes(self, *nodes: bytes) -> tuple[int, int]:
        body = struct.pack("<QII", 0xA4567AB1F5F7F4C4, 16, 0) + b"".join(nodes) + node(0xFF)
        return self.add(body + struct.pack("<QIQ", 0xFFFFFFFFFFFFFFFF, 0, 0x8BC215C38233BA4B))

    def revision(self, number: int, before: int, role: int, objects: dict[int, bytes], **roots: int) -> list[bytes]:
        declared = [node(0x0A4, compact(at) + bytes(6), self.add(part), base=1) for at, part in objects.items()]
        table = node(0x024, struct.pack("<I", 0) + GUID)
        group = self.nodes(table, *declared)
        dependent = identifier(before) if before else bytes(20)
        start = node(0x01E, identifier(number) + dependent + struct.pack("<IH", role, 0))
        references = [node(0x05A, identifier(at) + struct.pack("<I", int(name[1:]))) for name, at in roots.items()]
        return [start, node(0x0B0, bytes(20), group, base=2), *references, node(0x01C)]

    def finish(self, **spaces: list[bytes]) -> bytes:
        lists = []
        for name, revisions in spaces.items():
            space = identifier(int(name[1:]))
            manifests = self.nodes(node(0x014), *revisions)
            lists.append(node(0x008, space, self.nodes(node(0x00C), node(0x010, b"", manifests, base=2)), base=2))
        struct.pack_into("<QI", self.data, 172, *self.nodes(*lists))
        return bytes(self.data)


def node(kind: int, rest: bytes = b"", reference: tuple[int, int] = (0, 0), base: int = 0) -> bytes:
    body = (struct.pack("<II", *reference) if base else b"") + rest
    return struct.pack("<I", kind | 4 + len(body) << 10 | 1 << 23 | base << 27) + body


def section() -> bytes:
    """A section with two pages, of which the second stands first in the file and was changed once."""
    store = Store()
    old = {1: properties({}, (2,)), 2: properties({TEXT: "old words".encode("utf-16-le")})}
    new = {
        2: properties({TEXT: "new\x0bwords".encode("utf-16-le")}),
        5: properties({TITLE: "Two\0".encode("utf-16-le")}),
    }
    second = store.revision(1, 0, 1, old, r1=1) + store.revision(2, 1, 1, new, r2=5)
    first = store.revision(3, 0, 1, {1: properties({ASCII: b"plain \xe4", TEXT: b""})}, r1=1)
    pages = {1: properties({}, (), (31, 21))}
    return store.finish(s11=store.revision(4, 0, 1, pages, r1=1), s21=second, s31=first)


def test_pages_come_in_the_order_of_the_section_as_they_are_now() -> None:
    found = extract(section(), "notes.one")
    assert (found.kind, found.text) == ("one", "plain ä\n\n## Two\n\nnew\nwords\n")
    assert (found.title, found.partial) == ("Two", None)
    assert [found.text[start:][:5] for start in found.pages] == ["plain", "## Tw"]


def test_a_package_gives_the_text_of_its_objects() -> None:
    blob = properties({TEXT: "packed words".encode("utf-16-le")})
    content = b"\0\0" + bytes([len(blob) << 1 | 1]) + blob
    head = struct.pack("<H", 0x16 << 3 | len(content) << 9)
    data = SECTION + bytes(32) + PACKAGE + bytes(4) + head + content + b"\x05"
    assert extract(data, "notes.one").text == "packed words\n"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_ends_in_text_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(section())
    for _ in range(data.draw(st.integers(1, 12))):
        whole[data.draw(st.integers(164, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(64, len(whole)))
    for package in (STORE, PACKAGE):
        whole[48:64] = package
        with contextlib.suppress(Refused):
            assert isinstance(read_onenote(Input(bytes(whole[:cut]), "x.one", "one")), Extracted)
