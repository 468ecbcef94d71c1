"""The fault group "poison": one hostile document per run through the real extraction children of a worker.

``python tests/faults/poison.py --runs 1000 --seed 1 --out FILE`` runs that many mutations, a tenth as many documents
that make the extractor do harm, every bomb, every document that names what is not its own, and whole pipelines where
good documents lie beside bad ones. After each, a good document must be read right by the same pool. One JSON line per
run; exit status 1 if any has a violation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
sys.path[:0] = [str(path) for path in (_HERE, _ROOT, _HERE.parent / "support") if str(path) not in sys.path]

from bombs import BOMBS, ENTITIES
from driver import Headwater, pids_with
from mutations import KINDS, mutate
from small_documents import MAKERS

from headwater.settings import Settings
from worker.sandboxes import ExtractionFailed, ExtractionRefused, SandboxPool

__all__ = [
    "HARMS",
    "Laboratory",
    "Run",
    "Verdict",
    "bomb_runs",
    "entity_runs",
    "harm_runs",
    "laboratory",
    "mutation_runs",
    "pipeline_run",
]

HOSTILE = _HERE / "hostile"
#: beyond the time-out: the grace of the parent, and a busy machine
_SLACK_S = 15.0
_QUICK_S = 2.0
_FORMATS = ("pdf", "docx", "xlsx", "pptx", "html")
_MOST_SOURCE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One document, and the outcomes that are right for it (a pattern; any outcome if empty)."""

    fault: str
    seed: int
    name: str
    data: bytes
    expect: str = ""
    #: seconds that a document may take; 0: as long as in a worker by default
    timeout_s: float = 0.0


@dataclass
class Verdict:
    """What came of a run, as it is printed."""

    group: str
    fault: str
    seed: int
    runs: int
    converge_s: float
    verdict: str = "pass"
    violations: list[str] = field(default_factory=list)
    outcome: str = ""

    def blame(self, violation: str) -> None:
        self.violations.append(violation)
        self.verdict = "fail"


# -- documents that make the extractor do harm --------------------------------------------------------------------

_LATE = r"failed: the extraction (took longer|used more processor time)"
#: what a marked document does -> what must come of it
HARMS = {
    "segfault": r"failed: .*segmentation fault",
    "abort": r"failed: .*abort",
    "buserror": r"failed: .*bus error",
    "exit": r"failed: .*ended by itself \(status 3\)",
    "kill": r"failed: .*was killed",
    "stop": _LATE,
    "spin": _LATE,
    "sleep": _LATE,
    "deaf": _LATE,
    "eat": r"failed: .*(more memory|was killed)",
    "recurse": r"failed: ",
    "threads": r"failed: ",
    "write10g": r"failed: .*(wrote more to the disk|sandbox)",
    "unlinked10g": r"failed: .*(wrote more to the disk|sandbox|No space)",
    "large_file": r"failed: .*(File too large|wrote a larger file)",
    "many_files": r"failed: .*wrote more to the disk",
    "leave_files": r"chunks: wrote 40 MiB",
    "outside": r"chunks: written outside: \[\]",
    "read /etc/passwd": r"chunks: not read",
    "read /proc/1/environ": r"chunks: not read",
    "fork": r"chunks: forked 0$",
    "spawn": r"chunks: not spawned",
    "signal": r"chunks: not signalled",
    "connect": r"chunks: not connected",
    "half_frame": _LATE,
    "half_size": _LATE,
    "drip": _LATE,
    "garbage": r"failed: .*(no proper answer|took longer)",
    "not_json": r"failed: .*no proper answer",
    "deep_json": r"failed: .*no proper answer",
    "huge_claim": r"failed: .*no proper answer",
    "flood": _LATE,
    "closes": r"failed: .*closed its pipes",
    "bug": r"failed: .*KeyError",
    "answer_twice": r"failed: .*no proper answer",
    "late_answer": r"chunks: an honest answer",
    "die_later": r"chunks: an honest answer",
    "chunks": r"chunks: |failed: ",
    "long_headings": r"chunks: |failed: ",
}
#: these need longer than a moment to reach their limit
_SLOW = {"eat", "threads", "recurse", "write10g", "unlinked10g", "large_file", "many_files", "chunks", "long_headings"}


def harm_runs(verbs: Iterable[str], seed: int, port: int) -> Iterator[Run]:
    for number, verb in enumerate(verbs):
        given = f"{verb} {port}" if verb == "connect" else verb
        timeout_s = 0.0 if verb in _SLOW else _QUICK_S
        yield Run(f"harm: {verb}", seed + number, "a.md", f"HOSTILE {given} ".encode(), HARMS[verb], timeout_s)


# -- mutations, bombs, entities -----------------------------------------------------------------------------------


def _sources(kind: str) -> list[Path]:
    """Real documents of a format, where HEADWATER_DATA names the data pack."""
    files = Path(os.environ.get("HEADWATER_DATA", "/nonexistent")) / "formats" / "files"
    return sorted(path for path in files.rglob(f"*.{kind}") if 0 < path.stat().st_size <= _MOST_SOURCE_BYTES)


def mutation_runs(count: int, seed: int) -> Iterator[Run]:
    """Formats and kinds of damage in turn; every second source is a real document, if there are any."""
    real = {kind: _sources(kind) for kind in _FORMATS}
    words = "\n".join(f"Line {number} of a small valid document." for number in range(60))
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        form, damage = _FORMATS[number % len(_FORMATS)], list(KINDS)[number // len(_FORMATS) % len(KINDS)]
        made = MAKERS[form](words)
        data, other = made, MAKERS[chance.choice(_FORMATS)](words)
        if real[form] and chance.random() < 0.75:
            data, other = chance.choice(real[form]).read_bytes(), chance.choice(real[form]).read_bytes()
        yield Run(
            f"mutation: {form} {damage}", seed * 1_000_000 + number, f"a.{form}", mutate(data, damage, other, chance)
        )


def bomb_runs(names: Iterable[str], seed: int) -> Iterator[Run]:
    for name in names:
        file_name, make = BOMBS[name]
        yield Run(f"bomb: {name}", seed, file_name, make())


def entity_runs(names: Iterable[str], urls: Sequence[str], seed: int) -> Iterator[Run]:
    for name in names:
        file_name, make = ENTITIES[name]
        for url in urls:
            yield Run(f"entity: {name} {url.partition(':')[0]}", seed, file_name, make(url))


# -- where they run -----------------------------------------------------------------------------------------------


class Listener:
    """A real server on loopback that no child may ever reach. It would answer with the secret."""

    def __init__(self, secret: str) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._answer = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{secret}".encode()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                with client, contextlib.suppress(OSError):
                    client.sendall(self._answer)

    def close(self) -> None:
        self._socket.close()


class Laboratory:
    """A pool as a worker has it, one for documents that only wait for the time-out, and what none may reach."""

    def __init__(self, directory: Path, tokenizer_json: str) -> None:
        self.directory = directory
        self.secret = f"secret{random.SystemRandom().getrandbits(64):x}"
        (directory / "secret.txt").write_text(self.secret)
        self.listener = Listener(self.secret)
        self._settings = Settings.load(folder=directory)
        self._tokenizer_json = tokenizer_json
        self._pools: dict[float, SandboxPool] = {}
        self._goods = 0

    @property
    def urls(self) -> tuple[str, ...]:
        return f"file://{self.directory}/secret.txt", f"http://127.0.0.1:{self.listener.port}/x"

    def pool(self, timeout_s: float) -> SandboxPool:
        timeout_s = timeout_s or self._settings.extract_timeout_s
        if timeout_s not in self._pools:
            self._pools[timeout_s] = SandboxPool(
                self._tokenizer_json,
                homes=self.directory / f"homes-{timeout_s:.0f}",
                max_tokens=self._settings.chunk_tokens,
                timeout_s=timeout_s,
                memory_bytes=self._settings.sandbox_memory_bytes,
                size=1,
            )
        return self._pools[timeout_s]

    def run(self, run: Run) -> Verdict:
        pool = self.pool(run.timeout_s)
        limit_s = (run.timeout_s or self._settings.extract_timeout_s) + _SLACK_S
        started = time.monotonic()
        outcome = self._outcome(pool, run)
        spent = time.monotonic() - started
        good = self._good(pool)
        verdict = Verdict("poison", run.fault, run.seed, 1, round(time.monotonic() - started, 3), outcome=outcome[:160])
        if spent > limit_s:
            verdict.blame(f"{spent:.1f} s, {limit_s:.0f} s at most")
        if not outcome.startswith(("chunks: ", "refused: ", "failed: ")) or not re.match(run.expect, outcome):
            verdict.blame(f"not an outcome that was expected: {outcome[:300]}")
        if self.secret in outcome or "root:x:0" in outcome:
            verdict.blame("what the document may not see is in its text")
        for violation in (good, *self._left_over()):
            if violation:
                verdict.blame(violation)
        return verdict

    def _outcome(self, pool: SandboxPool, run: Run) -> str:
        try:
            found = pool.extract(run.name, run.data)
        except ExtractionRefused as refusal:
            return f"refused: {refusal}"
        except ExtractionFailed as failure:
            return f"failed: {failure}"
        except Exception as error:
            return f"error: {error!r}"
        return "chunks: " + "\n".join(chunk.text for chunk in found.chunks)

    def _good(self, pool: SandboxPool) -> str:
        """A good document right afterwards; what is wrong with it."""
        self._goods += 1
        form = ("md", "pdf", "docx", "html")[self._goods % 4]
        words = f"Herons wait in shallow water {self._goods}."
        data = words.encode() if form == "md" else MAKERS[form](words)
        read = self._outcome(pool, Run("good", 0, f"good.{form}", data))
        return "" if read.strip() == f"chunks: {words}" else f"the good {form} next to it became {read[:200]!r}"

    def _left_over(self) -> list[str]:
        """Strays, files and connections that a document left."""
        left = []
        for pid, command in pids_with(str(self.directory / "homes-")).items():
            if _parent(pid) not in (os.getpid(), None):
                left.append(f"a stray process: {pid} {command[:80]}")
        files = [path for home in self.directory.glob("homes-*/*") for path in home.iterdir()]
        left += [f"{len(files)} files left in a home, such as {files[0].name}"] if files else []
        left += [f"{self.listener.connections} connections to the listener"] if self.listener.connections else []
        return left

    def traced(self, runs: Iterable[Run], seed: int) -> Verdict:
        """The same documents with strace at the child: no foreign file is opened, nothing is connected to."""
        pool = self.pool(0.0)
        started = time.monotonic()
        for form, maker in MAKERS.items():  # libraries are loaded at their first use
            pool.extract(f"a.{form}", maker("words"))
        pids = [pid for pid in pids_with(str(self.directory / "homes-60")) if _parent(pid) == os.getpid()]
        verdict = Verdict("poison", "entities under strace", seed, 0, 0.0)
        with _strace(pids, self.directory / "trace") as trace:
            for run in runs:
                outcome = self._outcome(pool, run)
                verdict.runs += 1
                if self.secret in outcome or "root:x:0" in outcome:
                    verdict.blame(f"{run.fault}: what the document may not see is in its text")
        for line in _foreign(trace(), self.directory):
            verdict.blame(line)
        verdict.converge_s = round(time.monotonic() - started, 3)
        return verdict

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self.listener.close()


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


@contextlib.contextmanager
def _strace(pids: Sequence[int], out: Path) -> Iterator[Callable[[], list[str]]]:
    """Attach to processes; gives a function that returns the lines once detached."""
    assert pids, "there is a child to trace"
    calls = "open,openat,openat2,connect,sendto,sendmsg,bind,execve,execveat,fork,vfork,clone,clone3"
    attach = [part for pid in pids for part in ("-p", str(pid))]
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", str(out), "-e", f"trace={calls}", *attach], stderr=subprocess.PIPE, text=True
    )
    try:
        assert tracer.stderr is not None
        for line in tracer.stderr:
            if "attached" in line:
                break
        yield lambda: out.read_text().splitlines()
    finally:
        tracer.terminate()
        tracer.wait(10)
        assert tracer.stderr is not None
        tracer.stderr.close()


def _foreign(lines: Sequence[str], directory: Path) -> list[str]:
    """The calls that a document has no business with: opened outside of libraries and home, or any to the network."""
    allowed = ["/usr", "/lib", "/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom"]
    allowed += ["/etc/ld.so.cache", "/etc/localtime", sys.prefix, sys.base_prefix, str(directory / "homes-")]
    allowed += [str(_ROOT), *filter(None, sys.path)]
    found = []
    for line in lines:
        opened = re.search(r"\bopen(?:at2?)?\((?:AT_FDCWD, )?\"([^\"]*)\"", line)
        if opened and not opened[1].startswith(tuple(allowed)) and ("secret" in line or "= -1" not in line):
            found.append(f"opened: {line}")
        elif re.search(r"\b(connect|sendto|sendmsg|bind|execve|execveat|v?fork)\(", line):
            found.append(f"called: {line}")
        elif re.search(r"\bclone3?\(", line) and "CLONE_THREAD" not in line and "ENOSYS" not in line:
            found.append(f"started a process: {line}")
    return found


# -- whole pipelines ----------------------------------------------------------------------------------------------

_BESIDE = ("segfault", "abort", "exit", "not_json", "huge_claim", "closes", "fork", "outside", "many_files", "bug")


def pipeline_run(directory: Path, model: Path, seed: int, harms: Sequence[str] = _BESIDE) -> Verdict:
    """``headwater up --once`` on a folder where good documents lie beside bad ones."""
    chance = random.Random(f"pipeline/{seed}")
    folder = directory / f"folder-{seed}"
    folder.mkdir()
    good = {f"good-{n}.md": f"nonce{chance.getrandbits(64):x} stands in a good document." for n in range(12)}
    for name, words in good.items():
        (folder / name).write_text(words)
    for number, run in enumerate(harm_runs(harms, seed, 1)):
        (folder / f"bad-{number}.md").write_bytes(run.data)
    for number, run in enumerate(mutation_runs(5, seed)):
        (folder / f"mutated-{number}-{run.name}").write_bytes(run.data)
    service = Headwater(folder, directory / f"state-{seed}")
    service.environment = {
        "PYTHONPATH": os.pathsep.join([str(HOSTILE), str(_ROOT)]),
        "HEADWATER_MODEL": str(model),
        "HEADWATER_EXTRACT_TIMEOUT_S": "3",
    }
    started = time.monotonic()
    try:
        service.once()
        verdict = Verdict("poison", "pipeline", seed, 1, round(time.monotonic() - started, 3))
        _check_pipeline(service, good, harms, verdict)
    finally:
        service.kill()
    shutil.rmtree(folder)
    return verdict


def _check_pipeline(service: Headwater, good: dict[str, str], harms: Sequence[str], verdict: Verdict) -> None:
    texts: dict[str, list[str]] = {}
    for point in service.points():
        if "text" in point["payload"]:
            texts.setdefault(point["payload"]["path"], []).append(point["payload"]["text"])
    for name, words in good.items():
        if texts.get(name) != [words]:
            verdict.blame(f"{name} is in the index as {texts.get(name)}")
    ends = [verb for verb in harms if HARMS[verb].startswith(r"failed")]
    failed = _failed(service)
    for number, verb in enumerate(harms):
        path = f"bad-{number}.md"
        if verb in ends and (path in texts or not failed.get(path)):
            verdict.blame(f"{path} ({verb}) did not end as failed: {texts.get(path)}, {failed.get(path)}")


def _failed(service: Headwater) -> dict[str, str]:
    """Path and reason of each document that the ledger holds as failed."""
    with contextlib.closing(sqlite3.connect(service.state / "ledger.sqlite3")) as ledger:
        rows = ledger.execute("SELECT path, reason FROM documents WHERE state = 'failed'").fetchall()
    return {os.fsdecode(path): reason for path, reason in rows}


# -- all of it ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def laboratory(tokenizer_json: str) -> Iterator[Laboratory]:
    """Children started within do harm for documents that are marked."""
    directory = Path(tempfile.mkdtemp(prefix="hw-poison-"))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HOSTILE), str(_ROOT)])
    made = Laboratory(directory, tokenizer_json)
    try:
        yield made
    finally:
        made.close()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        shutil.rmtree(directory)


def all_runs(count: int, seed: int, made: Laboratory) -> Iterator[Callable[[], Verdict]]:
    """Every run of the full form, in order."""
    verbs = list(HARMS)
    cycled = [verbs[number % len(verbs)] for number in range(max(len(verbs), count // 10))]
    urls = (*made.urls, "file:///etc/passwd")
    for run in harm_runs(cycled, seed, made.listener.port):
        yield lambda run=run: made.run(run)  # type: ignore[misc]  # bound now
    for run in bomb_runs(BOMBS, seed):
        yield lambda run=run: made.run(run)  # type: ignore[misc]
    for run in entity_runs(ENTITIES, urls, seed):
        yield lambda run=run: made.run(run)  # type: ignore[misc]
    if shutil.which("strace"):
        yield lambda: made.traced(entity_runs(ENTITIES, urls, seed), seed)
    for run in mutation_runs(count, seed):
        yield lambda run=run: made.run(run)  # type: ignore[misc]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="mutations; the rest follows from it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the lines to this file")
    parser.add_argument("--pipelines", type=int, default=3, help="runs of the whole pipeline")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="hw-poison-model-") as scratch, contextlib.ExitStack() as stack:
        from tiny_model import make_tiny_model

        model = make_tiny_model(Path(scratch))
        out = stack.enter_context(open(options.out, "w")) if options.out else None
        verdicts: list[Verdict] = []

        def note(verdict: Verdict) -> None:
            verdicts.append(verdict)
            line = json.dumps(asdict(verdict))
            print(line, flush=True)
            if out is not None:
                print(line, file=out, flush=True)

        with laboratory(json.dumps(_plain(model / "tokenizer.json"))) as made:
            for run in all_runs(options.runs, options.seed, made):
                note(run())
        for number in range(options.pipelines):
            note(pipeline_run(Path(scratch), model, options.seed + number))
    return _summary(verdicts)


def _plain(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(path.read_text("utf-8"))
    return {**document, "truncation": None, "padding": None}


def _summary(verdicts: Sequence[Verdict]) -> int:
    times = [verdict.converge_s for verdict in verdicts]
    bad = [verdict for verdict in verdicts if verdict.violations]
    summary = {
        "group": "poison",
        "runs": len(verdicts),
        "violations": len(bad),
        "median_s": round(statistics.median(times), 3),
        "worst_s": max(times),
    }
    print(json.dumps(summary), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
