"""The objects of a PDF as pypdf has them, each taken with the care that hostile files need."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from worker.extracted import Refused

__all__ = ["content", "dictionary", "elements", "is_stream", "items", "text_of", "tried"]

#: characters of one note, field or property
MOST_CHARS = 20_000

_T = TypeVar("_T")


def tried(step: Callable[..., _T], otherwise: _T, *arguments: Any) -> _T:
    """A damaged or hostile file makes pypdf raise anything, up to running out of stack: the part is left out."""
    try:
        return step(*arguments)
    except Exception:
        return otherwise


def dictionary(value: Any) -> dict[str, Any]:
    """An object, followed to where it is; {} for anything but a dictionary."""
    found = value.get_object() if hasattr(value, "get_object") else value
    return found if isinstance(found, dict) else {}


def items(value: Any) -> list[Any]:
    found = value.get_object() if hasattr(value, "get_object") else value
    return found if isinstance(found, list) else []


def text_of(value: Any) -> str:
    """A text string or the text of a stream, "" for anything else; hidden marks of language removed."""
    found = value.get_object() if hasattr(value, "get_object") else value
    if hasattr(found, "get_data"):
        found = content(found, MOST_CHARS).decode("utf-8", "replace")
    if isinstance(found, bytes):
        found = found.decode("latin-1")
    if not isinstance(found, str):
        return ""
    found = re.sub("\x1b[^\x1b]*\x1b", "", found[:MOST_CHARS]).replace("\x00", "")
    return found.replace("\r\n", "\n").replace("\r", "\n").strip()


def is_stream(part: Any) -> bool:
    return hasattr(part, "get_object") and hasattr(part.get_object(), "get_data")


def elements(source: bytes) -> Iterator[Any]:
    """The elements of XML one by one, up to where it is damaged."""
    from xml.etree import ElementTree

    parser: Any = ElementTree.XMLPullParser(("end",))
    with suppress(ElementTree.ParseError):
        parser.feed(source)
    with suppress(ElementTree.ParseError):
        for _, element in parser.read_events():
            yield element


def content(stream: Any, most: int) -> bytes:
    """At most so many bytes of a stream. The usual compression is undone here, no further than that."""
    try:
        filters = stream.get("/Filter")
        names = [str(name) for name in items(filters)] or ([str(filters)] if filters is not None else [])
        if not names:
            return bytes(stream._data[:most])
        if names in (["/FlateDecode"], ["/Fl"]) and "/DecodeParms" not in stream:
            return zlib.decompressobj().decompress(stream._data, max(most, 1))[:most]
        return bytes(stream.get_data()[:most])  # pypdf has limits of its own
    except MemoryError:
        raise
    except Exception as error:  # a hostile stream makes the decoders raise anything
        raise Refused("damaged", "a damaged file within a PDF") from error
