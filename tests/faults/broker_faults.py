"""The broker forgets, stalls, fills up, is not there, refuses; and its queues hold what nobody meant to send."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from registry import Run, fault
from session import Profile, Session

from headwater.broker import embedded_binary

_LANES = ("headwater.live", "headwater.bulk")
_STREAM = "headwater.events"
_HOUR_US = 3_600_000_000
#: messages that are sent again: each costs the worker a look at its document
_MOST_CAUGHT = 15


# -- the server itself --------------------------------------------------------------------------------------------


@fault("broker", "restarted empty", runs=4)
def _restart(run: Run) -> None:
    with run.session.broker() as client, contextlib.suppress(redis.RedisError):
        client.execute_command("SHUTDOWN", "NOSAVE", "NOW")


@fault("broker", "stalled 60 s", runs=4, bound_s=120.0)
def _stall(run: Run) -> None:
    """12 s in the short form: longer than the clients' time-out of 10 s."""
    [pid] = run.session.pids("valkey-server")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(60 if run.full else 12)
    finally:
        os.kill(pid, signal.SIGCONT)


@fault("broker", "memory full", runs=4)
def _memory_full(run: Run) -> None:
    with run.session.broker() as client:
        client.config_set("maxmemory", "1mb")
        try:
            time.sleep(run.random.uniform(2.0, 6.0))
        finally:
            client.config_set("maxmemory", "256mb")


@fault("broker", "FLUSHALL", runs=4)
def _flush_all(run: Run) -> None:
    with run.session.broker() as client:
        for _ in range(5):
            client.flushall()
            time.sleep(run.random.uniform(0.05, 0.6))


@fault("broker", "password set while running", runs=4)
def _password(run: Run) -> None:
    with run.session.broker() as client:
        client.config_set("requirepass", "secret")
        try:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(run.random.uniform(2.0, 5.0))
        finally:
            client.config_set("requirepass", "")


# -- a server of one's own ----------------------------------------------------------------------------------------


def _socket(session: Session) -> Path:
    return session.work / "own.sock"


def _own(session: Session) -> dict[str, str]:
    return {"CELERY_BROKER_URL": f"redis+socket://{_socket(session)}"}


_OWN = Profile("a broker of one's own", environment=_own)


@contextmanager
def _server(socket: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [embedded_binary(), "--port", "0", "--unixsocket", str(socket), "--save", "", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=socket.parent)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


@fault("broker", "absent at start, appearing later", runs=4, alone=True, profile=_OWN)
def _absent(run: Run) -> None:
    """``up`` waits for it for a while; the folder is edited all the time."""
    session = run.session
    session.headwater.environment = session._environment()
    session.generator.steps(40)
    session.up()
    session.generator.start()
    time.sleep(run.random.uniform(3.0, 9.0))
    with _server(_socket(session)):
        time.sleep(2.0)
        session.generator.stop()
        converged = session.converge(90.0)
        run.violations += [converged] if isinstance(converged, str) else session.check()
        run.notes["converge_s"] = None if isinstance(converged, str) else converged
        run.violations += session.stop()


@fault("broker", "wrong password", runs=4, alone=True, profile=_OWN)
def _wrong_password(run: Run) -> None:
    """One sentence and an exit status, soon; the password is not shown."""
    session = run.session
    wrong = {"CELERY_BROKER_URL": f"redis+socket://:hunter2@{_socket(session)}"}
    session.headwater.environment = {**session._environment(), **wrong}
    with _server(_socket(session), "--requirepass", "secret"):
        session.up()
        code = session.headwater.process.wait(timeout=60)
        session.headwater.process = None
    said = session.state.with_suffix(".out").read_text()
    sentences = [line for line in said.splitlines() if line.startswith("headwater: ")]
    if code == 0 or len(sentences) != 1 or "Traceback" in said or "hunter2" in said:
        run.violations.append(f"a wrong password gave status {code} and said: {said[-400:]}")
    run.violations += session.strays()


# -- what the queues hold -----------------------------------------------------------------------------------------


def _caught(run: Run) -> list[tuple[str, bytes]]:
    """Real messages (queue, bytes): the workers are held still while the folder is edited."""
    workers = run.session.pids("headwater work")
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        with run.session.broker() as client:
            deadline = time.monotonic() + 10.0
            found: list[tuple[str, bytes]] = []
            while len(found) < 20 and time.monotonic() < deadline:
                time.sleep(0.2)
                found = [(lane, raw) for lane in _LANES for raw in client.lrange(lane, 0, -1)]
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    assert found, "no message could be caught"
    return run.random.sample(found, min(len(found), _MOST_CAUGHT))


def _push(session: Session, messages: list[tuple[str, bytes | str]]) -> None:
    with session.broker() as client:
        for lane, raw in messages:
            client.lpush(lane, raw)


@fault("broker", "duplicate messages", runs=4)
def _duplicates(run: Run) -> None:
    caught = _caught(run)
    for _ in range(3):
        _push(run.session, caught)
        time.sleep(run.random.uniform(0.1, 0.6))


@fault("broker", "reversed messages", runs=4)
def _reversed(run: Run) -> None:
    """What waits is turned round, and then comes once more."""
    with run.session.broker() as client:
        for _ in range(2):
            caught = _caught(run)
            client.delete(*_LANES)
            _push(run.session, caught[::-1])
            time.sleep(run.random.uniform(0.1, 0.5))
            _push(run.session, caught[::-1])


def _aged(raw: bytes, by_us: int) -> str:
    """The same hint as if it had been sent earlier: every seq is lower."""
    envelope: dict[str, Any] = json.loads(raw)
    arguments, keywords, embed = json.loads(base64.b64decode(envelope["body"]))
    for hint in arguments:
        hint["items"] = [[path, seq - by_us, operation] for path, seq, operation in hint["items"]]
    body = json.dumps([arguments, keywords, embed]).encode()
    return json.dumps({**envelope, "body": base64.b64encode(body).decode()})


@fault("broker", "hour-old messages", runs=4)
def _hour_old(run: Run) -> None:
    caught = _caught(run)
    aged = [(lane, _aged(raw, _HOUR_US)) for lane, raw in caught]
    for _ in range(3):
        _push(run.session, run.random.sample(aged, len(aged)))
        time.sleep(run.random.uniform(0.1, 0.8))


@fault("broker", "late and doubled outcomes", runs=4)
def _late_outcomes(run: Run) -> None:
    """Events of workers come a second time, in any order, when the folder has moved on."""
    kept: list[dict[bytes, bytes]] = []
    ending = threading.Event()

    def listen() -> None:
        last: Any = "$"
        with run.session.broker() as client:
            while not ending.is_set():
                for _, entries in client.xread({_STREAM: last}, block=200) or []:
                    kept.extend(fields for _, fields in entries)
                    last = entries[-1][0]

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    time.sleep(2.5)
    ending.set()
    listener.join()
    assert kept, "no outcome was heard"
    with run.session.broker() as client:
        for fields in run.random.sample(kept, len(kept)):
            client.xadd(_STREAM, fields)


def _garbage(run: Run, real: bytes) -> list[bytes | str]:
    envelope: dict[str, Any] = json.loads(real)

    def with_body(body: object) -> str:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.dumps({**envelope, "body": base64.b64encode(raw).decode()})

    items = (["..%2F..%2Fetc%2Fpasswd", 1, "index"], ["a", 2**70, "index"], ["a", 1], [])
    hints = [None, 7, {}, {"v": 9}, *({"v": 1, "lane": "live", "items": [item]} for item in items)]
    return [
        b"",
        run.random.randbytes(300),
        "{}",
        "[]",
        "null",
        "[" * 50_000,
        real[: len(real) // 2],
        json.dumps({**envelope, "properties": None}),
        json.dumps({**envelope, "headers": {**envelope["headers"], "task": "os.system"}}),
        json.dumps({**envelope, "headers": {}}),
        json.dumps({**envelope, "content-type": "application/x-yaml"}),
        with_body(b"\xff\xfe not json"),
        with_body([]),
        *(with_body([[hint], {}, {}]) for hint in hints),
    ]


@fault("broker", "garbage messages", runs=4)
def _garbage_messages(run: Run) -> None:
    """In the queues, and on the stream of outcomes."""
    lane, real = _caught(run)[0]
    with run.session.broker() as client:
        for raw in _garbage(run, real):
            client.lpush(lane, raw)
            client.xadd(_STREAM, {"event": raw or "x"})
        client.xadd(_STREAM, {"other": "x"})


class _Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


@fault("broker", "a pickle body", runs=4)
def _pickle(run: Run) -> None:
    """It must not be executed, by whatever name its type goes."""
    marker = run.session.work / "executed"
    lane, real = _caught(run)[0]
    envelope = json.loads(real)
    body = base64.b64encode(pickle.dumps([[_Marker(marker)], {}, {}])).decode()
    for kind in ("application/x-python-serialize", "application/json", "application/data"):
        for encoding in ("binary", "utf-8"):
            forged = {**envelope, "content-type": kind, "content-encoding": encoding, "body": body}
            _push(run.session, [(lane, json.dumps(forged))])
    time.sleep(1.0)
    if marker.exists():
        run.violations.append("a pickle body was executed")
