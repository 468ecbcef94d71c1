"""Processes are killed, stopped and ended: at random moments, and at each named step of the pipeline."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from registry import Run, fault
from session import COMPACTING, LEASE_S, PLAIN, Session

from headwater.failpoints import NAMES

_PARTS = {"worker": "headwater work", "producer": "headwater watch", "broker": "valkey-server"}
_ENGINE = "headwater.engine"
#: a failpoint that edits do not reach in this time is a fault of the harness
_REACH_S = 40.0
#: a compaction that must first become worth it
_REACH_COMPACTION_S = 120.0
_REST_EVERY_S, _REST_S = 10.0, 3.0


def _signal(pids: list[int], number: int) -> int:
    """How many of them it reached."""
    reached = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached += 1
    return reached


def _kill_part(part: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        assert _signal(run.session.pids(_PARTS[part]), signal.SIGKILL), f"no {part} to kill"

    return inject


for _part in _PARTS:
    fault("processes", f"kill -9 {_part}", runs=14)(_kill_part(_part))


@fault("processes", "kill -9 sandbox child", runs=14)
def _kill_child(run: Run) -> None:
    """Three times, since a child that is idle costs nothing."""
    for _ in range(3):
        _signal(run.session.pids("worker.sandbox")[:1], signal.SIGKILL)
        time.sleep(run.random.uniform(0.1, 0.8))


@fault("processes", "kill -9 up", runs=14)
def _kill_up(run: Run) -> None:
    session = run.session
    session.headwater.process.kill()
    session.headwater.process.wait()
    run.violations += session.strays(10.0)
    session.up()


@fault("processes", "kill -9 all at once", runs=14)
def _kill_all(run: Run) -> None:
    session = run.session
    pids = [pid for part in ("headwater", "valkey-server", "worker.sandbox") for pid in session.pids(part)]
    _signal([session.headwater.process.pid, *pids], signal.SIGKILL)
    session.headwater.process.wait()
    run.violations += session.strays(10.0)
    session.up()


# -- at each step ------------------------------------------------------------------------------------------------


def _is_compaction(name: str) -> bool:
    return name.startswith("index:")


def reach(run: Run, name: str, action: str, nth: int = 1) -> None:
    """Arm a failpoint and edit until it fires. A step that only long documents take gets one every second, and a
    compaction, which waits while much is written, a rest from edits."""
    session = run.session
    token = session.arm(name, action, nth)
    deadline = time.monotonic() + (_REACH_COMPACTION_S if _is_compaction(name) else _REACH_S)
    long_at = time.monotonic()
    rest_at = long_at + _REST_EVERY_S
    while token.exists():
        if _is_compaction(name) and time.monotonic() >= rest_at:
            session.generator.stop()
            time.sleep(_REST_S)
            session.generator.start()
            rest_at = time.monotonic() + _REST_EVERY_S
        if name == "worker:staged" and time.monotonic() >= long_at:
            session.generator.long_document()
            long_at = time.monotonic() + 2.0
        if time.monotonic() > deadline:
            token.unlink(missing_ok=True)
            raise AssertionError(f"{name} was not reached")
        time.sleep(0.02)


def _kill_at(name: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        rare = name == "worker:staged" or _is_compaction(name)
        reach(run, name, "kill", nth=1 if rare else run.random.choice((1, 1, 2, 5)))

    return inject


for _name in NAMES:
    _profile = COMPACTING if _is_compaction(_name) else PLAIN
    fault("processes", f"kill -9 at {_name}", runs=5, profile=_profile)(_kill_at(_name))


@fault("processes", "kill -9 engine", runs=7, profile=COMPACTING)
def _kill_engine(run: Run) -> None:
    """Any of them: that which serves, that which compacts, or that which is to take over."""
    time.sleep(run.random.uniform(0.0, 3.0))
    pids = run.session.pids(_ENGINE)
    assert _signal([run.random.choice(pids)], signal.SIGKILL), "no engine to kill"


# -- held still ---------------------------------------------------------------------------------------------------


def _continue_all(session: Session) -> None:
    for pid in session.pids(""):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
                os.kill(pid, signal.SIGCONT)
    session.went_on_at = time.monotonic()


@fault("processes", "worker held past its lease", runs=9)
def _hold_worker(run: Run) -> None:
    """What it held is rung for again; when it goes on, what it writes late must not harm."""
    _signal(run.session.pids("headwater work"), signal.SIGSTOP)
    time.sleep(LEASE_S + run.random.uniform(1.0, 3.0))
    _continue_all(run.session)


@fault("processes", "all held still", runs=9)
def _hold_all(run: Run) -> None:
    """A machine that sleeps, or that stalls: every clock goes on, nobody runs, and edits go on meanwhile."""
    session = run.session
    pids = [session.headwater.process.pid, *session.pids("")]
    _signal(pids, signal.SIGSTOP)
    time.sleep(LEASE_S + run.random.uniform(0.0, 8.0))
    for pid in run.random.sample(pids, len(pids)):
        _signal([pid], signal.SIGCONT)
        time.sleep(run.random.choice((0.0, 0.0, 0.3)))
    _continue_all(session)


def _hold_at(name: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        reach(run, name, "stop")
        time.sleep(LEASE_S + run.random.uniform(1.0, 3.0))
        _continue_all(run.session)

    return inject


for _name in ("worker:embedded", "worker:upserted", "producer:published"):
    fault("processes", f"held past the lease at {_name}", runs=5)(_hold_at(_name))


@fault("processes", "an error at a step", runs=9)
def _error_at(run: Run) -> None:
    """An error that no step foresees: the process may end by it, and the index is right all the same."""
    reach(
        run,
        run.random.choice([name for name in NAMES if name != "worker:staged" and not _is_compaction(name)]),
        "error",
    )


# -- ended in order -----------------------------------------------------------------------------------------------


@fault("processes", "SIGTERM during work", runs=9)
def _terminate(run: Run) -> None:
    run.violations += run.session.stop(signal.SIGTERM)
    run.session.up()


@fault("processes", "SIGTERM of the worker", runs=9)
def _terminate_worker(run: Run) -> None:
    assert _signal(run.session.pids("headwater work"), signal.SIGTERM), "no worker to end"
