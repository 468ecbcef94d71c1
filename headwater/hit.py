"""What a search gives: values, as they are on the wire too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from headwater.document import file_path

__all__ = ["DuplicatePair", "Freshness", "Hit", "Hits"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A found piece of a document.

    ``path`` is relative to the folder, with ``/``; for a file within a document (``member``: of an archive, attached to
    a mail) it is ``a.zip!/b.pdf``. ``start`` and ``end`` are characters of the document's text (of
    the file itself for text formats); lines and pages count from 1 and are None where the format has none. A higher
    ``score`` is better; scores of different modes do not compare. ``stale``: whether the file has changed or gone since
    this version of it was indexed; None where the folder cannot be seen.
    """

    score: float
    text: str
    path: str
    start: int
    end: int
    start_line: int | None
    end_line: int | None
    page: int | None
    headings: tuple[str, ...]
    seq: int
    chunk: int
    title: str | None
    kind: str
    modified_at: str
    language: str | None = None
    text_hash: str = ""
    stale: bool | None = None
    member: str | None = None
    #: name of the folder, where several share a collection; ``path`` begins with it
    source: str = ""

    @property
    def document(self) -> str:
        """The path of the document in the collection: of an archive, say, where ``path`` is that of a file in it."""
        return file_path(self.path, self.member)

    @property
    def file(self) -> str:
        """The path of the file in the folder: of an archive, say, where ``path`` is that of a document in it."""
        return file_path(self.path, self.member, self.source)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Hit:
        known = {
            field.name: raw.get(field.name) for field in fields(cls) if field.name in raw or field.default is MISSING
        }
        return cls(**{**known, "headings": tuple(raw.get("headings") or ())})  # type: ignore[arg-type]  # JSON

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "headings": list(self.headings)}


@dataclass(frozen=True, slots=True)
class Freshness:
    """How new an answer is. ``seq`` is the highest version in the index when it was searched (nanoseconds since the
    epoch, roughly: when its change was noticed); ``pending`` how many paths were noticed and not searchable yet;
    ``in_step`` whether none was. None where that is not known: no service runs here. ``generation`` of the index that
    answered (docs/reindex.md)."""

    seq: int | None = None
    pending: int | None = None
    in_step: bool | None = None
    generation: int = 1


class Hits(list[Hit]):
    """A list of hits, best first, that knows how fresh it is."""

    def __init__(self, hits: Iterable[Hit] = (), freshness: Freshness = Freshness()) -> None:
        super().__init__(hits)
        self.freshness = freshness

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Hits:
        return cls(map(Hit.from_mapping, raw["hits"]), Freshness(**raw.get("freshness", {})))

    def to_dict(self) -> dict[str, Any]:
        return {"hits": [hit.to_dict() for hit in self], "freshness": asdict(self.freshness)}


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two documents that say nearly the same. ``similarity`` is the cosine of their mean vectors, ``shared`` the share
    of the chunks of the shorter one whose exact text the other has."""

    a: str
    b: str
    similarity: float
    shared: float
