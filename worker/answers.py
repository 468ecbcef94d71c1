"""What an extraction child answers, believed only as far as it can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headwater.document import text_hash
from headwater.index import Chunk, Member
from worker.exchange import Garbled

__all__ = ["Answer", "Extraction", "Failure", "Refusal", "understand"]

#: more than the child gives of itself
_MOST_CHUNKS = 200_000


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a child read in a document."""

    chunks: tuple[Chunk, ...]
    kind: str
    title: str | None
    metadata: Mapping[str, object]
    partial: str | None
    #: ISO 639-1; told by the pool, not by the child
    language: str | None = None
    members: tuple[Member, ...] = ()
    #: files within it that are not indexed, each with the reason
    unread: tuple[str, ...] = ()
    #: kind -> what read documents of this kind
    libraries: Mapping[str, str] = field(default_factory=dict)

    def language_of(self, chunk: Chunk) -> str | None:
        """That of the document, or of the file within it, that the chunk is from."""
        return self.language if chunk.member is None else self.members[chunk.member].language


@dataclass(frozen=True, slots=True)
class Refusal:
    """The document is not for us, and will not be with the same content."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The child gave up on the document and lives on."""

    reason: str


Answer = Extraction | Refusal | Failure


def understand(answer: Mapping[str, Any], number: int) -> Answer:
    """The answer to request ``number``. Raises Garbled for one to another request, or that does not fit together."""
    if answer.get("id") != number:
        raise Garbled("it was the answer to another document")
    try:
        if "refused" in answer:
            return Refusal(_text(answer["refused"]))
        if "failed" in answer:
            return Failure(_text(answer["failed"]))
        return _extraction(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Garbled(f"{type(error).__name__}: {error}"[:200]) from error


def _extraction(answer: Mapping[str, Any]) -> Extraction:
    chunks, members = answer["chunks"], answer["members"]
    if not isinstance(chunks, list) or len(chunks) > _MOST_CHUNKS or not isinstance(members, list):
        raise ValueError("chunks of another form")
    return Extraction(
        tuple(_chunk(raw, number, len(members)) for number, raw in enumerate(chunks)),
        _text(answer["kind"]),
        _text_or_none(answer["title"]),
        _fields(answer["metadata"]),
        _text_or_none(answer["partial"]),
        members=tuple(_member(raw) for raw in members),
        unread=tuple(_text(reason) for reason in answer["unread"]),
        libraries={_text(kind): _text(library) for kind, library in answer["libraries"].items()},
    )


def _member(raw: Mapping[str, Any]) -> Member:
    title = _text_or_none(raw["title"])
    return Member(_text(raw["name"]), _text(raw["kind"]), title, metadata=_fields(raw["metadata"]))


def _fields(raw: object) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise TypeError("fields of another form")
    return raw


def _chunk(raw: Mapping[str, Any], number: int, members: int) -> Chunk:
    found = Chunk(**{**raw, "headings": tuple(_text(heading) for heading in raw["headings"])})
    whole = (found.number, found.start, found.end)
    optional = (found.start_line, found.end_line, found.page, found.member)
    if not all(type(value) is int for value in whole + tuple(v for v in optional if v is not None)):
        raise TypeError("a place in the text that is no whole number")
    if found.member is not None and not 0 <= found.member < members:
        raise ValueError("a chunk of a file that is not there")
    if found.number != number or text_hash(_text(found.text), _text(found.context)) != found.text_hash:
        raise ValueError("a chunk that is not what it says")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)
