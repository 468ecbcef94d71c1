"""XML as a stream of events: no tree, so neither depth nor size of a hostile document costs memory. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from xml.parsers import expat

from worker.extracted import Refused

__all__ = ["Handler", "read_xml"]

#: XML is given to the parser in pieces of this many bytes.
_PIECE_BYTES = 1 << 16


class Handler(Protocol):
    """Is told what comes, in the order of the document. Names have the form that `rename` gives them."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None: ...

    def end(self, name: str) -> None: ...

    def words(self, text: str) -> None: ...


def read_xml(
    pieces: Iterable[bytes] | bytes, handler: Handler, rename: Callable[[str, str], str], encoding: str | None = None
) -> bool:
    """Tell `handler` all that a document has; False when it is broken, after all that stands before the damage.

    `rename(namespace, local name)` gives the names for elements and attributes, each asked for once. An `encoding`
    overrules what the document says.
    """
    names: dict[str, str] = {}

    def named(qualified: str) -> str:
        if qualified not in names:
            namespace, _, local = qualified.rpartition(" ")
            names[qualified] = rename(namespace, local)
        return names[qualified]

    def start(name: str, attributes: dict[str, str]) -> None:
        handler.start(named(name), {named(key): value for key, value in attributes.items()})

    parser = expat.ParserCreate(encoding, " ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: handler.end(named(name))
    parser.CharacterDataHandler = handler.words
    parser.EntityDeclHandler = _no_entities
    try:
        for piece in _cut(pieces):
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError):  # the last two: an encoding that Python does not have
        return False
    return True


def _cut(pieces: Iterable[bytes] | bytes) -> Iterable[bytes]:
    if isinstance(pieces, bytes):
        return (pieces[at : at + _PIECE_BYTES] for at in range(0, len(pieces), _PIECE_BYTES))
    return pieces


def _no_entities(*declaration: object) -> None:
    raise Refused("unsupported", "XML with entities of its own is not read")
