"""A document as its file gives it now: read, extracted and cut anew, with nothing taken from the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from headwater.document import content_hash, document_id, in_collection, path_to_text, rfc3339
from headwater.index import Chunk, DocumentWrite, Sparse
from headwater.verification import Reading

__all__ = ["Rereader", "Unreadable", "Vanished"]


class Unreadable(Exception):
    """The file is there, and what is in it cannot be told now: the reason, for people."""


class Vanished(Exception):
    """Nothing is at the path any more."""


class Extractor(Protocol):
    def extract(self, name: str, data: bytes) -> Any: ...


@dataclass(frozen=True)
class Rereader:
    """Safe to use from several threads. ``embed`` raises if the model cannot embed a text."""

    root: bytes
    #: name of the folder in the collection
    source: str
    max_file_bytes: int
    pipeline_fingerprint: str
    extractor: Extractor
    embed: Callable[[Sequence[str]], object]

    def read(self, path: bytes, seq: int, *, failed_before: bool) -> Reading:
        """Raises Unreadable, Vanished or FolderError. ``seq`` is that of the version the index should hold."""
        from worker.sandboxes import ExtractionFailed, ExtractionRefused
        from worker.source import SourceGone, SourceRefused, SourceUnreadable, read_source

        try:
            source = read_source(self.root, path, self.max_file_bytes)
        except SourceGone:
            raise Vanished from None
        except SourceUnreadable as trouble:
            raise Unreadable(str(trouble)) from None
        except SourceRefused as refusal:
            return Reading("refused", str(refusal))
        digest = content_hash(source.data)
        try:
            extraction = self._extract(path, source.data)
        except ExtractionRefused as refusal:
            return Reading("refused", str(refusal), source.fingerprint, digest)
        except ExtractionFailed as failure:
            if not failed_before:
                raise Unreadable(str(failure)) from None
            return Reading("failed", str(failure), source.fingerprint, digest)
        if failed_before and (unfit := self._embedding_trouble(extraction.chunks)):
            return Reading("failed", unfit, source.fingerprint, digest)
        document = self._document(path, seq, source, digest, extraction)
        state: Literal["indexed", "partial"] = "indexed" if extraction.partial is None else "partial"
        return Reading(state, extraction.partial, source.fingerprint, digest, document)

    def _extract(self, path: bytes, data: bytes) -> Any:
        """A child that died of the machine's trouble gets a second try."""
        from worker.sandboxes import ExtractionFailed

        try:
            return self.extractor.extract(path_to_text(path), data)
        except ExtractionFailed:
            return self.extractor.extract(path_to_text(path), data)

    def _embedding_trouble(self, chunks: Sequence[Chunk]) -> str | None:
        """A document may have failed for a text that the model cannot take."""
        try:
            self.embed([chunk.text for chunk in chunks])
        except Exception as error:  # whatever a text makes a model do
            return f"the text could not be embedded: {error}"
        return None

    def _document(self, path: bytes, seq: int, source: Any, digest: str, extraction: Any) -> DocumentWrite:

        number = len(extraction.chunks)
        return DocumentWrite(
            document_id=document_id(in_collection(path, self.source)),
            path=path_to_text(in_collection(path, self.source)),
            source=self.source,
            seq=seq,
            content_hash=digest,
            pipeline=self.pipeline_fingerprint,
            kind=extraction.kind,
            modified_at=rfc3339(source.fingerprint.mtime_ns),
            size=len(source.data),
            chunks=extraction.chunks,
            dense=np.zeros((number, 0), np.float32),
            sparse=[Sparse((), ())] * number,
            title=extraction.title,
            language=extraction.language,
            metadata=extraction.metadata,
            partial=extraction.partial,
            members=extraction.members,
            unread=extraction.unread,
        )
