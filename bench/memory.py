"""Memory of a worker with the default model over an index of many chunks.

The folder is real, and so are ledger, chunks and points: they come from producer and worker code in this process. Only
the vectors are drawn, since real ones take an hour; then the service starts with the default model, all in step.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.offline import open_pipeline
from bench.search import Corpus
from bench.service import Running, memory_mb, percentile
from headwater.embedder import load_embedder
from headwater.index_edge import EdgeIndex
from headwater.messages import Hint, Item, Outcome
from headwater.settings import Settings
from headwater.state import find_layout
from producer.diff import diff
from producer.ledger import Ledger
from producer.rules import Rules
from producer.scanner import Scanner

_CHUNKS_A_FILE = 10
_SEARCHES = 200
_EDITS = 200
#: how long no compaction may begin until none is waited for
_QUIET_S = 20.0
_PARTS = {
    "worker": "headwater work",
    "engine": "headwater.engine",
    "compaction": "headwater.engine optimize",
    "extraction": "worker.sandbox",
}
_SENTENCE = "{} {} of the {} runs beside the {} and is {} when the {} comes."
_WORDS = ("river", "spring", "stone", "valley", "meadow", "harbour", "lantern", "copper", "violet", "thunder", "window")


def run(work: Path, chunks: int) -> dict[str, Any]:
    """Memory of worker and engine at rest, after searches and after edits, and at most while it is compacted."""
    folder, state = work / "folder", work / "state"
    _write(folder, chunks // _CHUNKS_A_FILE)
    held = _index(folder, state, work)
    results: dict[str, Any] = {"chunks": held}
    with Running(folder, state) as service:
        service.wait_ready()
        service.wait_all()
        results["embedded at the start"] = service.peek()["embedded_texts_total"]
        results["compacted, at most"] = _until_compacted(service)
        results["at rest"] = _parts(service)
        took = [_search(service, number) for number in range(_SEARCHES)]
        results["after searches"], results["search_p50_ms"] = _parts(service), percentile(took, 0.5)
        for path in sorted(folder.rglob("*.md"))[:_EDITS]:
            path.write_text(path.read_text() + "\nOne more sentence of an edit.\n")
        service.wait_all()
        results["after edits"] = _parts(service)
    _show(results)
    return results


def _until_compacted(service: Running) -> dict[str, list[float]]:
    """Wait for a compaction to begin, if one does, and to end; the most that each part held meanwhile."""
    most, quiet_since = _parts(service), time.monotonic()
    while time.monotonic() - quiet_since < _QUIET_S:
        time.sleep(0.5)
        now = _parts(service)
        most = {name: [max(pair) for pair in zip(most[name], now[name], strict=True)] for name in now}
        if service.children("headwater.engine optimize"):
            quiet_since = time.monotonic()
    return most


def _write(folder: Path, files: int) -> None:
    chance = random.Random(1)
    for number in track(range(files), "writing files", transient=True):
        path = folder / f"d{number % 100:02}" / f"f{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        sections = []
        for section in range(_CHUNKS_A_FILE):
            sentences = [_SENTENCE.format(*chance.choices(_WORDS, k=6)) for _ in range(8)]
            sections.append(f"# Section {section} of {number}\n\n{' '.join(sentences)}\n")
        path.write_text("\n".join(sections))


def _index(folder: Path, state: Path, work: Path) -> int:
    """Bring ledger and index in step with the folder; the number of chunks."""
    settings = Settings.load(folder=folder, state_dir=state)
    layout = find_layout(settings).create()
    embedder = load_embedder(settings)
    index = EdgeIndex(layout.index, layout.manifest)
    manifest = index.ensure_schema(embedder.name, embedder.dimension)
    ledger = Ledger(layout.ledger)
    ledger.set_metas({"index_id": manifest.index_id, "pipeline": settings.pipeline_fingerprint()})
    corpus = Corpus()

    def draw(texts: Any, priority: Any) -> Any:
        return corpus.vectors(len(texts)), 0

    pipeline, sandboxes = open_pipeline(folder, index, draw, embedder.tokenizer_json, work / "sandbox", settings)
    seen = Scanner(os.fsencode(folder), Rules(os.fsencode(folder))).scan()
    with ledger.transaction():
        ledger.want(diff(ledger.known(), seen), seen, "bulk")
    paths = sorted(seen)
    for first in track(range(0, len(paths), 64), "indexing", transient=True):
        items = tuple(Item(path, ledger.wanted_seq(path), "index") for path in paths[first : first + 64])
        outcomes = [found for found in pipeline.apply(Hint(items, "bulk")) if isinstance(found, Outcome)]
        with ledger.transaction():
            for outcome in outcomes:
                ledger.applied(outcome, 1)
    index.flush()
    held = index.count().chunks
    index.close()
    ledger.close()
    sandboxes.close()
    return held


def _parts(service: Running) -> dict[str, list[float]]:
    """By part: memory in MB without mapped files, and with them."""
    pids = {name: set(service.children(command)) for name, command in _PARTS.items()}
    pids["engine"] -= pids["compaction"]
    found = {name: [memory_mb(own, "Pss_Anon"), memory_mb(own)] for name, own in pids.items()}
    found["all"] = [sum(column) for column in zip(*found.values(), strict=True)]
    return found


def _search(service: Running, number: int) -> float:
    question = " ".join(random.Random(number).choices(_WORDS, k=5))
    began = time.perf_counter()
    service.ask("/v1/search", {"text": question, "mode": "hybrid"})
    return 1000 * (time.perf_counter() - began)


def _show(results: dict[str, Any]) -> None:
    table = Table(title=f"memory at {results['chunks']} chunks with the default model, MB: own / with mapped files")
    table.add_column("when")
    for column in (*_PARTS, "all"):
        table.add_column(column, justify="right")
    for when in ("compacted, at most", "at rest", "after searches", "after edits"):
        table.add_row(when, *(f"{own:.0f} / {mapped:.0f}" for own, mapped in results[when].values()))
    embedded, took = results["embedded at the start"], results["search_p50_ms"]
    table.caption = f"{embedded} texts embedded at the start; search p50 {took:.1f} ms over the API"
    Console().print(table)
