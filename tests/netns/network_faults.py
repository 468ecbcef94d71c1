"""Hosts that are cut off the network and come back, and what else can only happen where there is one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

import redis
from network_session import WORKERS, NetworkSession
from process_faults import reach
from registry import Run, fault
from session import LEASE_S

__all__ = ["MEANINGLESS"]

#: faults of other groups that make no sense on many machines, with the reason
MEANINGLESS = {
    "kill -9 engine": "the engine is the server's",
    "absent at start, appearing later": "is about the waiting of 'up', which is not used here",
    "wrong password": "is about the end of 'up', which is not used here",
    "password set while running": "users of an access list have theirs: see 'password changed while running'",
    **{f"kill -9 at index:{step}": "only the embedded index is compacted by Headwater"
       for step in ("copied", "optimized", "caught-up", "swapping", "swapped")},
}  # fmt: skip
#: a query server answers so soon after its host is back
_ANSWERS_S = 30.0


def _session(run: Run) -> NetworkSession:
    assert isinstance(run.session, NetworkSession)
    return run.session


def _cut(*hosts: str, quiet: bool) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        with _session(run).without(*hosts, quiet=quiet):
            time.sleep(LEASE_S + run.random.uniform(1.0, 8.0))

    return inject


for _host, _which in (("worker2", "a worker"), ("producer", "the producer"), ("services", "broker and index")):
    fault("network", f"{_which} cut off without a word", runs=5)(_cut(_host, quiet=True))
    fault("network", f"{_which} cut off, calls fail at once", runs=3)(_cut(_host, quiet=False))
fault("network", "all workers cut off", runs=3)(_cut(*WORKERS, quiet=True))


@fault("network", "the query server cut off", runs=4)
def _cut_query(run: Run) -> None:
    """It answers again when it is back, with nothing started anew."""
    session = _session(run)
    before = session.pids("headwater serve")
    with session.without("query", quiet=True):
        time.sleep(run.random.uniform(3.0, 10.0))
    deadline = time.monotonic() + _ANSWERS_S
    while not _is_answered(session):
        if time.monotonic() > deadline:
            run.violations.append(f"the query server did not answer within {_ANSWERS_S:.0f} s of its return")
            return
        time.sleep(0.1)
    if session.pids("headwater serve") != before:
        run.violations.append("the query server was started anew, which its cut gives no reason for")


def _is_answered(session: NetworkSession) -> bool:
    with contextlib.suppress(OSError):
        return session.request("/v1/search", {"text": "river stone"}, timeout_s=5.0)[0] == 200
    return False


# -- zombies: a writer that was given up goes on -----------------------------------------------------------------


def _zombie(step: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        """Held still at a step and cut off, past its lease, while others do its work; then it goes on, first without
        and then with the network."""
        session = _session(run)
        reach(run, step, "stop", nth=run.random.choice((1, 1, 3)))
        host, pid = session.stopped_worker()
        with session.without(host, quiet=run.random.random() < 0.7):
            time.sleep(LEASE_S + run.random.uniform(1.0, 4.0))
            session.go_on(pid)
            time.sleep(run.random.uniform(0.0, 4.0))

    return inject


for _step, _runs in (
    ("worker:read", 3),
    ("worker:embedded", 6),
    ("worker:upserted", 6),
    ("worker:applied", 3),
    ("worker:flushed", 4),
    ("worker:reported", 3),
):
    fault("network", f"zombie at {_step}", runs=_runs, bound_s=120.0)(_zombie(_step))


# -- the servers --------------------------------------------------------------------------------------------------


@fault("network", "kill -9 qdrant", runs=5)
def _kill_qdrant(run: Run) -> None:
    """It comes back with all that it acknowledged."""
    for _ in range(2):
        _signal_all(_session(run).pids("qdrant_server.py"), signal.SIGKILL)
        time.sleep(run.random.uniform(1.0, 5.0))


@fault("network", "qdrant held still", runs=3, bound_s=120.0)
def _hold_qdrant(run: Run) -> None:
    pids = _session(run).pids("qdrant_server.py")
    with _session(run).unanswered():
        _signal_all(pids, signal.SIGSTOP)
        try:
            time.sleep(35.0 if run.full else 12.0)  # longer than the client's time-out of 30 s
        finally:
            _signal_all(pids, signal.SIGCONT)


@fault("network", "kill -9 broker and qdrant at once", runs=4)
def _kill_servers(run: Run) -> None:
    session = _session(run)
    for server in ("valkey-server", "qdrant_server.py"):
        _signal_all(session.pids(server), signal.SIGKILL)


def _signal_all(pids: list[int], number: int) -> None:
    assert pids, "there is no such process"
    for pid in pids:
        os.kill(pid, number)


@fault("network", "the broker's password changed while running", runs=3)
def _password(run: Run) -> None:
    session = _session(run)
    user, password = session.redis.user, session.redis.password
    with session.broker() as client:
        client.execute_command("ACL", "SETUSER", user, "resetpass", ">another")
        try:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(run.random.uniform(2.0, 5.0))
        finally:
            client.execute_command("ACL", "SETUSER", user, "resetpass", f">{password}")


@fault("network", "the broker away for a while", runs=3)
def _broker_away(run: Run) -> None:
    """It is ended again and again as soon as it is started."""
    deadline = time.monotonic() + run.random.uniform(5.0, 12.0)
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError), _session(run).broker() as client:
            client.execute_command("SHUTDOWN", "NOSAVE", "NOW")
        time.sleep(0.1)
