"""Searches of a warm index, the engine's part: sizes, modes, a filter; idle and while points are written."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.service import memory_mb, percentile
from headwater.document import document_id, text_hash
from headwater.index import Chunk, Condition, DocumentWrite, SearchQuery, Sparse
from headwater.index_process import ProcessIndex

_DIMENSION = 384
_CHUNKS = 10
_SEARCHES = 300
_CENTRES = 300
#: points up to which searches are measured before a compaction, too, when half of the points are fresh: a growing index
#: is compacted then (headwater.compaction), and until then a search reads every fresh vector
_MOST_GROWN = 200_000
Vector = NDArray[np.float32]


def run(work: Path, sizes: list[int]) -> dict[str, Any]:
    """Milliseconds of a search at each size, before and after a compaction."""
    results: dict[str, Any] = {}
    for points in sizes:
        state = work / str(points)
        state.mkdir()
        index = ProcessIndex(state / "index", state / "index.json", on_damage=_end)
        index.ensure_schema("bench", _DIMENSION)
        corpus = Corpus()
        documents, rows = points // _CHUNKS, {}
        if points <= _MOST_GROWN:
            _fill(index, corpus, range(documents // 2))
            index.compact()
            _fill(index, corpus, range(documents // 2, documents))
            rows["half fresh"] = _measure(index, corpus)
        else:
            _fill(index, corpus, range(documents))
        compaction = _compaction(index, corpus, 0.005 if points <= _MOST_GROWN else 1.0)
        rows["compacted"] = _measure(index, corpus)
        engine_mb = memory_mb([pid for pid in [index.engine_pid] if pid])
        results[str(points)] = {"rows": rows, "compaction": compaction, "engine_mb": engine_mb}
        index.close()
    _show(results)
    return results


def _compaction(index: ProcessIndex, corpus: Corpus, pause_s: float) -> dict[str, float]:
    """How long it takes, and searches meanwhile, with a pause between two."""
    prober = _Prober(index, corpus, pause_s)
    prober.start()
    began = time.perf_counter()
    index.compact()
    seconds = time.perf_counter() - began
    prober.stop()
    times = [1000 * each for each in prober.seconds]
    return {"seconds": seconds, "searches": len(times), "p99_ms": percentile(times, 0.99), "worst_ms": max(times)}


def _end(sentence: str) -> None:
    raise SystemExit(sentence)


class Corpus:
    """Chunks around a few hundred centres, as texts of a few hundred subjects are."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)
        self._centres = self._chance.normal(size=(_CENTRES, _DIMENSION)).astype(np.float32)

    def vectors(self, number: int) -> Vector:
        rows = self._centres[self._chance.integers(0, _CENTRES, number)]
        rows = rows + 0.7 * self._chance.normal(size=rows.shape).astype(np.float32)
        unit: Vector = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def sparse(self, words: int) -> Sparse:
        """Words by a law that makes few of them frequent."""
        found = np.unique((30_000 * self._chance.random(words) ** 2).astype(int))
        return Sparse(found.tolist(), [1.0] * len(found))

    def document(self, number: int, seq: int) -> DocumentWrite:
        path = f"d{number % 100}/f{number}.md"
        texts = [f"chunk {chunk} of {number} {uuid.uuid4()} " * 10 for chunk in range(_CHUNKS)]
        return DocumentWrite(
            document_id=document_id(path.encode()),
            path=path,
            seq=seq,
            content_hash=text_hash(texts[0]),
            pipeline="bench",
            kind="markdown",
            modified_at="2026-01-01T00:00:00Z",
            size=4000,
            chunks=[Chunk(n, text, text_hash(text), 0, len(text)) for n, text in enumerate(texts)],
            dense=self.vectors(_CHUNKS),
            sparse=[self.sparse(60) for _ in texts],
        )

    def query(self, mode: Any, condition: Condition | None) -> SearchQuery:
        conditions = () if condition is None else (condition,)
        return SearchQuery(mode, 10, self.vectors(1)[0], self.sparse(6), conditions)


def _fill(index: ProcessIndex, corpus: Corpus, documents: range) -> None:
    for first in documents[::20]:
        numbers = range(first, min(first + 20, documents.stop))
        index.apply_all([corpus.document(n, 1_000_000 + n) for n in numbers])
    index.flush()


def _measure(index: ProcessIndex, corpus: Corpus) -> dict[str, list[float]]:
    """p50 and p99 in milliseconds of each kind of search."""
    filters = {
        "": None,
        ", one directory": Condition("directories", any_of=("d0",)),
        ", 200 paths": Condition("path", any_of=tuple(f"d0/f{n}.md" for n in range(0, 20_000, 100))),
    }
    found = {}
    for busy in (False, True):
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(index, stop), daemon=True)
        if busy:
            writer.start()
        for mode in ("dense", "hybrid"):
            for name, condition in filters.items():
                times = []
                for _ in range(_SEARCHES):
                    query = corpus.query(mode, condition)
                    began = time.perf_counter()
                    index.search(query)
                    times.append(1000 * (time.perf_counter() - began))
                    time.sleep(0.002)
                found[f"{mode}{name}{', while writing' if busy else ''}"] = [
                    percentile(times[10:], 0.5),
                    percentile(times[10:], 0.99),
                ]
        stop.set()
        if busy:
            writer.join()
    return found


def _write(index: ProcessIndex, stop: threading.Event) -> None:
    """As much as a model on a processor gives: 60 chunks a second, a flush each second."""
    corpus, number = Corpus(), 0
    while not stop.wait(1 / 6):
        index.apply_all([corpus.document(1_000 + number % 500, 2_000_000_000 + number)])
        number += 1
        if number % 6 == 0:
            index.flush()


class _Prober(threading.Thread):
    """Searches again and again and keeps how long each took."""

    def __init__(self, index: ProcessIndex, corpus: Corpus, pause_s: float) -> None:
        super().__init__(daemon=True)
        self._pause_s = pause_s
        self._index, self._corpus = index, corpus
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(self._pause_s):
            query = self._corpus.query("hybrid", None)
            began = time.perf_counter()
            self._index.search(query)
            self.seconds.append(time.perf_counter() - began)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _show(results: dict[str, Any]) -> None:
    for points, found in results.items():
        table = Table(title=f"{points} points: search in ms, p50 / p99")
        for column in ("search", *found["rows"]):
            table.add_column(column, justify="left" if column == "search" else "right")
        for name in found["rows"]["compacted"]:
            pairs = [found["rows"][state][name] for state in found["rows"]]
            table.add_row(name, *(f"{p50:.1f} / {p99:.1f}" for p50, p99 in pairs))
        one = found["compaction"]
        table.caption = (
            f"compaction {one['seconds']:.0f} s; searches meanwhile: p99 {one['p99_ms']:.0f} ms, "
            f"worst {one['worst_ms']:.0f} ms; engine {found['engine_mb']:.0f} MB"
        )
        Console().print(table)
