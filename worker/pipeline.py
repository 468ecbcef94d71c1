"""From a hint to its outcomes: read, hash, extract and chunk, look up, embed what is new, write, flush.

The documents of a hint go through each step together, so that they share one embedding call and one flush. Each
document ends in exactly one outcome, and none can spoil another's.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headwater import metrics
from headwater.batcher import Priority
from headwater.document import content_hash, document_id, in_collection, path_to_text, rfc3339
from headwater.errors import DiskFull, FolderError, IndexUnavailable, ModelError, ModelStalled, SandboxUnavailable
from headwater.failpoints import reach
from headwater.index import Chunk, DocumentState, DocumentWrite, Sparse, VectorIndex
from headwater.index_qdrant import are_units
from headwater.logs import about, origin
from headwater.messages import Embedded, Event, Hint, Item, Lane, Outcome
from headwater.points import pages
from headwater.tracing import span
from worker.kept import KeptVectors
from worker.sandboxes import Extraction, ExtractionFailed, ExtractionRefused
from worker.source import Source, SourceGone, SourceRefused, SourceUnreadable, read_source

__all__ = ["Embed", "Extractor", "Pipeline", "Stored"]

log = logging.getLogger(__name__)
Vector = NDArray[np.float32]

#: new texts of one document that are embedded before they are written: what a crash can cost
_SLICE = 256

#: failures that are remembered, so that a hint that comes twice is not two tries
_REMEMBERED_FAILURES = 10_000

#: texts and priority -> unit vectors [n, dimension] and the number of texts that the model saw
Embed = Callable[[Sequence[str], Priority], tuple[Vector, int]]
#: ids of documents -> whether they are this worker's until the context ends
Claim = Callable[[Iterable[str]], AbstractContextManager[bool]]


class Stored(Protocol):
    """What another index holds of a document with this content, read and cut as it would be here; None if nothing."""

    def find(self, document_id: str, content_hash: str) -> Extraction | None: ...


class Extractor(Protocol):
    """Bytes -> chunks. Raises ExtractionRefused or ExtractionFailed."""

    def extract(self, name: str, data: bytes) -> Extraction: ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A document that has been read and is to be written."""

    item: Item
    source: Source
    content_hash: str
    held: DocumentState | None
    extraction: Extraction


class Pipeline:
    """Applies hints. Safe to call from several threads: one document is only ever in one of them."""

    def __init__(
        self,
        *,
        root: bytes,
        source: str = "",
        index: VectorIndex,
        embed: Embed,
        encode_sparse: Callable[[str, str | None], Sparse],
        extractor: Extractor,
        pipeline_fingerprint: str,
        max_file_bytes: int,
        check_space: Callable[[], None] = lambda: None,
        kept: KeptVectors | None = None,
        claim: Claim | None = None,
        stored: Stored | None = None,
    ) -> None:
        """``source`` is the name of the folder ``root`` in the collection. ``kept``: where vectors go that leave the
        index, if they are to be kept for a while. ``claim`` takes documents from other workers. ``stored`` is asked
        before a document is read anew."""
        self._root = root
        self._source = source
        self._index = index
        self._embed = embed
        self._encode_sparse = encode_sparse
        self._extractor = extractor
        self._fingerprint = pipeline_fingerprint
        self._max_file_bytes = max_file_bytes
        self._check_space = check_space
        self._kept = kept
        self._claim: Claim = claim or (lambda documents: nullcontext(True))
        self._stored = stored
        #: the last failures, by path: a hint that comes twice is answered, not tried once more
        self._failures: OrderedDict[bytes, Outcome] = OrderedDict()
        self._busy: set[bytes] = set()
        self._freed = threading.Condition()

    def apply(self, hint: Hint) -> list[Event]:
        """Work through a hint. Every outcome is durable when this returns; there is none if another worker does not let
        go of one of the documents."""
        ids = {self._document_id(item) for item in hint.items}
        with self._held({item.path for item in hint.items}), self._claim(ids) as ours:
            if not ours:
                return []
            outcomes, reused = self._apply(hint)
            self._remember(outcomes)
        events: list[Event] = [Embedded(0, reused)] if reused else []
        return [*events, *outcomes]

    def _apply(self, hint: Hint) -> tuple[list[Outcome], int]:
        try:
            self._check_space()
            reach("worker:taken")
            outcomes, reused = self._index_and_delete(hint)
            reach("worker:applied")
            with span("flush"), metrics.flush_seconds.time():
                self._index.flush()
            reach("worker:flushed")
        except (IndexUnavailable, DiskFull, FolderError, SandboxUnavailable) as error:
            return [_service_failure(item, error) for item in hint.items], 0
        return outcomes, reused

    def _remember(self, outcomes: Sequence[Outcome]) -> None:
        """Note which tries failed; each has a seq of its own."""
        with self._freed:
            for outcome in outcomes:
                self._failures.pop(outcome.path, None)
                if outcome.is_try:
                    self._failures[outcome.path] = outcome
            while len(self._failures) > _REMEMBERED_FAILURES:
                self._failures.popitem(last=False)

    def _index_and_delete(self, hint: Hint) -> tuple[list[Outcome], int]:
        outcomes: list[Outcome] = []
        reads: list[_Read] = []
        to_read = [item for item in hint.items if item.operation != "delete"]
        states = self._index.document_states([self._document_id(item) for item in to_read]) if to_read else {}
        for item in to_read:
            held = states.get(self._document_id(item))
            result = self._guarded(item, partial(self._read, held=held))
            (reads if isinstance(result, _Read) else outcomes).append(result)  # type: ignore[arg-type]  # by class
        written, reused = self._write(reads, hint.lane)
        outcomes += written
        outcomes += [self._delete(item) for item in hint.items if item.operation == "delete"]
        return outcomes, reused

    @contextmanager
    def _held(self, paths: set[bytes]) -> Iterator[None]:
        """These documents are ours alone: a hint that came twice waits here, and then finds its work done."""
        with self._freed:
            self._freed.wait_for(lambda: self._busy.isdisjoint(paths))
            self._busy |= paths
        try:
            yield
        finally:
            with self._freed:
                self._busy -= paths
                self._freed.notify_all()

    # -- read and extract ------------------------------------------------------------------------------------

    def _guarded(self, item: Item, step: Callable[[Item], _Read | Outcome]) -> _Read | Outcome:
        """One document's trouble becomes its outcome."""
        before = self._failures.get(item.path)
        if before is not None and before.seq == item.seq:
            return before
        try:
            return step(item)
        except SourceGone:
            where = f"{socket.gethostname()} below {os.fsdecode(self._root)}"
            return Outcome(item.path, item.seq, "vanished", reason=where)
        except SourceRefused as refusal:
            return replace(self._refused(item, str(refusal)), fingerprint=refusal.fingerprint)
        except SourceUnreadable as failure:
            return replace(self._failed(item, str(failure), str(failure)), unread=True)

    def _read(self, item: Item, held: DocumentState | None) -> _Read | Outcome:
        source = read_source(self._root, item.path, self._max_file_bytes)
        digest = content_hash(source.data)
        reach("worker:read")
        if held is not None and held.highest_seq >= item.seq and (done := _already(item, source, digest, held)):
            if held.seq == item.seq:  # the write may have ended before its delete
                self._index.delete(self._document_id(item), item.seq)
            return done
        item = item.with_content(digest)
        if item.operation == "spent":
            return self._spent(item, source, digest)
        try:
            extraction = self._extract(item, digest, source)
        except ExtractionRefused as refusal:
            outcome = self._refused(item, str(refusal))
            return replace(outcome, fingerprint=source.fingerprint, content_hash=digest)
        except ExtractionFailed as failure:
            outcome = self._failed(item, str(failure), failure.told)
            return replace(outcome, fingerprint=source.fingerprint, content_hash=digest)
        reach("worker:extracted", path_to_text(item.path))
        return _Read(item, source, digest, held, extraction)

    def _extract(self, item: Item, digest: str, source: Source) -> Extraction:
        """Raises ExtractionRefused and ExtractionFailed."""
        document = self._document_id(item)
        if self._stored is not None and (found := self._stored.find(document, digest)) is not None:
            return found
        started = time.monotonic()
        with span("extract", document_id=document, bytes=len(source.data)):
            extraction = self._extractor.extract(path_to_text(item.path), source.data)
        metrics.extract_seconds.labels(metrics.capped(extraction.kind)).observe(time.monotonic() - started)
        return extraction

    def _refused(self, item: Item, reason: str) -> Outcome:
        """Nothing of an earlier version stays in the index, nor what an interrupted try of this one wrote."""
        self._index.remove(self._document_id(item), item.seq + 1)
        return Outcome(item.path, item.seq, "refused", reason=reason)

    def _spent(self, item: Item, source: Source, digest: str) -> Outcome:
        """The content that used up its tries is still there: no further one, and the ledger knows the reason."""
        self._index.remove(self._document_id(item), item.seq + 1)
        return Outcome(item.path, item.seq, "failed", fingerprint=source.fingerprint, content_hash=digest)

    def _failed(self, item: Item, reason: str, told: str) -> Outcome:
        """An earlier version stays as long as another try is left. ``told`` is what a log may have."""
        log.warning("%s failed: %s", path_to_text(item.path), told, extra=about(item.path, source=self._source))
        document = self._document_id(item)
        is_last = item.operation == "final"
        held = self._index.remove(document, item.seq + 1) if is_last else self._index.document_state(document)
        chunks = 0 if held is None else held.chunks
        return Outcome(item.path, item.seq, "failed", reason=reason, chunks=chunks, retryable=True)

    # -- embed and write -------------------------------------------------------------------------------------

    def _write(self, reads: Sequence[_Read], lane: Lane) -> tuple[list[Outcome], int]:
        """Vectors that the index has are fetched first, all of them: writing may take their points away."""
        hashes = [chunk.text_hash for read in reads for chunk in read.extraction.chunks]
        vectors = self._index.vectors(hashes)
        if self._kept is not None and (missing := [name for name in hashes if name not in vectors]):
            vectors |= self._kept.find(missing)
        for read in reads:
            if read.held is not None and read.content_hash not in read.held.newest_hashes:
                self._keep(self._document_id(read.item))
        outcomes: list[Outcome] = []
        fresh = 0
        groups = _groups(reads, vectors)
        for group in groups:
            done, embedded = self._write_group(group, vectors, lane)
            outcomes += done
            fresh += embedded
        written = sum(outcome.chunks for outcome in outcomes if outcome.state in ("indexed", "partial"))
        reused = max(0, written - fresh)
        metrics.texts_reused.inc(reused)
        return outcomes, reused

    def _write_group(self, group: Sequence[_Read], vectors: dict[str, Vector], lane: Lane) -> tuple[list[Outcome], int]:
        try:
            fresh = self._fill_in(group, vectors, lane)
            reach("worker:embedded")
            documents = [self._document(read, read.extraction.chunks, vectors) for read in group]
            chunks = sum(len(document.chunks) for document in documents)
            with span("upsert", documents=len(documents), chunks=chunks), metrics.upsert_seconds.time():
                self._index.apply_all(documents)
            return [_indexed(read) for read in group], fresh
        except (IndexUnavailable, DiskFull):
            raise
        except ModelStalled as stalled:
            named = about(*(read.item.path for read in group), source=self._source)
            log.warning("%d documents are not embedded: %s", len(group), stalled, extra=named)
            return [self._suspected(read, stalled) for read in group], 0
        except Exception as error:  # whatever a text makes a model do is its document's outcome, and nobody else's
            if len(group) > 1:
                parts = [self._write_group([read], vectors, lane) for read in group]
                return [outcome for outcomes, _ in parts for outcome in outcomes], sum(fresh for _, fresh in parts)
            said = "the text could not be embedded"
            outcome = self._failed(group[0].item, f"{said}: {error}", f"{said}: {origin(error)}")
            read = group[0]
            return [replace(outcome, fingerprint=read.source.fingerprint, content_hash=read.content_hash)], 0

    def _suspected(self, read: _Read, stalled: ModelStalled) -> Outcome:
        """A stalled model costs a document a try if its text was in the model; its last, if no other text was."""
        if not any(chunk.embedded in stalled.texts for chunk in read.extraction.chunks):
            return _service_failure(read.item, stalled)
        said = f"the text could not be embedded: {stalled}"
        outcome = self._failed(read.item, said, said)
        return replace(outcome, shared=len(stalled.texts) > 1)

    def _fill_in(self, group: Sequence[_Read], vectors: dict[str, Vector], lane: Lane) -> int:
        """Embed the missing texts; a long document's are written as they come, so that a crash costs few of them."""
        missing = _missing(group, vectors)
        fresh = 0
        for first in range(0, len(missing), _SLICE):
            part = missing[first : first + _SLICE]
            with span("embed", texts=len(part)):
                priority: Priority = "alone" if _is_last(group[0]) else lane
                rows, embedded = self._embed([chunk.embedded for chunk in part], priority)
            if len(rows) != len(part):
                raise ModelError(f"the model gave {len(rows)} vectors for {len(part)} texts")
            vectors.update(zip((chunk.text_hash for chunk in part), rows, strict=True))
            fresh += embedded
            if first + _SLICE < len(missing):  # of one document: groups are made so
                self._check_space()
                self._index.stage(self._document(group[0], part, vectors))
                reach("worker:staged")
        return fresh

    def _document(self, read: _Read, chunks: Sequence[Chunk], vectors: dict[str, Vector]) -> DocumentWrite:
        modified = read.source.fingerprint.mtime_ns
        dense = [vectors[chunk.text_hash] for chunk in chunks]
        return DocumentWrite(
            document_id=self._document_id(read.item),
            path=path_to_text(in_collection(read.item.path, self._source)),
            source=self._source,
            seq=read.item.seq,
            content_hash=read.content_hash,
            pipeline=self._fingerprint,
            kind=read.extraction.kind,
            modified_at=rfc3339(modified),
            size=len(read.source.data),
            chunks=chunks,
            dense=np.stack(dense) if dense else np.zeros((0, self._dimension()), np.float32),
            sparse=[self._encode_sparse(chunk.embedded, read.extraction.language_of(chunk)) for chunk in chunks],
            title=read.extraction.title,
            language=read.extraction.language,
            metadata=read.extraction.metadata,
            partial=read.extraction.partial,
            members=read.extraction.members,
            unread=read.extraction.unread,
            total_chunks=len(read.extraction.chunks),
        )

    def _keep(self, document: str) -> None:
        """Keep the vectors of a document whose points will go."""
        if self._kept is None:
            return
        for points in pages(self._index, document):
            named = ((p.payload.get("text_hash"), p.dense) for p in points)
            found = {str(name): row for name, row in named if name and row is not None and are_units(row[np.newaxis])}
            if found:
                self._kept.keep(found)

    def _document_id(self, item: Item) -> str:
        return document_id(in_collection(item.path, self._source))

    def _dimension(self) -> int:
        return int(self._embed((), "bulk")[0].shape[1])

    # -- delete ----------------------------------------------------------------------------------------------

    def _delete(self, item: Item) -> Outcome:
        document = self._document_id(item)
        self._keep(document)
        left = self._index.remove(document, item.seq)
        if left is not None:
            return Outcome(item.path, item.seq, "superseded", index_seq=left.highest_seq)
        return Outcome(item.path, item.seq, "deleted")


def _already(item: Item, source: Source, digest: str, held: DocumentState) -> Outcome | None:
    """What to say when the index holds this seq or a higher one; None if an interrupted write is to be finished."""
    if held.highest_seq > item.seq:
        return Outcome(item.path, item.seq, "superseded", index_seq=held.highest_seq)
    if held.newest_hashes != {digest}:
        return Outcome(item.path, item.seq, "changed")
    if held.seq == item.seq:
        return _outcome(item, source, digest, held.chunks, held.partial)
    return None


def _indexed(read: _Read) -> Outcome:
    chunks, partial = len(read.extraction.chunks), read.extraction.partial
    return _outcome(read.item, read.source, read.content_hash, chunks, partial)


def _outcome(item: Item, source: Source, digest: str, chunks: int, partial: str | None) -> Outcome:
    return Outcome(
        item.path,
        item.seq,
        "indexed" if partial is None else "partial",
        reason=partial,
        fingerprint=source.fingerprint,
        content_hash=digest,
        chunks=chunks,
    )


def _service_failure(item: Item, error: Exception) -> Outcome:
    return Outcome(item.path, item.seq, "failed", reason=str(error), retryable=True, service=True)


def _missing(group: Sequence[_Read], vectors: dict[str, Vector]) -> list[Chunk]:
    """One chunk for each text without a vector."""
    chunks = (chunk for read in group for chunk in read.extraction.chunks)
    return list({chunk.text_hash: chunk for chunk in chunks if chunk.text_hash not in vectors}.values())


def _groups(reads: Sequence[_Read], vectors: dict[str, Vector]) -> list[list[_Read]]:
    """Short documents share embedding calls, as many as fit into one slice of texts; a long one, of several slices, has
    its own, and so has one at its last try."""
    own: list[list[_Read]] = []
    shared: list[list[_Read]] = []
    room = 0
    for read in reads:
        new = len(_missing([read], vectors))
        if _is_last(read) or new > _SLICE:
            own.append([read])
        elif shared and new <= room:
            shared[-1].append(read)
            room -= new
        else:
            shared.append([read])
            room = _SLICE - new
    return shared + own


def _is_last(read: _Read) -> bool:
    """Whether this is the last of its tries: then no other text may be to blame, and none may suffer."""
    return read.item.operation == "final"
