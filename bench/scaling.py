"""Throughput of 1, 2 and 4 worker processes on servers, and what each part costs: real processes, a model of no cost.

Rows: the tests' Qdrant server, which is one Python process; a stand-in that only counts, so that the index is out of
the way; the stand-in with workers that get a share of a core each, as on hosts of their own; and the stand-in with a
model that takes time and no processor, as one on a GPU of its own does.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from driver import wait_until  # the path is set above
from servers import QdrantServer, RedisServer

from bench.shares import possible, share_of_cores
from bench.simulation import Parameters, simulate
from bench.timed_embedder import BATCH, MODEL
from headwater.broker import embedded_binary
from headwater.errors import HeadwaterError
from headwater.messages import workers_key
from headwater.state import Layout
from producer.status import read_status

_ROOT = Path(__file__).resolve().parents[1]
_COLLECTION = "scaling"
_DEADLINE_S = 900.0
_TICK = os.sysconf("SC_CLK_TCK")
#: numbers of workers, one after the other; the first comes again last, to show how much the machine drifts
_FLEETS = (1, 2, 4, 1)
#: most bytes of documents in a hint (producer/publisher.py)
_HINT_BYTES = 32 * 1024
#: seconds that a batch of 64 texts takes in the third row: with four such models the cores are not busy yet
_BATCH_S = 1.0
_WORDS = ("river", "spring", "stone", "valley", "meadow", "harbour", "lantern", "copper", "violet", "thunder", "gravel")


@dataclass
class CountingServer(QdrantServer):
    """``bench.counting_index``."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.counting_index", "--port", str(self.port), "--path", str(self.directory)]


@dataclass(frozen=True)
class Row:
    """``share``: of a core, for each worker with its extraction child; None: no limit."""

    server: type[QdrantServer]
    batch_s: float = 0.0
    share: float | None = None


_ROWS = {
    "test server": Row(QdrantServer),
    "counting stand-in": Row(CountingServer),
    "stand-in, a quarter of a core a worker": Row(CountingServer, share=0.25),
    "stand-in, timed model": Row(CountingServer, batch_s=_BATCH_S),
}


def run(work: Path, documents: int) -> dict[str, Any]:
    """Each row with each number of workers, on a folder of Markdown files of about 3 kB."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), str(_ROOT / "tests" / "support")])
    folder = work / "folder"
    write_notes(folder, documents)
    rows = {
        name: [_measure(work / f"{at}-{turn}", folder, documents, workers, row) for turn, workers in enumerate(_FLEETS)]
        for at, (name, row) in enumerate(_ROWS.items())
        if row.share is None or possible()
    }
    for name, runs in rows.items():
        for one in runs:
            one["simulated_chunks_per_s"] = _simulated(runs[0], one, documents, _ROWS[name])
    results = {"documents": documents, "cores": os.cpu_count(), "batch_s": _BATCH_S, "batch": BATCH, "rows": rows}
    _show(results)
    return results


def write_notes(folder: Path, documents: int) -> None:
    """Sections of two to six, each a heading and a paragraph of 60 to 120 words that no other file has."""
    chance = random.Random(7)
    for number in range(documents):
        path = folder / f"d{number // 100:03}" / f"n{number:05}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        sections = [
            f"## Part {part} of {number}\n\n" + " ".join(chance.choices(_WORDS, k=chance.randint(60, 120))) + ".\n"
            for part in range(chance.randint(2, 6))
        ]
        path.write_text(f"# Note {number}\n\n" + "\n".join(sections))


def _measure(work: Path, folder: Path, documents: int, workers: int, row: Row) -> dict[str, Any]:
    """From the first hint to "in step"; the fleet is ready before the producer starts."""
    broker, qdrant = RedisServer(work / "broker", binary=embedded_binary()), row.server(work / "qdrant")
    with ExitStack() as stack:
        for part in (broker, qdrant):
            stack.callback(part.stop)
            part.start()
        environment = _environment(folder, broker.url, qdrant.url, row.batch_s)
        shares = [
            None if row.share is None else stack.enter_context(share_of_cores(row.share, str(at)))
            for at in range(workers)
        ]
        fleet = [stack.enter_context(_part(work, environment, "work", at, group)) for at, group in enumerate(shares)]
        client = stack.enter_context(broker.client())
        wait_until(lambda: client.zcard(workers_key(_COLLECTION)) == workers, "all workers are there", _DEADLINE_S)
        producer = stack.enter_context(_part(work, environment, "watch", 0))
        wait_until(lambda: _commands(client).get("lpush", 0) > 0, "the first hint is out", _DEADLINE_S)
        assert broker.process is not None
        assert qdrant.process is not None
        groups = {
            "producer": [producer.pid],
            "worker": [one.pid for one in fleet],
            "extraction": [pid for one in fleet for pid in _children(one.pid)],
            "broker": [broker.process.pid],
            "index": [qdrant.process.pid],
        }
        began, before, commands = time.perf_counter(), _cpu(groups), sum(_commands(client).values())
        machine = _machine_busy_s()
        layout = Layout(work / "producer-0")
        wait_until(lambda: _in_step(layout, documents), "in step", _DEADLINE_S)
        seconds, after, machine = time.perf_counter() - began, _cpu(groups), _machine_busy_s() - machine
        chunks = read_status(layout, running=True)["chunks"]
        return {
            "workers": workers,
            "seconds": seconds,
            "documents_per_s": documents / seconds,
            "chunks_per_s": chunks / seconds,
            "chunks": chunks,
            "cpu_s_per_1000": {name: (after[name] - before[name]) * 1000 / documents for name in groups},
            "cores_busy": {name: (after[name] - before[name]) / seconds for name in groups},
            "others_busy": (machine - sum(after.values()) + sum(before.values())) / seconds,
            "hints": _commands(client)["lpush"],
            "broker_commands_per_document": (sum(_commands(client).values()) - commands) / documents,
            "broker_peak_mb": client.info("memory")["used_memory_peak"] / 1e6,
            "ledger_bytes_per_document": layout.ledger.stat().st_size / documents,
        }


def _simulated(first: Mapping[str, Any], one: Mapping[str, Any], documents: int, row: Row) -> float:
    """Chunks a second that the simulation expects of a run: with what a document cost in the first run of its row, on
    one processor as fast as what others left of the machine, or on one for each worker as fast as its share."""
    spare = max(0.1, (os.cpu_count() or 1) - one["others_busy"])
    cost = {name: ms / 1000 / spare for name, ms in first["cpu_s_per_1000"].items()}
    if row.share is not None:  # a worker and its child take turns on their share: as if one did the work of both
        both = first["cpu_s_per_1000"]["worker"] + first["cpu_s_per_1000"]["extraction"]
        cost |= {"worker": both / 1000 / row.share, "extraction": 0.0}
    chunks = one["chunks"] / documents
    given = Parameters(
        chunks=one["chunks"],
        chunks_per_document=chunks,
        document_bytes=_HINT_BYTES * first["hints"] / documents,
        workers=one["workers"],
        children=1,
        gpus=one["workers"] if row.batch_s else 0,
        pass_s=row.batch_s,
        tokens_per_s=math.inf,
        shards=1,
        edits_per_s=0.0,
        transaction_s=0.0,
        outcome_s=cost["producer"],
        publish_s=0.0,
        due_row_s=0.0,
        document_commands=1.0,
        hint_commands=0.0,
        command_s=cost["broker"],
        worker_document_s=cost["worker"],
        worker_chunk_s=0.0,
        extract_document_s=cost["extraction"],
        question_s=0.0,
        point_s=cost["index"] / (chunks + 1),
        cores=1 if row.share is None else 0,
    )
    return simulate(given).chunks_per_s


def _environment(folder: Path, broker: str, qdrant: str, batch_s: float) -> dict[str, str]:
    return {
        **os.environ,
        "CELERY_BROKER_URL": broker,
        "QDRANT_URL": qdrant,
        "HEADWATER_COLLECTION": _COLLECTION,
        "HEADWATER_FOLDER": str(folder),
        "HEADWATER_MODEL": MODEL,
        "HEADWATER_SANDBOXES": "1",
        "HWBENCH_BATCH_S": str(batch_s),
    }


@contextmanager
def _part(
    work: Path, environment: Mapping[str, str], verb: str, number: int, group: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``headwater watch`` or ``headwater work`` with a state directory of its own, as on a host of its own. ``group``
    takes its pid before it has descendants."""
    name = f"{'producer' if verb == 'watch' else 'worker'}-{number}"
    own = {**environment, "HEADWATER_STATE_DIR": str(work / name)}
    with open(work / f"{name}.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-P", "-m", "headwater", verb], env=own, stdout=log, stderr=log)
    if group is not None:
        group.write_text(str(process.pid))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _in_step(layout: Layout, documents: int) -> bool:
    time.sleep(0.1)  # a look reads the ledger, and must not take a core of those that are measured
    try:
        found = read_status(layout, running=True)
    except HeadwaterError:  # the ledger is just being made
        return False
    return bool(found["in_step"] and found["checked"] and found["documents"]["indexed"] >= documents)


def _commands(client: redis.Redis) -> dict[str, int]:
    """How often each command was called, those of scripts included, and without what this bench asks."""
    found = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in client.info("commandstats").items()}
    return {name: calls for name, calls in found.items() if name not in ("info", "zcard", "client|setinfo")}


def _children(pid: int) -> list[int]:
    """All descendants, from /proc."""
    own = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return own + [below for child in own for below in _children(child)]


def _cpu(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Processor seconds of each group, user and system (proc(5))."""
    return {name: sum(map(_cpu_of, pids)) for name, pids in groups.items()}


def _cpu_of(pid: int) -> float:
    numbers = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(numbers[11]) + int(numbers[12])) / _TICK


def _machine_busy_s() -> float:
    """Processor seconds that all processes of the machine have used, with the system's (proc(5))."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / _TICK


def _show(results: Mapping[str, Any]) -> None:
    for name, runs in results["rows"].items():
        table = Table(title=f"{name}: {results['documents']} documents, {results['cores']} cores")
        busy_parts = "cores busy: producer / worker / extraction / broker / index"
        columns = (
            "workers",
            "documents/s",
            "chunks/s",
            "simulated",
            "ratio",
            busy_parts,
            "CPU ms a document, same order",
            "others",
        )
        for column in columns:
            table.add_column(column, justify="right")
        for one in runs:
            ratio = one["documents_per_s"] / runs[0]["documents_per_s"]
            busy = " / ".join(f"{share:.2f}" for share in one["cores_busy"].values())
            cost = " / ".join(f"{ms:.2f}" for ms in one["cpu_s_per_1000"].values())
            rates = (
                f"{one['documents_per_s']:.0f}",
                f"{one['chunks_per_s']:.0f}",
                f"{one['simulated_chunks_per_s']:.0f}",
            )
            table.add_row(str(one["workers"]), *rates, f"{ratio:.2f}", busy, cost, f"{one['others_busy']:.2f}")
        Console().print(table)
