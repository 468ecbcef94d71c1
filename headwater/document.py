"""Identity (where a document is) and fingerprints (what it holds). Pure: no I/O.

A document's identity is its path relative to the folder, as bytes, below the name of the folder where several share a
collection. Its fingerprints are the file's stat (cheap)
and the SHA-256 of its bytes (exact). Ids of documents and points depend on the path alone, so that the same folder
always gives the same index.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

__all__ = [
    "PIPELINE_VERSION",
    "ROUNDING_NS",
    "WITHIN",
    "Fingerprint",
    "content_hash",
    "document_id",
    "embedded_text",
    "file_path",
    "in_collection",
    "in_utc",
    "member_path",
    "path_from_wire",
    "path_to_text",
    "path_to_wire",
    "point_id",
    "record_id",
    "rfc3339",
    "text_hash",
]

#: between the path of a document and the name of a file within it
WITHIN = "!/"

#: raised whenever the same bytes give other chunks, terms or fields, so that documents are written again
PIPELINE_VERSION = 7

#: file systems round times of files, to two seconds at worst
ROUNDING_NS = 2_000_000_000

_NAMESPACE = uuid.UUID("6f0d5f0e-7f0b-5c1e-9a51-5d1b6f3a2c11")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What stat(2) says of a file: equal values mean that its bytes did not change."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def is_like(self, other: Fingerprint) -> bool:
        """Whether it may be that of the same bytes as another host sees them: by another protocol, the time of the last
        change of the inode and its number may be others, and times are rounded."""
        return self.size == other.size and abs(self.mtime_ns - other.mtime_ns) <= ROUNDING_NS


def content_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def embedded_text(text: str, context: str) -> str:
    """What the model reads of a chunk: its text, below the context if it has one."""
    return f"{context}\n{text}" if context else text


def text_hash(text: str, context: str = "") -> str:
    """First 128 bits of the SHA-256 of what the model reads of a chunk, in hexadecimal: the key of the embedding
    cache."""
    return hashlib.sha256(embedded_text(text, context).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def in_collection(path: bytes, source: str) -> bytes:
    """Where the document at a path of a folder stands in its collection: below the name of the folder, ``source``, if
    it has one, so that several folders can share a collection."""
    return f"{source}/".encode() + path if source else path


def document_id(path: bytes) -> str:
    """Id of the document at a path of the collection (``in_collection``): a UUID, version 5 layout, of SHA-256."""
    return str(_uuid(b"document\0" + path))


def point_id(document: str, chunk: int) -> str:
    """Id of the point that holds chunk number ``chunk`` (from 0) of a document."""
    return str(_uuid(f"chunk\0{document}\0{chunk}".encode()))


def record_id(document: str) -> str:
    """Id of the point without vectors that records a document's state."""
    return str(_uuid(f"record\0{document}".encode()))


def _uuid(key: bytes) -> uuid.UUID:
    digest = hashlib.sha256(_NAMESPACE.bytes + key).digest()[:16]
    return uuid.UUID(bytes=digest, version=5)


def rfc3339(mtime_ns: int) -> str:
    """Modification time in UTC with microseconds; times outside of what a calendar holds are clamped."""
    seconds = min(max(mtime_ns / 1e9, 0.0), 253_402_300_799.0)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def in_utc(moment: datetime) -> str:
    """A time as RFC 3339 in UTC with microseconds; one without a zone is taken to be in UTC. Raises OverflowError."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def path_to_text(path: bytes) -> str:
    """A path as text that people read. Bytes that are not UTF-8 show as ``%XX``; all else stands as it is."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(
            quote_from_bytes(ch.encode("utf-8", "surrogateescape"), safe="") if "\udc80" <= ch <= "\udcff" else ch
            for ch in path.decode("utf-8", "surrogateescape")
        )


def member_path(path: str, member: str | None) -> str:
    """The path of a file within a document, as people see it: ``mail/a.zip!/b.pdf``. Without one, the document's."""
    return path if member is None else f"{path}{WITHIN}{member}"


def file_path(path: str, member: str | None, source: str = "") -> str:
    """The inverse of ``member_path`` and ``in_collection``: the path of the file in the folder."""
    inner = path.removeprefix(f"{source}/") if source else path
    return inner if member is None else inner.removesuffix(f"{WITHIN}{member}")


def path_to_wire(path: bytes) -> str:
    """A path in the reversible, ASCII-only form of messages (percent-encoding)."""
    return quote_from_bytes(path, safe="/ ")


def path_from_wire(text: str) -> bytes:
    """The inverse of ``path_to_wire``."""
    return unquote_to_bytes(text)
