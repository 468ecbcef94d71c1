"""Says what is wrong with an index at rest, sharing no code with the pipeline: ``python checker.py FOLDER STATE``.

It walks the disk itself, reads every point raw from a copy of the shard and the ledger as any SQLite file. A violation
is one sentence. It is only meaningful when nothing writes: after a flush at rest, or after the end of the service.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["check", "copy_sparsely", "read_points"]

_SENTINEL = re.compile(r"[0-9a-f]{12}-v\d+-L\d+")
_UNIT_TOLERANCE = 1e-2
#: violations of one kind that are told in full
_TOLD = 5

Point = dict[str, Any]


@dataclass(frozen=True)
class File:
    """What is on the disk: the sentinels of all lines, and the hash of all bytes."""

    sentinels: frozenset[str]
    content_hash: str
    empty: bool

    @classmethod
    def read(cls, path: Path) -> File:
        data = path.read_bytes()
        lines = [line for line in data.decode("utf-8").splitlines() if line.strip()]
        found = [_SENTINEL.findall(line) for line in lines]
        assert all(found), f"{path} has a line without a sentinel: the generator is wrong"
        return cls(frozenset(s for line in found for s in line), hashlib.sha256(data).hexdigest(), not lines)


@dataclass
class _Told:
    """Violations, at most a few of each kind."""

    sentences: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    #: documents of which something is told
    paths: set[str] = field(default_factory=set)

    def add(self, kind: str, sentence: str, path: str | None = None) -> None:
        self.kinds[kind] += 1
        if path is not None and len(self.paths) < _TOLD:
            self.paths.add(path)
        if self.kinds[kind] <= _TOLD:
            self.sentences.append(f"{kind}: {sentence}")

    def all(self) -> list[str]:
        more = [f"{kind}: {number - _TOLD} more" for kind, number in self.kinds.items() if number > _TOLD]
        return self.sentences + more


def check(folder: Path, state: Path, *, points: list[Point] | None = None, facts: bool = False) -> list[str]:
    """Every violation of the promise, as sentences; none if the index is in step with the folder. ``points`` are those
    of a server, where the state has no shard. With ``facts`` what index and ledger hold of some of the documents
    follows."""
    told = _Told()
    files = {str(path.relative_to(folder)): File.read(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    try:
        points = read_points(state / "index") if points is None else points
    except Exception as error:  # the engine has no error type of its own
        return [f"unreadable: the shard cannot be loaded ({error})"]
    _check_documents(files, points, told)
    rows = _check_ledger(state / "ledger.sqlite3", files, told)
    return told.all() + [_facts(path, points, rows) for path in sorted(told.paths) if facts]


def _facts(path: str, points: list[Point], rows: dict[str, str]) -> str:
    """What a person needs to find out how it came to this."""
    payloads = [point["payload"] for point in points if point["payload"].get("path") == path]
    held = [(p.get("chunk", "record"), p.get("seq"), str(p.get("content_hash"))[:8]) for p in payloads]
    return f"facts: {path}: index {sorted(held, key=str)[:12]}, ledger {rows.get(path)}"


def copy_sparsely(source: Path, target: Path) -> None:
    """Shards are made of files that are mostly holes: a copy without holes takes a hundred times the space."""
    for patience_s in (0.2, 1.0, 3.0, None):
        done = subprocess.run(["cp", "-r", "--sparse=always", str(source), str(target)], capture_output=True, text=True)
        if done.returncode == 0:
            return
        shutil.rmtree(target, ignore_errors=True)  # a compaction has just put another shard in its place
        if patience_s is None:
            raise OSError(f"{source} could not be copied: {done.stderr[-500:]}")
        time.sleep(patience_s)


def read_points(index: Path) -> list[Point]:
    """All points with payloads and vectors, from a copy, which a second process may open."""
    import qdrant_edge as edge

    with tempfile.TemporaryDirectory(prefix="hwfaults-copy-") as scratch:
        copy = Path(scratch) / "index"
        copy_sparsely(index, copy)
        shard = edge.EdgeShard.load(str(copy))
        found: list[Point] = []
        offset = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=500, with_payload=True, with_vector=True)
            page, offset = shard.scroll(request)
            found += [{"id": str(p.id), "payload": p.payload or {}, "vector": p.vector or {}} for p in page]
            if offset is None:
                break
        shard.close()
        return found


# -- the index against the folder --------------------------------------------------------------------------------


def _check_documents(files: dict[str, File], points: list[Point], told: _Told) -> None:
    by_path: defaultdict[str, list[Point]] = defaultdict(list)
    for point in points:
        path = point["payload"].get("path")
        if path is None:
            told.add("nameless point", f"point {point['id']} has no path")
        else:
            by_path[path].append(point)
    for path in sorted(set(by_path) - set(files)):
        told.add("extra document", f"{len(by_path[path])} points of {path}, which is not in the folder")
    for path, file in files.items():
        _check_document(path, file, by_path.get(path, []), told)


def _check_document(path: str, file: File, points: list[Point], told: _Told) -> None:
    if file.empty:
        if points:
            told.add("extra document", f"{len(points)} points of {path}, which is empty")
        return
    chunks = [point for point in points if "text" in point["payload"]]
    records = [point for point in points if "text" not in point["payload"]]
    _check_lines(path, file, chunks, told)
    _check_numbers(path, chunks, told)
    if len(records) != 1:
        told.add("records", f"{path} has {len(records)} records where it should have one")
    for record in records:
        _check_record(path, file, record, len(chunks), told)
    if len({point["payload"].get("seq") for point in points}) > 1:
        told.add("mixed seqs", f"the points of {path} carry more than one seq", path)
    if len({point["payload"].get("document_id") for point in points}) > 1:
        told.add("mixed ids", f"the points of {path} carry more than one document id")
    for chunk in chunks:
        if chunk["payload"].get("content_hash") != file.content_hash:
            told.add(
                "stale chunk", f"chunk {chunk['payload'].get('chunk')} of {path} is of other bytes than the file's"
            )
        _check_vectors(path, chunk, told)


def _check_lines(path: str, file: File, chunks: list[Point], told: _Told) -> None:
    held = {sentinel for chunk in chunks for sentinel in _SENTINEL.findall(chunk["payload"]["text"])}
    if missing := sorted(file.sentinels - held):
        told.add("missing line", f"{len(missing)} lines of {path} are in no chunk of it, such as {missing[0]}", path)
    if stale := sorted(held - file.sentinels):
        told.add("foreign line", f"{len(stale)} lines in {path}'s chunks are not in the file, such as {stale[0]}", path)


def _check_numbers(path: str, chunks: list[Point], told: _Told) -> None:
    numbers = sorted(chunk["payload"].get("chunk", -1) for chunk in chunks)
    if numbers != list(range(len(numbers))):
        told.add("chunk numbers", f"{path} has the chunks {numbers[:8]}... where 0 to {len(numbers) - 1} are due")


def _check_record(path: str, file: File, record: Point, chunks: int, told: _Told) -> None:
    payload = record["payload"]
    if payload.get("chunks") != chunks:
        told.add("wrong count", f"the record of {path} counts {payload.get('chunks')} chunks, the index has {chunks}")
    if payload.get("content_hash") != file.content_hash:
        told.add("stale record", f"the record of {path} has another content hash than the file", path)
    if record["vector"]:
        told.add("record vector", f"the record of {path} has a vector and would be found")


def _check_vectors(path: str, chunk: Point, told: _Told) -> None:
    number, vector = chunk["payload"].get("chunk"), chunk["vector"]
    dense, sparse = vector.get("dense"), vector.get("sparse")
    if dense is None or sparse is None:
        told.add("no vector", f"chunk {number} of {path} lacks its {'dense' if dense is None else 'sparse'} vector")
        return
    length = math.sqrt(sum(value * value for value in dense))
    if not abs(length - 1.0) < _UNIT_TOLERANCE:
        told.add("bad vector", f"the dense vector of chunk {number} of {path} has the length {length}")
    if not sparse.indices or not all(math.isfinite(value) for value in sparse.values):
        told.add("bad vector", f"the sparse vector of chunk {number} of {path} is empty or not finite")


# -- the ledger --------------------------------------------------------------------------------------------------


def _check_ledger(ledger: Path, files: dict[str, File], told: _Told) -> dict[str, str]:
    """Returns each document's row, for people."""
    db = sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = db.execute("SELECT path, operation, wanted_seq, applied_seq, state, reason FROM documents").fetchall()
        names = "operation, wanted_seq, applied_seq, state, substr(content_hash, 1, 8), lane, due_at, size, inode"
        all_rows = {bytes(path).decode(): str(row) for path, *row in db.execute(f"SELECT path, {names} FROM documents")}
    finally:
        db.close()
    for path, operation, wanted, applied, state, reason in rows:
        name = bytes(path).decode()
        if wanted > applied:
            told.add("in flight", f"{name} is still due ({operation}; {reason})", name)
        elif operation == "index" and name in files and state != ("refused" if files[name].empty else "indexed"):
            told.add("not indexed", f"{name} is {state} in the ledger ({reason})")
    wanted_paths = {bytes(row[0]).decode() for row in rows if row[1] == "index"}
    for name in sorted(wanted_paths ^ set(files)):
        told.add("ledger", f"{name} is {'only in the ledger' if name in wanted_paths else 'not in the ledger'}", name)
    return all_rows


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]), Path(sys.argv[2]), facts=True)))
