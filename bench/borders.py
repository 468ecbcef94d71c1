"""What chunk borders cost and give: characters embedded again per edit, beside the answers that a search finds.

Each way to cut is measured on the same data: the share of an edited file's characters that are embedded again (edit
histories of the data pack), the share of questions whose answer stands in one of the first five chunks (SQuAD's
articles), and the share of the passages that answer a question which the first five chunks hold (chunking-eval).
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.edits import edits_of
from headwater.document import document_id, text_hash
from headwater.embedder import Embedder, load_embedder
from headwater.index import Chunk, DocumentWrite, SearchQuery
from headwater.index_edge import EdgeIndex
from headwater.lexical import Bm25Encoder
from headwater.settings import Settings
from worker.chunk import chunk
from worker.tokens import ModelTokenizer

Chunker = Callable[[str], list[Chunk]]
_HISTORIES = ("rust-book",)
_TOP = 5
#: characters of a prompt's context, and chunks that hold as many in any case
_CONTEXT = 4000
_MOST = 40
#: every so many of SQuAD's 10,570 questions is asked
_EVERY = 7
#: versions of files whose chunks are kept: what one edit wrote the next begins with
_VERSIONS = 2000
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
Vector = NDArray[np.float32]


def run(work: Path) -> dict[str, Any]:
    """Measure each way to cut; the results by its name."""
    data = os.environ.get("HEADWATER_DATA")
    if not data:
        print("borders: left out, since HEADWATER_DATA names no data pack")
        return {}
    embedder = load_embedder(Settings.load())
    results = {}
    for name, cut in chunkers(embedder.tokenizer_json).items():
        results[name] = measure(cut, embedder, Path(data), work / name.replace(" ", "-"))
        print(json.dumps({name: results[name]}), flush=True)
    _show(results)
    return results


def chunkers(tokenizer: str) -> dict[str, Chunker]:
    """The ways to cut: ours at several limits, and two that anyone might write."""
    counter = ModelTokenizer(tokenizer)
    ours = {f"at most {most} tokens": _ours(counter, most) for most in (128, 250)}
    return {**ours, "a paragraph each": _paragraphs, "packed to 1,000 characters": _packed}


def _ours(counter: Any, most: int) -> Chunker:
    return lambda text: chunk(text, "markdown", counter, most, own_lines=False)


def _paragraphs(text: str) -> list[Chunk]:
    return [_chunk(text, start, end) for start, end in _blocks(text)]


def _packed(text: str) -> list[Chunk]:
    """Without regard to headings: an insertion moves every border behind it."""
    chunks: list[Chunk] = []
    for start, end in _blocks(text):
        if chunks and end - chunks[-1].start <= 1000:
            chunks[-1] = _chunk(text, chunks[-1].start, end)
        else:
            chunks.append(_chunk(text, start, end))
    return chunks


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in [*(match.start() for match in _PARAGRAPH.finditer(text)), len(text)]:
        if stripped := text[start:end].strip():
            first = text.index(stripped, start)
            yield first, first + len(stripped)
        start = end


def _chunk(text: str, start: int, end: int) -> Chunk:
    return Chunk(0, text[start:end], text_hash(text[start:end]), start, end)


# -- measures ---------------------------------------------------------------------------------------------------


def measure(cut: Chunker, embedder: Embedder, data: Path, work: Path) -> dict[str, Any]:
    """All figures of one way to cut."""
    found: dict[str, Any] = {name: share_embedded(cut, data / "history" / f"{name}.jsonl.xz") for name in _HISTORIES}
    articles = data / "retrieval" / "squad-articles"
    with _Searched(cut, embedder, articles / "files", work / "squad") as index:
        questions = [json.loads(line) for line in (articles / "questions.jsonl").read_text("utf-8").splitlines()]
        found["answer in top 5"], found["answer in prompt"] = _answered(index, questions[::_EVERY])
        found["chunks"], found["characters"] = index.chunks, index.characters / index.chunks
        found["embedding_s"] = index.embedding_s
    passages = data / "retrieval" / "chunking-eval"
    with _Searched(cut, embedder, passages / "corpora", work / "passages") as index:
        questions = [json.loads(line) for line in (passages / "questions.jsonl").read_text("utf-8").splitlines()]
        found["passages in top 5"], found["passages in prompt"] = _covered(index, questions)
    return found


def share_embedded(cut: Chunker, stream: Path) -> float:
    """Characters of chunks that the version before did not have, as a share of the edited files' characters."""
    edited = embedded = 0
    texts = functools.lru_cache(_VERSIONS)(lambda version: {piece.text for piece in cut(version)})
    for before, after in edits_of(stream):
        edited += len(after)
        embedded += sum(map(len, texts(after) - texts(before)))
    return embedded / edited


class _Searched:
    """A folder of texts in a real index."""

    def __init__(self, cut: Chunker, embedder: Embedder, folder: Path, state: Path) -> None:
        state.mkdir(parents=True)
        self._embedder, self._bm25 = embedder, Bm25Encoder()
        self._index = EdgeIndex(state / "index", state / "index.json")
        self._index.ensure_schema("bench", embedder.dimension)
        self.chunks = self.characters = 0
        self.embedding_s = 0.0
        for seq, path in enumerate(sorted(folder.iterdir()), start=1):
            self._add(path, [replace(piece, number=n) for n, piece in enumerate(cut(path.read_text("utf-8")))], seq)

    def _add(self, path: Path, chunks: list[Chunk], seq: int) -> None:
        texts = [piece.text for piece in chunks]
        self.chunks, self.characters = self.chunks + len(texts), self.characters + sum(map(len, texts))
        self._index.apply(
            DocumentWrite(
                document_id=document_id(path.name.encode()),
                path=path.name,
                seq=seq,
                content_hash=text_hash(path.name),
                pipeline="bench",
                kind="markdown",
                modified_at="2026-01-01T00:00:00Z",
                size=0,
                chunks=chunks,
                dense=self._encode(texts),
                sparse=[self._bm25.document(text) for text in texts],
            )
        )

    def _encode(self, texts: Sequence[str]) -> Vector:
        began = time.perf_counter()
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        rows = np.empty((len(texts), self._embedder.dimension), np.float32)
        for first in range(0, len(order), 32):
            part = order[first : first + 32]
            rows[part] = self._embedder.encode([texts[at] for at in part], "document")
        self.embedding_s += time.perf_counter() - began
        return rows

    def top(self, question: str) -> list[dict[str, Any]]:
        """The best chunks, so many that they hold the characters of a prompt."""
        dense = self._embedder.encode([question], "query")[0]
        found = self._index.search(SearchQuery("hybrid", _MOST, dense, self._bm25.query(question)))
        return [dict(hit.payload) for hit in found]

    def __enter__(self) -> _Searched:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()


def _answered(index: _Searched, questions: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Share of the questions whose answer, where it stands, is within one of the first chunks, and of those that fill
    a prompt."""
    right = []
    for question in questions:
        start, end = question["answer"]
        hits = index.top(question["text"])
        holds = [hit["path"] == question["file"] and hit["start"] <= start and end <= hit["end"] for hit in hits]
        right.append((any(holds[:_TOP]), any(holds[: _fitting(hits)])))
    five, prompt = np.mean(right, axis=0)
    return float(five), float(prompt)


def _covered(index: _Searched, questions: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Mean share of a question's passages, in characters, that the first chunks hold, and those that fill a prompt."""
    shares = []
    for question in questions:
        hits = index.top(question["text"])
        own = [(hit["path"] == f"{question['doc']}.md", hit["start"], hit["end"]) for hit in hits]
        wanted = {at for span in question["references"] for at in range(span["start"], span["end"])}
        row = []
        for most in (_TOP, _fitting(hits)):
            held = {at for mine, start, end in own[:most] if mine for at in range(start, end)}
            row.append(len(wanted & held) / len(wanted))
        shares.append(row)
    five, prompt = np.mean(shares, axis=0)
    return float(five), float(prompt)


def _fitting(hits: Sequence[dict[str, Any]]) -> int:
    """How many of the first chunks fit in a prompt's context together."""
    ends = np.cumsum([hit["end"] - hit["start"] for hit in hits])
    return int(np.searchsorted(ends, _CONTEXT, side="right"))


def _show(results: dict[str, Any]) -> None:
    table = Table(title="chunk borders: what an edit costs, and what a search finds")
    shares = (*_HISTORIES, "answer in top 5", "answer in prompt", "passages in top 5", "passages in prompt")
    columns = (*shares, "characters", "chunks")
    table.add_column("cut")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in results.items():
        table.add_row(
            name, *(f"{row[column]:.1%}" for column in shares), f"{row['characters']:.0f}", str(row["chunks"])
        )
    Console().print(table)
