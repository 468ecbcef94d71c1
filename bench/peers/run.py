"""``python -m bench.peers.run [--files N] [PEER...]``: Headwater and its peers side by side (bench/README.md)."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.table import show

_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent
_VENVS = _ROOT / "build" / "peers"
_RESULTS = _HERE.parent / "results" / "peers.json"
#: how long nothing may happen until a live peer counts as at rest
_REST_S = 1.5
_MOST_S = 120.0
_POLL_S = 0.02
_QUESTIONS = 50
_WARM_UP = 5
#: the file whose size is nearest to this is the one that is edited
_EDITED_BYTES = 15_000
#: characters of a paragraph that a sentence is added to
_PROSE = 200
#: how the driver's own questions begin
_PROBE = "Which text says: "
_SENTENCE = "The word {} is in this sentence and nowhere else."

Chunks = list[tuple[str, str]]


@dataclass(frozen=True)
class Kind:
    """A peer: whether it follows the folder by itself, and the packages whose versions are shown."""

    name: str
    live: bool
    packages: tuple[str, ...]


_KINDS = (
    Kind("headwater", True, ("headwater", "qdrant-edge-py")),
    Kind("naive", True, ("watchdog", "qdrant-client")),
    Kind("llamaindex", False, ("llama-index-core", "llama-index-vector-stores-qdrant", "qdrant-client")),
    Kind("langchain", False, ("langchain-core", "langchain-classic", "langchain-qdrant", "qdrant-client")),
    Kind("cocoindex", True, ("cocoindex", "lancedb")),
)
_SHARED = ("sentence-transformers", "transformers", "torch")


class Asked:
    """A peer's process that answers questions."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def search(self, text: str) -> list[str]:
        found: list[str] = self._ask({"search": f"{_PROBE}{text}"})
        return found

    def chunks(self) -> Chunks:
        return [(path, text) for path, text in self._ask({"chunks": True})]

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return _next_line(self._process)


class Peer:
    """One peer on one folder: its commands, and what they gave to the model."""

    def __init__(self, kind: Kind, work: Path, corpus: Path) -> None:
        self.kind, self.folder, self.corpus = kind, work / "folder", corpus
        shutil.copytree(corpus, self.folder)
        self._work, self._counts = work, work / "counts"
        self._counts.touch()
        self._python = sys.executable if kind.name == "headwater" else str(_VENVS / kind.name / ".venv/bin/python")

    def embedded(self) -> tuple[int, int]:
        """Texts and characters that the model was given so far."""
        lines = [line.split() for line in self._counts.read_text().splitlines()]
        return sum(int(texts) for texts, _ in lines), sum(int(characters) for _, characters in lines)

    def sync(self, state: str = "state", **environment: str) -> dict[str, Any]:
        """The whole command, and the part of it after model and index were open; the texts embedded meanwhile."""
        before, started = self.embedded(), time.perf_counter()
        process = self._start(state, "sync", **environment)
        _next_line(process)
        inner = _next_line(process)["seconds"]
        if process.wait() != 0:
            raise RuntimeError(self.log())
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "after_loading_s": inner, **self._since(before)}

    def killed_sync(self, state: str, texts: int) -> None:
        """Kill -9 for all processes of a sync, once the model has been given so many texts."""
        before, _ = self.embedded()
        process = self._start(state, "sync")
        while self.embedded()[0] - before < texts:
            if process.poll() is not None:
                raise RuntimeError(f"ended before it could be killed: {self.log()}")
            time.sleep(_POLL_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @contextlib.contextmanager
    def serving(self, command: str, state: str = "state") -> Iterator[Asked]:
        """A process that answers, at rest."""
        process = self._start(state, command)
        _next_line(process)
        asked = Asked(process)
        try:
            yield asked
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def change(self, asked: Asked | None, change: Callable[[], Any], done: Callable[[Asked], bool]) -> dict[str, Any]:
        """Make a change; until an answer shows it and the peer is at rest (live), or the rerun has ended."""
        before = self.embedded()
        started = time.perf_counter()
        change()
        if asked is None:
            return self.sync()
        while not done(asked):
            if time.perf_counter() - started > _MOST_S:
                break
            time.sleep(_POLL_S)
        seconds = time.perf_counter() - started
        self.rest()
        return {"seconds": seconds, **self._since(before)}

    def rest(self) -> None:
        """Wait until the model was given nothing for a while."""
        last, since = self.embedded(), time.perf_counter()
        while time.perf_counter() - since < _REST_S:
            time.sleep(_POLL_S)
            if (now := self.embedded()) != last:
                last, since = now, time.perf_counter()

    def log(self) -> str:
        return (self._work / "log").read_text()[-2000:]

    def _since(self, before: tuple[int, int]) -> dict[str, int]:
        texts, characters = self.embedded()
        return {"texts": texts - before[0], "characters": characters - before[1]}

    def _start(self, state: str, command: str, **environment: str) -> subprocess.Popen[str]:
        with open(self._work / "log", "a") as log:
            return subprocess.Popen(
                [self._python, "-m", f"bench.peers.{self.kind.name}", self.folder, self._work / state, command],
                cwd=_ROOT,
                env={**_environment(self._counts), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )


def _environment(counts: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{_HERE / 'counting'}",
        "BENCH_COUNTS": str(counts),
        "BENCH_PROBE": _PROBE,
        "HF_HUB_OFFLINE": "1",
        "COCOINDEX_DISABLE_USAGE_TRACKING": "1",
        "ANONYMIZED_TELEMETRY": "false",
    }


def _next_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the peer's process ended")
    return json.loads(line)


# -- the rows ---------------------------------------------------------------------------------------------------


def measure(peer: Peer) -> dict[str, Any]:
    """All rows of one peer."""
    rows: dict[str, Any] = {"cold": peer.sync()}
    if peer.kind.name == "headwater":
        rows["cold fp32"] = peer.sync("state-fp32", HEADWATER_PRECISION="fp32")
    rows["unchanged"] = peer.sync()
    whole = _chunks(peer, "state")
    rows["chunks"] = len(whole)
    rows["cold"]["right"] = {path for path, _ in whole} == _paths(peer.folder)
    rows["killed"] = _killed(peer, rows["cold"]["texts"], whole)
    if peer.kind.live:
        with peer.serving("watch") as asked:
            while not asked.chunks():
                time.sleep(_POLL_S)
            time.sleep(_REST_S)  # the watch is there
            peer.rest()
            rows |= _changes(peer, asked)
            rows["query"] = _queries(peer, asked)
    else:
        rows |= _changes(peer, None)
        with peer.serving("ask") as asked:
            rows["query"] = _queries(peer, asked)
    peer.sync("fresh")
    rows["as a fresh index"] = _same(_chunks(peer, "state"), _chunks(peer, "fresh"))
    return rows


def _changes(peer: Peer, asked: Asked | None) -> dict[str, Any]:
    files = sorted(peer.folder.rglob("*.md"), key=lambda path: path.stat().st_size)
    edited = min(files, key=lambda path: abs(path.stat().st_size - _EDITED_BYTES))
    others = [path for path in files if path != edited]
    moved, copied, removed = others[len(others) // 2 - 1 :][:3]
    old, new, top = (_SENTENCE.format(word) for word in ("zqoldbrock", "zqnewfjord", "zqtopquartz"))

    def put(text: str) -> Callable[[], Any]:
        return lambda: edited.write_text(text, "utf-8")

    paragraphs = edited.read_text("utf-8").split("\n\n")
    prose = [at for at, text in enumerate(paragraphs) if text[:1].isalpha() and len(text) > _PROSE]
    middle = min(prose, key=lambda at: abs(at - len(paragraphs) // 2))

    def with_sentence(texts: list[str], at: int, sentence: str) -> list[str]:
        return [*texts[:at], f"{texts[at]} {sentence}", *texts[at + 1 :]]

    rows = {}
    first, second = with_sentence(paragraphs, middle, old), with_sentence(paragraphs, middle, new)
    steps: dict[str, tuple[list[str], str, str]] = {
        "prepared": (first, old, "-"),
        "middle": (second, new, old),
        "top": (with_sentence(second, prose[0], top), top, old),
    }
    for name, (texts, present, gone) in steps.items():
        rows[name] = peer.change(asked, put("\n\n".join(texts)), lambda asked, p=present, g=gone: _found(asked, p, g))
        rows[name]["right"] = _right(peer, asked, present, gone)
    rows["edited_characters"] = len(edited.read_text("utf-8"))
    del rows["prepared"]
    target = moved.with_name(f"renamed-{moved.name}")
    twin = copied.with_name(f"copy-of-{copied.name}")
    whole_files: dict[str, Callable[[], Any]] = {
        "rename": lambda: moved.rename(target),
        "copy": lambda: shutil.copyfile(copied, twin),
        "delete": removed.unlink,
    }
    for name, change in whole_files.items():
        rows[name] = peer.change(asked, change, lambda asked: _holds(asked, peer.folder))
        rows[name]["right"] = _right(peer, asked, top, old)
    return rows


def _killed(peer: Peer, needed: int, whole: Chunks) -> dict[str, Any]:
    before, _ = peer.embedded()
    peer.killed_sync("killed", needed // 2)
    at_kill, _ = peer.embedded()
    seconds = peer.sync("killed")["seconds"]
    texts, _ = peer.embedded()
    return {
        "texts_before": at_kill - before,
        "texts": texts - before,
        "needed": needed,
        "seconds": seconds,
        "right": _same(_chunks(peer, "killed"), whole),
    }


def _queries(peer: Peer, asked: Asked) -> dict[str, Any]:
    """Milliseconds of each question, its embedding included."""
    titles = [path.read_text("utf-8").lstrip("# \n").split("\n")[0] for path in sorted(peer.folder.rglob("*.md"))]
    took = []
    for number in range(_WARM_UP + _QUESTIONS):
        started = time.perf_counter()
        asked.search(f"{titles[number % len(titles)]}, question {number}")
        took.append(1000 * (time.perf_counter() - started))
    return {"p50_ms": median(took[_WARM_UP:]), "ms": took[_WARM_UP:]}


def _right(peer: Peer, asked: Asked | None, present: str, gone: str) -> bool:
    """All paths and no others, the sentence in a chunk, and the old one in none."""
    with contextlib.nullcontext(asked) if asked is not None else peer.serving("ask") as answering:
        chunks = answering.chunks()
    return {path for path, _ in chunks} == _paths(peer.folder) and _shown(chunks, present, gone)


def _found(asked: Asked, present: str, gone: str) -> bool:
    """Whether a search finds the new sentence, and one for the old does not find that any more."""
    new, old = (any(_has(text, sentence) for text in asked.search(sentence)) for sentence in (present, gone))
    return new and not old


def _holds(asked: Asked, folder: Path) -> bool:
    """Whether the index has chunks of all files and of no other."""
    return {path for path, _ in asked.chunks()} == _paths(folder)


def _shown(chunks: Chunks, present: str, gone: str) -> bool:
    return any(_has(text, present) for _, text in chunks) and not any(_has(text, gone) for _, text in chunks)


def _has(text: str, sentence: str) -> bool:
    """Whether the sentence's own word is in it."""
    words = [word for word in sentence.split() if word.startswith("zq")]
    return bool(words) and words[0] in text


def _chunks(peer: Peer, state: str) -> Chunks:
    with peer.serving("ask", state) as asked:
        return asked.chunks()


def _same(some: Chunks, others: Chunks) -> bool:
    return Counter(some) == Counter(others)


def _paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.md")}


# -- corpus and environments ------------------------------------------------------------------------------


def _corpus(work: Path, most: int) -> Path:
    """So many Markdown files, evenly spread over the Rust book (data pack), else over the project's docs."""
    source, chosen = _ROOT / "docs", work / "corpus"
    if data := os.environ.get("HEADWATER_DATA"):
        history, source = Path(data) / "history", work / "book"
        command = [sys.executable, str(history / "replay.py"), str(history / "rust-book.jsonl.xz"), str(source)]
        subprocess.run(command, check=True, capture_output=True)
    files = sorted(source.rglob("*.md"))
    for number in range(min(most, len(files))):
        path = files[number * len(files) // min(most, len(files))]
        target = chosen / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return chosen


def _install(name: str) -> None:
    """The peer's own virtual environment, with the versions of its requirements file. Raises RuntimeError."""
    requirements, home = _HERE / f"{name}.txt", _VENVS / name
    stamp, digest = home / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(home, ignore_errors=True)
    print(f"installing {name} ...", flush=True)
    venv = [sys.executable, "-m", "venv", home / ".venv"]
    pip = [home / ".venv/bin/pip", "install", "--quiet", "--requirement", requirements]
    for command in (venv, pip):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RuntimeError("; ".join(errors[-2:]) or done.stderr[-300:])
    stamp.write_text(digest)


def _versions(kind: Kind) -> dict[str, str]:
    names = (*kind.packages, *_SHARED)
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    python = sys.executable if kind.name == "headwater" else str(_VENVS / kind.name / ".venv/bin/python")
    found: dict[str, str] = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True).stdout)
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def main() -> None:
    """Measure the peers that are named, or all, and write bench/results/peers.json."""
    names = [kind.name for kind in _KINDS]
    parser = argparse.ArgumentParser(description="Headwater beside its peers.")
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--files", type=int, default=40, help="files of the corpus")
    given = parser.parse_args()
    if unknown := set(given.peers) - set(names):
        parser.error(f"there is no peer {', '.join(sorted(unknown))}: peers are {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="hwpeers-") as work:
        corpus = _corpus(Path(work), given.files)
        results = {
            "corpus": "the Rust book" if os.environ.get("HEADWATER_DATA") else "the project's docs",
            "files": len(_paths(corpus)),
            "characters": sum(len(path.read_text("utf-8")) for path in corpus.rglob("*.md")),
            "processor": _processor(),
            "python": platform.python_version(),
            "peers": {},
        }
        for kind in _KINDS:
            if not given.peers or kind.name in given.peers:
                results["peers"][kind.name] = _measured(kind, Path(work) / kind.name, corpus)
                _RESULTS.parent.mkdir(exist_ok=True)
                _RESULTS.write_text(json.dumps(results, indent=1))  # after each: an interrupted run keeps what it has
    show(results, {kind.name: kind.live for kind in _KINDS})


def _measured(kind: Kind, work: Path, corpus: Path) -> dict[str, Any]:
    """A peer's versions and rows, or why it has none."""
    found: dict[str, Any] = {"versions": {}}
    try:
        if kind.name != "headwater":
            _install(kind.name)
        found["versions"] = _versions(kind)
        work.mkdir()
        print(f"measuring {kind.name} ...", flush=True)
        found["rows"] = measure(Peer(kind, work, corpus))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        found["failed"] = str(error)[-500:]
    return found


if __name__ == "__main__":
    main()
