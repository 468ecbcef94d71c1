"""Storms, lost events, names that turn round, times that lie, folders that go, and clocks that jump."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mounts import bind, unmount, unmount_below
from registry import Run, fault
from session import ROOT, Profile, Session

_OVERFLOW = "the kernel's event queue overflowed"
#: more than the kernel keeps by default for one watcher (fs.inotify.max_queued_events, 16384)
_EVENTS = 20_000
_DAY_S = 86_400
_SENTINEL = re.compile(r"([0-9a-f]{12}-v\d+)-L\d+")


def _text(run: Run, sections: int = 1) -> bytes:
    generator = run.session.generator
    return generator._text(generator._new_nonce(), sections)


def _some_files(run: Run, directory: str, count: int) -> list[Path]:
    """New documents in a directory of their own, which the generator leaves alone."""
    where = run.session.folder / directory
    where.mkdir(exist_ok=True)
    files = [where / f"own{number}.md" for number in range(count)]
    for path in files:
        path.write_bytes(_text(run))
    return files


# -- many, and lost ----------------------------------------------------------------------------------------------


@fault("files", "storm of new files", runs=2, bound_s=1800.0)
def _storm(run: Run) -> None:
    """50,000 files in 100 directories; 400 in 20 in the short form."""
    directories, each = (100, 500) if run.full else (20, 20)
    for number in range(directories):
        _some_files(run, f"storm{number}", each)
    run.notes["files"] = directories * each


@fault("files", "lost events", runs=8, bound_s=300.0)
def _overflow(run: Run) -> None:
    """The producer is held still for more changes than the kernel keeps events: the overflow must bring the scan."""
    session = run.session
    files = _some_files(run, "flood", 200)
    [producer] = session.pids("headwater watch")
    log = session.state / "logs" / "producer.log"
    said_before = log.read_text().count(_OVERFLOW)
    os.kill(producer, signal.SIGSTOP)
    try:
        _flood(run, files)
    finally:
        os.kill(producer, signal.SIGCONT)
    deadline = time.monotonic() + 60.0
    while log.read_text().count(_OVERFLOW) == said_before:
        if time.monotonic() > deadline:
            run.violations.append("no scan came of the overflow within 60 s")
            return
        time.sleep(0.1)


def _flood(run: Run, files: list[Path]) -> None:
    """Neighbouring events of one file are merged by the kernel, so the files take turns."""
    for number in range(_EVENTS):
        path = files[number % len(files)]
        path.write_bytes(_text(run)) if run.full else os.utime(path)
    for path in files[::3]:
        path.write_bytes(_text(run))
    for path in files[1::3]:
        path.unlink()


@fault("files", "too few watches", runs=5, alone=True)
def _watch_limit(run: Run) -> None:
    """In a user namespace that allows 5 watches: said in status, and scanned every few seconds instead."""
    session = run.session
    session.headwater.environment = session._environment()
    session.generator.steps(60)
    for number in range(12):
        _some_files(run, f"deep{number}", 2)
    limited = 'echo 5 > /proc/sys/user/max_inotify_watches && exec "$@"'
    session.up("unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh")
    if isinstance(started := session.converge(90.0), str):
        run.violations.append(started)
        return
    if not any("watch" in reason for reason in session.status()["reasons"]):
        run.violations.append(f"status tells of no missing watches: {session.status()['reasons']}")
    session.generator.start()
    time.sleep(3.0)
    session.generator.stop()
    changed = time.monotonic()
    while (found := session.check()) and time.monotonic() - changed < 40.0:
        time.sleep(1.0)
    run.violations += found
    run.notes["converge_s"] = round(time.monotonic() - changed, 2)


# -- written while read ----------------------------------------------------------------------------------------------


@fault("files", "changed 1,000 times a second while read", runs=10)
def _restless(run: Run) -> None:
    """Whatever can be found of it meanwhile is of one version."""
    path = run.session.folder / "restless.md"
    ending = threading.Event()
    writes = 0

    def write() -> None:
        nonlocal writes
        texts = [_text(run, 20) for _ in range(50)]
        while not ending.is_set():
            path.write_bytes(texts[writes % 50])
            writes += 1
            time.sleep(0.0005)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    started = time.monotonic()
    while time.monotonic() - started < (5.0 if run.full else 3.0):
        run.violations += _mixes(run.session)
        time.sleep(0.1)
    ending.set()
    writer.join()
    run.notes["writes_per_s"] = round(writes / (time.monotonic() - started))
    path.write_bytes(_text(run, 20))


def _mixes(session: Session) -> list[str]:
    """Chunks of one seq that are not all of one version."""
    body = {"text": "river", "limit": 200, "mode": "dense", "filters": {"path": "restless.md"}}
    with contextlib.suppress(OSError, ValueError):
        status, answer = session.request("/v1/search", body, 5.0)
        if status == 200:
            return _mixed(answer["hits"])
    return []


def _mixed(hits: list[dict[str, Any]]) -> list[str]:
    versions: dict[int, set[str]] = {}
    for hit in hits:
        versions.setdefault(hit["seq"], set()).update(_SENTINEL.findall(hit["text"]))
    return [f"seq {seq} mixes {sorted(found)[:3]}" for seq, found in versions.items() if len(found) > 1]


# -- names ----------------------------------------------------------------------------------------------


@fault("files", "rename cycles and swaps", runs=12)
def _cycles(run: Run) -> None:
    """a -> b -> c -> a, again and again, and pairs that change places."""
    files = _some_files(run, "cycle", 3)
    aside = files[0].with_name("aside.md")
    for _ in range(run.random.randint(5, 60)):
        turned = run.random.sample(files, run.random.choice((2, 3)))
        os.replace(turned[0], aside)
        for source, target in zip(turned[1:], turned[:-1], strict=True):
            os.replace(source, target)
        os.replace(aside, turned[-1])
        time.sleep(run.random.choice((0, 0, 0.01, 0.2)))


@fault("files", "case-only rename", runs=8)
def _case(run: Run) -> None:
    for path in _some_files(run, "case", 6):
        time.sleep(run.random.uniform(0, 0.3))
        os.rename(path, path.with_name(path.name.upper()))
        if run.random.random() < 0.5:
            os.rename(path.with_name(path.name.upper()), path)


@fault("files", "1,000 renames of directories", runs=8)
def _directories(run: Run) -> None:
    """100 in the short form. Files are edited in them on the way."""
    _some_files(run, "moving", 5)
    where = run.session.folder / "moving"
    for number in range(1000 if run.full else 100):
        target = where.with_name(f"moved{run.seed}-{number % 7}")
        os.rename(where, target)
        where = target
        if number % 10 == 0:
            (where / "own0.md").write_bytes(_text(run))
        time.sleep(run.random.choice((0, 0.002, 0.01)))


# -- times that lie ----------------------------------------------------------------------------------------------


@fault("files", "tar -x and cp -p with old times", runs=10)
def _old_times(run: Run) -> None:
    """Other contents come with modification times from long ago."""
    session = run.session
    files = _some_files(run, "times", 6)
    archive = session.work / "old.tar"
    for path in files:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with tarfile.open(archive, "w") as tar:
        tar.add(session.folder / "times", "times")
    for path in files:
        path.write_bytes(_text(run))
    time.sleep(run.random.uniform(0.1, 1.5))
    subprocess.run(["tar", "-x", "-f", str(archive), "-C", str(session.folder)], check=True)
    archive.unlink()
    subprocess.run(["cp", "-p", str(files[0]), str(files[1])], check=True)
    subprocess.run(["cp", "-p", str(files[2]), str(files[0].with_name("copy.md"))], check=True)


@fault("files", "same size and time restored", runs=10)
def _same_time(run: Run) -> None:
    """Other bytes, but the size and the modification time of before."""
    files = _some_files(run, "same", 6)
    time.sleep(run.random.uniform(0.1, 2.0))
    for path in files:
        status, data = path.stat(), path.read_bytes()
        nonce = data[2:14]
        path.write_bytes(data.replace(nonce, nonce[::-1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size


# -- the folder itself ----------------------------------------------------------------------------------------------


@contextmanager
def _nothing_lost(run: Run) -> Iterator[None]:
    """While the folder is away, nobody edits it, no document goes, and status says so."""
    session = run.session
    session.generator.stop()
    if isinstance(trouble := session.converge(60.0), str):
        run.violations.append(trouble)
    before = sum(session.status()["documents"].values())
    yield
    time.sleep(run.random.uniform(3.0, 6.0))
    status = session.status()
    if (left := sum(status["documents"].values())) < before:
        run.violations.append(f"of {before} documents {left} are left while the folder is away")
    if status["health"] == "ok":
        run.violations.append("the folder is away, and status says that all is well")


def _to_bind(session: Session) -> None:
    (session.work / "disk").mkdir()
    bind(session.work / "disk", session.folder)


_MOUNTED = Profile("a mounted folder", prepare=_to_bind, clean=lambda session: unmount_below(session.work))


@fault("files", "folder unmounted", runs=6, profile=_MOUNTED)
def _unmounted(run: Run) -> None:
    """An empty directory is left in its place, until it is mounted again."""
    session = run.session
    with _nothing_lost(run):
        unmount(session.folder)
    bind(session.work / "disk", session.folder)
    session.generator.start()


@fault("files", "folder swapped", runs=6)
def _swapped(run: Run) -> None:
    """Another folder with other documents stands in its place, until it comes back."""
    session = run.session
    aside, other = session.work / "aside", session.work / "other"
    with _nothing_lost(run):
        other.mkdir()
        (other / "foreign.md").write_bytes(_text(run))
        os.rename(session.folder, aside)
        os.rename(other, session.folder)
    shutil.rmtree(session.folder)
    os.rename(aside, session.folder)
    session.generator.start()


@fault("files", "folder recreated empty", runs=6)
def _recreated(run: Run) -> None:
    session = run.session
    aside = session.work / "aside"
    with _nothing_lost(run):
        os.rename(session.folder, aside)
        session.folder.mkdir()
    session.folder.rmdir()
    os.rename(aside, session.folder)
    session.generator.start()


# -- clocks ----------------------------------------------------------------------------------------------


def _faked(session: Session) -> dict[str, str]:
    """Every Python process of the service reads the wall clock through clock/sitecustomize.py, from a file."""
    clock = session.work / "clock"
    clock.write_text("0")
    path = os.pathsep.join((str(Path(__file__).with_name("clock")), str(ROOT)))
    return {"PYTHONPATH": path, "HEADWATER_TEST_CLOCK": str(clock)}


_CLOCK = Profile("a clock of its own", environment=_faked)


def _jump(run: Run, seconds: int) -> None:
    """There, some edits, and back."""
    clock = run.session.work / "clock"
    clock.write_text(str(seconds))
    time.sleep(run.random.uniform(2.5, 4.0))
    clock.write_text("0")
    time.sleep(1.5)


@fault("files", "clock forward by a day and back", runs=5, profile=_CLOCK)
def _forward(run: Run) -> None:
    _jump(run, _DAY_S)


@fault("files", "clock back by a day and forward", runs=4, profile=_CLOCK)
def _backward(run: Run) -> None:
    _jump(run, -_DAY_S)
