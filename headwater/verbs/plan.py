"""``headwater plan``: what a run would do now. Changes nothing: folder, ledger and index are only read."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headwater.errors import HeadwaterError
from headwater.verbs.options import AsJson, Folder, StateDir
from headwater.verbs.place import Place, find_place
from headwater.verbs.tally import Tally, Text

if TYPE_CHECKING:
    from headwater.embedder import Embedder
    from producer.prospect import Prospect
    from worker.preview import Preview

__all__ = ["plan"]

#: texts that are measured together, and how long measuring may take
_MEASURE_TEXTS = 32
_MEASURE_S = 3.0
#: hashes in one question to the service, far below its limit of a request
_ASK_HASHES = 4096
#: reasons that people are shown
_MOST_REASONS = 8

Known = Callable[[Sequence[str]], set[str]]


def plan(folder: Folder = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """What a run would do now: files, chunks, tokens, texts to embed, deletions and time. Changes nothing."""
    place = find_place(folder, state_dir)
    found = make_plan(place, Console(stderr=True))
    if as_json:
        print(json.dumps(found))
    else:
        _show(Console(highlight=False, markup=False, emoji=False), found)


def make_plan(place: Place, console: Console) -> dict[str, Any]:
    """The plan as one JSON-able object. ``console`` shows progress if it is a terminal."""
    from producer.prospect import look_ahead

    place.settings.model_copy(update={"folder": place.folder}).required_folder()
    ahead = look_ahead(place.root, place.settings, place.layout)
    with _reuse(place) as (known, note):
        tally = Tally(known)
        tally.files["unchanged"] = ahead.unchanged
        for reason in ahead.refused.values():
            tally.not_indexed("refused", reason)
        estimate, gone = _look_inside(place, ahead, tally, console) if ahead.read else (_Estimate(), 0)
    deleted = len(ahead.deleted) + gone
    return {
        "folder": str(place.folder),
        "state_dir": str(place.layout.root),
        "running": place.running,
        **tally.to_dict(),
        "deletions": {
            "documents": deleted,
            "share": round(deleted / ahead.known, 4) if ahead.known else 0.0,
            "held_because": ahead.held_because,
        },
        "estimate": estimate.to_dict(),
        "notes": [*([f"{len(ahead.again)} documents are read again: {ahead.again_because}"] if ahead.again else []),
                  *([note] if note and ahead.read else [])],
    }  # fmt: skip


# -- what is in the files -------------------------------------------------------------------------------------


def _look_inside(place: Place, ahead: Prospect, tally: Tally, console: Console) -> tuple[_Estimate, int]:
    """Read, extract and cut what a run would; how long it would take, and how many renames are none."""
    from headwater.embedder import load_embedder
    from worker.preview import previews
    from worker.sandboxes import SandboxPool
    from worker.tokens import ModelTokenizer

    settings = place.settings
    embedder = load_embedder(settings)
    _check_model(place, embedder)
    tokenizer = ModelTokenizer(embedder.tokenizer_json)
    threads = settings.sandboxes or os.cpu_count() or 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwater-plan-") as homes:
        pool = SandboxPool.of(settings, embedder, Path(homes) / "sandbox")
        sorter = _Sorter(ahead, tally, tokenizer.counts)
        with contextlib.closing(pool):
            spent = {path: ahead.content[path] for path in ahead.spent}
            found = previews(
                place.root, ahead.read, pool, spent=spent, max_file_bytes=settings.max_file_bytes, threads=threads
            )
            for preview in _with_progress(found, len(ahead.read), console):
                sorter.sort(preview)
    return _measure(embedder, settings.batch_tokens, tally, time.monotonic() - started), sorter.no_renames


def _check_model(place: Place, embedder: Embedder) -> None:
    """A run with another model than that of the index would refuse to begin: so does the plan."""
    from headwater.index import Manifest

    if place.settings.qdrant_url or not place.layout.manifest.exists():
        return
    manifest = Manifest.from_json(place.layout.manifest.read_text("utf-8"))
    manifest.check(embedder.name, embedder.dimension, str(place.layout.index))


@dataclass
class _Sorter:
    """Tells what became of each file that would be read."""

    ahead: Prospect
    tally: Tally
    count_tokens: Callable[[Sequence[str]], Sequence[int]]
    no_renames: int = 0
    _old: Mapping[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._old = {new: old for old, new in self.ahead.changes.moved}
        self._sets = {
            "new": set(self.ahead.changes.created),
            "changed": set(self.ahead.changes.changed),
            "waiting": set(self.ahead.waiting),
        }

    def sort(self, preview: Preview) -> None:
        path, digest = preview.path, preview.content_hash
        if path in self._old and (digest is None or digest != self.ahead.content.get(self._old[path])):
            self.no_renames += 1
        if preview.state == "gone":
            return
        if preview.state == "spent":
            self.tally.not_indexed("failed", f"{self.ahead.spent[path]} (not tried again)")
        elif preview.state in ("refused", "failed"):
            self.tally.not_indexed(preview.state, preview.reason or "")
        else:
            self.tally.indexed(self._kind(path, digest), self._texts(preview))

    def _kind(self, path: bytes, digest: str | None) -> str:
        if path in self._old:
            return "moved" if digest == self.ahead.content.get(self._old[path]) else "new"
        kind = next((kind for kind, paths in self._sets.items() if path in paths), "again")
        return "touched" if kind == "changed" and digest == self.ahead.content.get(path) else kind

    def _texts(self, preview: Preview) -> list[Text]:
        counts = self.count_tokens([chunk.embedded for chunk in preview.chunks])
        return [Text(chunk.text_hash, chunk.embedded, n) for chunk, n in zip(preview.chunks, counts, strict=True)]


def _with_progress(found: Iterator[Preview], total: int, console: Console) -> Iterator[Preview]:
    columns = (TextColumn("reading"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(found, total=total)


# -- what is in the index -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reuse(place: Place) -> Iterator[tuple[Known, str | None]]:
    """Which texts the index has; and why it could not be asked, if so."""
    from headwater.verbs.reader import open_reader

    if not place.settings.qdrant_url and not place.layout.manifest.exists():
        yield lambda hashes: set(), None
        return
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(open_reader(place))
            reader.known([])
        except HeadwaterError as error:
            yield lambda hashes: set(), f"texts that the index has are counted as to be embedded: {error}"
            return
        yield lambda hashes: _in_parts(reader.known, hashes), None


def _in_parts(known: Known, hashes: Sequence[str]) -> set[str]:
    parts = (hashes[first : first + _ASK_HASHES] for first in range(0, len(hashes), _ASK_HASHES))
    return {text_hash for part in parts for text_hash in known(part)}


# -- how long it would take -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Estimate:
    """Reading and embedding run at the same time, so the slower of the two counts."""

    reading_s: float = 0.0
    embedding_s: float = 0.0
    texts_per_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        numbers = {
            "seconds": max(self.reading_s, self.embedding_s),
            "reading_s": self.reading_s,
            "embedding_s": self.embedding_s,
            "texts_per_s": self.texts_per_s,
        }
        return {name: value if value is None else round(value, 2) for name, value in numbers.items()}


def _measure(embedder: Embedder, batch_tokens: int, tally: Tally, reading_s: float) -> _Estimate:
    """Embed a sample of the texts as a run would, after one that warms the model up."""
    from headwater.batcher import Batcher

    if not tally.sample:
        return _Estimate(reading_s)
    embedder.encode(tally.sample[:1], "document")
    with contextlib.closing(Batcher(embedder, batch_tokens)) as batcher:
        started, done = time.monotonic(), 0
        while done < len(tally.sample) and time.monotonic() - started < _MEASURE_S:
            part = tally.sample[done : done + _MEASURE_TEXTS]
            batcher.embed(part, "bulk")
            done += len(part)
        rate = done / (time.monotonic() - started)
    return _Estimate(reading_s, tally.embedded / rate, rate)


# -- what people see ------------------------------------------------------------------------------------------


def _show(console: Console, found: Mapping[str, Any]) -> None:
    texts, estimate, gone = found["texts"], found["estimate"], found["deletions"]
    console.print(f"plan for {found['folder']}; nothing is changed", style="bold", soft_wrap=True)
    console.print(f"files      {_listed(found['files']) or 'none'}")
    for state, reasons in found["reasons"].items():
        for reason, number in list(reasons.items())[:_MOST_REASONS]:
            console.print(f"           {state} {number}: {reason}", style="dim", soft_wrap=True)
    share = f" ({gone['share']:.1%} of those known)" if gone["documents"] else ""
    held = f", held: {gone['held_because']}" if gone["held_because"] else ""
    console.print(f"removed    {gone['documents']}{share}{held}", soft_wrap=True)
    console.print(f"chunks     {found['chunks']} with {found['tokens']} tokens")
    embedded = f"{texts['embedded']} to embed ({found['embedded_tokens']} tokens)"
    console.print(f"texts      {embedded}, {texts['reused']} in the index, {texts['doubled']} doubled")
    console.print(f"time       {_time(estimate)}")
    for note in found["notes"]:
        console.print(f"- {note}", soft_wrap=True)


def _listed(files: Mapping[str, int]) -> str:
    order = ("new", "changed", "moved", "touched", "waiting", "again", "refused", "failed", "unchanged")
    return ", ".join(f"{files[kind]} {kind}" for kind in order if files.get(kind))


def _time(estimate: Mapping[str, Any]) -> str:
    if not estimate["seconds"]:
        return "none: nothing is to be read"
    seconds, rate = estimate["seconds"], estimate["texts_per_s"]
    shown = f"about {seconds:.0f} s" if seconds >= 1 else "below a second"
    embedding = (
        f"embedding {estimate['embedding_s']:.1f} s at {rate:.0f} texts/s measured now" if rate else "no text is new"
    )
    return f"{shown}: {embedding}, reading {estimate['reading_s']:.1f} s"
