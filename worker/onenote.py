"""OneNote sections: the text of each page as it is now, without the history that the file keeps of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from worker.extracted import Extracted, Input, Member, Refused, flat, one_line
from worker.onestore import FILE, Damaged, Properties, Space, packaged, spaces
from worker.writing import joined

__all__ = ["read_onenote"]

#: guidFileFormat of a package; any other file is a revision store.
_PACKAGE = bytes.fromhex("2fe98d63d4a6c14b9a36b3fc2511a5b7")
_UNICODE, _EXTENDED_ASCII, _FILE_NAME = 0x1C001C22, 0x1C003498, 0x1C001D9C
#: Properties that are words of the page, in the order in which they are shown.
_TEXTS = {
    _EXTENDED_ASCII: "cp1252",
    _UNICODE: "utf-16-le",
    0x1C001E58: "utf-16-le",  # ImageAltText
    0x1C001DD7: "utf-16-le",  # ImageFilename
    _FILE_NAME: "utf-16-le",
}
_TITLE, _AUTHOR = 0x1C001CF3, 0x1C001D75  # CachedTitleString, Author
_CONTENT, _METADATA = 1, 2
_LINK = re.compile('\ufddfHYPERLINK "([^"]{0,2000})"')
_UNPRINTED = re.compile("[\x00-\x08\x0e-\x1f\ufddf\ufffc]")


def read_onenote(found: Input) -> Extracted:
    members: list[Member] = []
    if found.data[48:64] == _PACKAGE:
        pages, authors, whole = _packaged(found.data)
    else:
        stored, files, whole = spaces(found.data)
        pages = [_page(space) for space in _in_order(stored)]
        authors = _authors(chain(*(space.objects.values() for space in stored)))
        members = list(_members(found.data, stored, files))
    if not whole and not any(pages):
        raise Refused("damaged", "a damaged OneNote section")
    pages = [page for page in pages if page]
    starts = [0]
    for page in pages[:-1]:
        starts.append(starts[-1] + len(page))
    text, at = joined(list(chain(*pages)), starts if pages else ())
    title = next((page[0][3:] for page in pages if page[0].startswith("## ")), None)
    partial = None if whole else "a part of the section is damaged"
    return Extracted("one", text, 0, one_line(title), flat({"author": ", ".join(authors)}), at, False, partial, members)


def _members(data: bytes, found: list[Space], files: Mapping[bytes, tuple[int, int]]) -> Iterator[Member]:
    """The embedded files, each under the name that an object which refers to it gives."""
    for space in found:
        for properties in space.objects.values():
            name = properties.values.get(_FILE_NAME, b"").decode("utf-16-le", "replace").strip("\0")
            for child in properties.children if name else ():
                reference = space.objects[child].values.get(FILE, b"") if child in space.objects else b""
                if reference in files:
                    yield Member(name, lambda limit, span=files[reference]: data[slice(*span)][:limit])  # type: ignore[misc]


def _packaged(data: bytes) -> tuple[list[list[str]], list[str], bool]:
    """A package keeps the objects of its pages one by one: it is read as one page."""
    objects, whole = list[Properties](), True
    try:
        objects.extend(packaged(data))
    except Damaged:
        whole = False
    titles = [f"## {title}" for title in _values(objects, _TITLE)]
    blocks = list(dict.fromkeys([*(titles if len(titles) == 1 else ()), *chain(*map(_blocks, objects))]))
    return [blocks], _authors(objects), whole


def _in_order(found: list[Space]) -> Iterator[Space]:
    """The section refers to its pages in their order; what it does not refer to comes last."""
    by_identifier = {space.identifier: space for space in found}
    for space in found:
        for properties in _reached(space, _CONTENT):
            for identifier in properties.spaces:
                if page := by_identifier.pop(identifier, None):
                    yield page
    yield from by_identifier.values()


def _page(space: Space) -> list[str]:
    titles = _values(_reached(space, _METADATA), _TITLE)
    blocks = [block for properties in _reached(space, _CONTENT) for block in _blocks(properties)]
    title = next(iter(titles), "")
    return [f"## {title}", *(block for block in blocks if block != title)] if title and blocks else blocks


def _reached(space: Space, role: int) -> Iterator[Properties]:
    """All objects below a root, in the order in which they are shown."""
    waiting, seen = [space.roots.get(role, b"")], set[bytes]()
    while waiting:
        identifier = waiting.pop()
        if identifier in seen or identifier not in space.objects:
            continue
        seen.add(identifier)
        yield space.objects[identifier]
        waiting += reversed(space.objects[identifier].children)


def _blocks(properties: Properties) -> list[str]:
    values = properties.values
    return [text for key, coding in _TEXTS.items() if key in values and (text := _text(values[key], coding))]


def _text(value: bytes, coding: str) -> str:
    text = _LINK.sub(r"\1 ", value.decode(coding, "replace"))
    text = _UNPRINTED.sub("", text.replace("\x0b", "\n").replace("\r\n", "\n").replace("\r", "\n"))
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def _values(objects: Iterable[Properties], key: int) -> list[str]:
    texts = (_text(properties.values[key], "utf-16-le") for properties in objects if key in properties.values)
    return list(dict.fromkeys(" ".join(text.split()) for text in texts if text))


def _authors(objects: Iterable[Properties]) -> list[str]:
    return _values(objects, _AUTHOR)[:20]
