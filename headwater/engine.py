"""The embedded engine in a process of its own: ``python -m headwater.engine SOCKET DIRECTORY MANIFEST QUANTIZATION``
serves one shard to the process that started it, ``python -m headwater.engine optimize DIRECTORY MANIFEST`` compacts one
and ends.

Every call of the engine holds the interpreter's lock: loading 200,000 points takes 2 s, optimising them minutes. In a
process of its own it keeps nobody else waiting, a crash of it is a closed socket, and its memory goes with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from headwater.errors import HeadwaterError, IndexUnavailable
from headwater.index import Quantization

__all__ = ["EngineDied", "EngineProcess", "optimize"]

_TETHER = Path(__file__).with_name("tether.py")
#: seconds that an engine gets to flush and to end when it is told to
_END_S = 30.0
_NICEST = 19
#: seconds between two looks at a compaction
_LOOK_S = 0.1
#: exit statuses of a compaction
_DONE, _NOTHING_TO_DO = 0, 3


class EngineDied(IndexUnavailable):
    """The process has ended, or found its shard damaged: the message says which. It is of no use any more."""


class EngineProcess:
    """One child with one shard, which ends when the connection to it does, and so with this process. One call at a
    time: who shares it takes turns."""

    def __init__(self, directory: Path, manifest: Path, quantization: Quantization = "none") -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = str(theirs.fileno())
            self._process = subprocess.Popen(
                [*_command(number, directory, manifest), quantization],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is for whoever started it
            )
        self._connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> Any:
        """What the shard's method returns; what it raises is raised here. Raises EngineDied."""
        try:
            self._connection.send((method, arguments))
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise EngineDied(self._obituary()) from None
        if kind == "damaged":
            raise EngineDied(value)
        if kind == "raised":
            raise value
        return value

    def _obituary(self) -> str:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the index engine closed its connection"
        if code >= 0:
            return f"the index engine ended by itself (status {code})"
        return f"the index engine died by signal {-code} ({signal.strsignal(-code)})"

    def end(self) -> None:
        """Let it flush and end. Idempotent. Raises IndexUnavailable if it could not flush."""
        if self._connection.closed:
            return
        try:
            self.call("close")
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once; what was not flushed is in its log of writes."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def optimize(directory: Path, manifest: Path, stop: threading.Event) -> bool | None:
    """Compact a shard that nobody has open, in a child of the lowest priority that ends with this process; whether
    there was anything to do, None if it was stopped. Raises EngineDied."""
    tethered = [sys.executable, "-I", os.fspath(_TETHER), str(os.getpid())]
    process = subprocess.Popen(
        [*tethered, *_command("optimize", directory, manifest)], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while process.poll() is None:
            if stop.wait(_LOOK_S):
                return None
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (_DONE, _NOTHING_TO_DO):
        raise EngineDied(f"the compaction ended with status {process.returncode}")
    return process.returncode == _DONE


def _command(task: str, directory: Path, manifest: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "headwater.engine", task, os.fspath(directory), os.fspath(manifest)]


# -- in the child -------------------------------------------------------------------------------------------


class _Server:
    """Answers calls until the connection closes."""

    def __init__(self, connection: Connection, directory: Path, manifest: Path, quantization: Quantization) -> None:
        from headwater.index_edge import MovableEdgeIndex

        self._connection = connection
        self._damage: str | None = None
        self._index = MovableEdgeIndex(directory, manifest, on_damage=self._note_damage, quantization=quantization)

    def _note_damage(self, sentence: str) -> None:
        self._damage = sentence

    def run(self) -> None:
        """Whoever asks may be gone at any moment: as after any crash, the log of writes has the rest."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                method, arguments = self._connection.recv()
                self._connection.send(self._answer(method, arguments))

    def _answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return "returned", getattr(self._index, method)(*arguments)
        except Exception as error:  # it is the caller's
            if self._damage is not None:
                return "damaged", self._damage
            return "raised", _sendable(error)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  made in this line
    except Exception:  # an error of somebody else's library, made in a way that pickle does not know
        return IndexUnavailable(f"the index engine failed: {type(error).__name__}: {error}")
    return error


def _optimize(directory: Path, manifest: Path) -> int:
    from headwater.index_edge import MovableEdgeIndex

    os.nice(_NICEST)
    try:
        return _DONE if MovableEdgeIndex(directory, manifest).optimize() else _NOTHING_TO_DO
    except HeadwaterError as error:
        print(f"headwater: the copy of the index was not compacted: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def main() -> int:
    """What the command line says; status 0 when it is done."""
    task, directory, manifest = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends when its connection does
    if task == "optimize":
        return _optimize(directory, manifest)
    connection = Connection(int(task))
    with contextlib.closing(connection):
        _Server(connection, directory, manifest, cast(Quantization, sys.argv[4])).run()
    return 0


if __name__ == "__main__":
    os._exit(main())  # closing what the engine has mapped takes 0.2 s at 200,000 points, and nobody waits for it
