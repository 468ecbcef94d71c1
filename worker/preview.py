"""Reads and extracts documents as the pipeline does, and writes nothing: for a plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from headwater.document import content_hash, path_to_text
from headwater.index import Chunk
from worker.pipeline import Extractor
from worker.sandboxes import ExtractionFailed, ExtractionRefused
from worker.source import SourceGone, SourceRefused, SourceUnreadable, read_source

__all__ = ["Preview", "previews"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would find in one document; "spent" is one that it would not look into. ``content_hash`` is None if
    the file cannot be read."""

    path: bytes
    state: Literal["read", "refused", "failed", "spent", "gone"]
    content_hash: str | None = None
    chunks: Sequence[Chunk] = ()
    reason: str | None = None


def previews(
    root: bytes,
    paths: Sequence[bytes],
    extractor: Extractor,
    *,
    spent: Mapping[bytes, str],
    max_file_bytes: int,
    threads: int,
) -> Iterator[Preview]:
    """One preview per path, in order; only a few documents are held at a time. ``spent`` has the hash of the content
    that is not tried again, by path. Raises FolderError."""
    with ThreadPoolExecutor(threads, thread_name_prefix="preview") as pool:
        running: deque[Future[Preview]] = deque()
        for path in paths:
            running.append(pool.submit(_preview, root, path, extractor, spent.get(path), max_file_bytes))
            if len(running) > 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _preview(root: bytes, path: bytes, extractor: Extractor, spent: str | None, max_file_bytes: int) -> Preview:
    digest = None
    try:
        source = read_source(root, path, max_file_bytes)
        digest = content_hash(source.data)
        if digest == spent:
            return Preview(path, "spent", digest)
        return Preview(path, "read", digest, extractor.extract(path_to_text(path), source.data).chunks)
    except SourceGone:
        return Preview(path, "gone")
    except (SourceRefused, ExtractionRefused) as refusal:
        return Preview(path, "refused", digest, reason=str(refusal))
    except (SourceUnreadable, ExtractionFailed) as failure:
        return Preview(path, "failed", digest, reason=str(failure))
