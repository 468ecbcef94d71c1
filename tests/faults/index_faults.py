"""What lies on the disk is cut off, full, refused, damaged or old."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

from checker import copy_sparsely
from mounts import copy_image, filled, make_image, mount_image, remount, tmpfs, unmount_below
from registry import Run, fault
from session import COMPACTING, Profile, Session

#: of the tmpfs that fill up: the shard's files, and the free space that is asked for before a write
_TMPFS_MB = 700
#: less than the free space that is asked for (HEADWATER_MIN_FREE_BYTES)
_LEFT_BYTES = 10 << 20


def _unmount(session: Session) -> None:
    unmount_below(session.work)


def _on_image(session: Session) -> None:
    make_image(session.work / "disk.img")
    mount_image(session.work / "disk.img", session.state)


def _on_tmpfs(session: Session) -> None:
    tmpfs(session.state, _TMPFS_MB)


_IMAGE = Profile("state on an image", prepare=_on_image, clean=_unmount, environment=COMPACTING.environment)
_FULL = Profile("state on a tmpfs", prepare=_on_tmpfs, clean=_unmount)
#: its parts are moved to file systems of their own by the fault
_PARTS = Profile("parts on a tmpfs", clean=_unmount)


# -- power ----------------------------------------------------------------------------------------------------------


@fault("index", "power cut", runs=10, profile=_IMAGE)
def _power_cut(run: Run) -> None:
    """The service goes on from a copy of the disk at a random moment; the folder keeps what came after it."""
    session = run.session
    pids = [session.headwater.process.pid, *session.pids("")]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    image, cut = session.work / "disk.img", session.work / "cut.img"
    copy_image(image, cut)
    session.kill()
    unmount_below(session.state)
    os.replace(cut, image)
    mount_image(image, session.state)
    session.up()


@fault("index", "read-only state", runs=4, profile=_IMAGE)
def _read_only(run: Run) -> None:
    """One sentence and an end; nothing is lost."""
    session = run.session
    run.violations += session.stop()
    remount(session.state, "ro")
    try:
        session.up()
        code = session.headwater.process.wait(timeout=60)
        said = session.state.with_suffix(".out").read_text()
    finally:
        remount(session.state, "rw")
    if code == 0 or "Traceback" in said or "headwater: " not in said:
        run.violations.append(f"a read-only state directory gave status {code} and said: {said[-300:]}")
    session.up()


# -- full ------------------------------------------------------------------------------------------------------------


def _fill(run: Run, directory: Path, left_bytes: int = _LEFT_BYTES) -> None:
    with filled(directory, left_bytes):
        time.sleep(run.random.uniform(3.0, 5.0))
    # a part that gave up may be waiting for its next start; `up` may have ended with a sentence
    time.sleep(1.0)
    if not run.session.alive():
        run.notes["ended"] = run.session.sentence()
        run.session.up()


@fault("index", "disk full under the state", runs=3, profile=_FULL)
def _state_full(run: Run) -> None:
    _fill(run, run.session.state)


@fault("index", "disk full under the index", runs=3, profile=_PARTS)
def _index_full(run: Run) -> None:
    session = run.session
    _move_to_tmpfs(run, session.state / "index")
    _fill(run, session.state / "index")


@fault("index", "disk full under the temporary files", runs=2, profile=_PARTS)
def _temporary_full(run: Run) -> None:
    session = run.session
    _move_to_tmpfs(run, session.state / "sandbox")
    _fill(run, session.state / "sandbox", 0)


@fault("index", "disk full under the ledger", runs=3, profile=_PARTS)
def _ledger_full(run: Run) -> None:
    """The ledger is one file, so a link puts it on a file system of its own."""
    session = run.session
    run.violations += session.stop()
    own, ledger = session.work / "ledger", session.state / "ledger.sqlite3"
    if not own.exists():
        tmpfs(own, 8)
        shutil.move(ledger, own / ledger.name)
        ledger.symlink_to(own / ledger.name)
    session.up()
    time.sleep(1.0)
    _fill(run, own, 0)


def _move_to_tmpfs(run: Run, directory: Path) -> None:
    """Put a directory of the state on a file system of its own, with what is in it."""
    session = run.session
    if os.path.ismount(directory):
        return
    run.violations += session.stop()
    aside = session.work / f"{directory.name}-aside"
    copy_sparsely(directory, aside) if directory.exists() else aside.mkdir()
    tmpfs(directory, _TMPFS_MB)
    subprocess.run(["cp", "-r", "--sparse=always", f"{aside}/.", str(directory)], check=True)
    shutil.rmtree(aside)
    session.up()
    with session.at_rest():
        pass


# -- refused ---------------------------------------------------------------------------------------------------------


def _input_output_errors(run: Run, part: str, calls: str) -> None:
    """Some of a process's writes and syncs fail for a while."""
    pid = run.session.pids(part)[0]
    inject = f"inject={calls}:error=EIO:when={run.random.randint(1, 3)}+{run.random.randint(1, 4)}"
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={calls}", "-e", inject]
    )
    try:
        time.sleep(run.random.uniform(2.0, 4.0))
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(timeout=20)
    if not run.session.alive():
        run.notes["ended"] = run.session.sentence()
        run.session.up()


@fault("index", "EIO in the worker", runs=4)
def _worker_errors(run: Run) -> None:
    _input_output_errors(run, "headwater work", "fsync,fdatasync,msync,pwrite64")


@fault("index", "EIO in the engine", runs=4)
def _engine_errors(run: Run) -> None:
    _input_output_errors(run, "headwater.engine", "fsync,fdatasync,msync,pwrite64")


@fault("index", "EIO in the producer", runs=4)
def _producer_errors(run: Run) -> None:
    _input_output_errors(run, "headwater watch", "fsync,fdatasync,pwrite64")


# -- damaged and old ----------------------------------------------------------------------------------------------


def _kinds(index: Path) -> list[list[Path]]:
    """The files of a shard, grouped by what they are: names without numbers and ids."""
    kinds: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(index.rglob("*")):
        if path.is_file() and path.stat().st_size:
            name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|\d+", "N", str(path.relative_to(index)))
            kinds[name].append(path)
    return [kinds[name] for name in sorted(kinds)]


def _data_end(path: Path) -> int:
    """Where the last data of a file ends: shards keep files that are mostly holes."""
    with open(path, "rb") as file:
        end, position = 1, 0
        with contextlib.suppress(OSError):  # no more data
            while True:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
                end = position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        return end


def _damage(run: Run, truncate: bool) -> None:
    """Each run takes another kind of file, by its seed."""
    session = run.session
    run.violations += session.stop()
    kinds = _kinds(session.state / "index")
    path = run.random.choice(kinds[run.seed % len(kinds)])
    end = _data_end(path)
    if truncate:
        os.truncate(path, run.random.randrange(end))
    else:
        data = bytearray(path.read_bytes())
        for _ in range(8):
            data[run.random.randrange(end)] ^= 1 << run.random.randrange(8)
        path.write_bytes(data)
    run.notes["damaged"] = str(path.relative_to(session.state))
    session.up()


@fault("index", "truncated shard file", runs=6, repair=True)
def _truncated(run: Run) -> None:
    _damage(run, truncate=True)


@fault("index", "flipped bits in a shard file", runs=6, repair=True)
def _flipped(run: Run) -> None:
    _damage(run, truncate=False)


def _restore_old(run: Run, pattern: str) -> None:
    """A part of the state is put back as it was some edits ago."""
    session = run.session
    old = session.work / "old"
    run.violations += session.stop()
    for path in session.state.glob(pattern):
        old.mkdir(exist_ok=True)
        copy_sparsely(path, old / path.name)
    session.up()
    with session.at_rest():
        run.violations += session.stop()
    for path in session.state.glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in old.iterdir():
        shutil.move(path, session.state / path.name)
    old.rmdir()
    session.up()


@fault("index", "index restored from an older copy", runs=4, repair=True)
def _old_index(run: Run) -> None:
    _restore_old(run, "index*")


@fault("index", "ledger restored from an older copy", runs=4)
def _old_ledger(run: Run) -> None:
    _restore_old(run, "ledger.sqlite3*")
