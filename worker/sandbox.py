"""The extraction child: ``python -m worker.sandbox``. Hostile bytes come in, text and chunks go out.

Files within a document are read one after the other; each is announced before, and has the limits of a document.

It is confined (see ``confinement``) before a document comes, has a home of its own, a CPU limit and an alarm per
document that ends it even if its parent is gone. Its death is its parent's to explain.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from headwater.index import Chunk
from worker.chunk import chunk
from worker.confinement import confine
from worker.frames import read_frame, write_frame
from worker.ocr import use_data
from worker.office import engine_is_broken
from worker.tokens import ModelTokenizer

if TYPE_CHECKING:
    from worker.extracted import Extracted
    from worker.members import Reading

#: characters of a reason
_MOST_REASON = 300
_NO_MEMORY = "the extraction needs more memory than it is allowed"
#: no honest document has more: 20 million characters make 25,000 chunks of the usual size
_MOST_CHUNKS = 100_000


def main() -> None:
    """Serve requests from standard input until it ends."""
    requests, answers = sys.stdin.buffer, _claim_stdout()
    nowhere = os.open(os.devnull, os.O_WRONLY)  # now: it is out of reach later
    first = read_frame(requests)
    if first is None:
        return
    setup, tokenizer_json = first
    if tessdata := str(setup["tessdata"]):
        use_data(tessdata)
    # before the first thread: it would stay outside
    confine(int(setup["memory_bytes"]), Path.cwd(), [tessdata] if tessdata else [])
    _die_with(os.getppid())
    import_module("worker.members")  # now, not at the expense of the first document
    server = _Server(ModelTokenizer(tokenizer_json.decode()), setup)
    write_frame(answers, {"ready": True})
    _be_silent(nowhere)
    while (request := read_frame(requests)) is not None:
        replies = _Replies(answers, request[0].get("id"))
        answer = server.answer(*request, announce=replies.announce)
        replies.send({**answer, "last": engine_is_broken()})
        if engine_is_broken():
            return  # the next document gets a new child


@dataclass(frozen=True, slots=True)
class _Replies:
    """To one request, whose number each has."""

    stream: BinaryIO
    number: object

    def announce(self, member: str) -> None:
        """Say which file within the document is read next; without a name, that the same one goes on."""
        write_frame(self.stream, {"id": self.number, "member": member})

    def send(self, answer: dict[str, Any]) -> None:
        """Send the answer. It is encoded as a whole before the first byte is written."""
        try:
            write_frame(self.stream, {"id": self.number, **answer})
        except MemoryError:
            write_frame(self.stream, {"id": self.number, "failed": _NO_MEMORY})


def _claim_stdout() -> BinaryIO:
    """The answers' pipe; whatever a library prints goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _be_silent(nowhere: int) -> None:
    """What a library says of a document may quote it: the worker's log is no place for that."""
    for stream in (1, 2):
        os.dup2(nowhere, stream)


class _EngineBroken(Exception):
    """A library of this process would read no more files."""


class _Server:
    def __init__(self, tokenizer: ModelTokenizer, setup: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = int(setup["max_tokens"])
        self._heading_context = bool(setup["heading_context"])
        self._timeout_s = float(setup["timeout_s"])
        self._passwords = tuple(setup["passwords"])
        self._limits = dict(setup["limits"])
        self._ocr = str(setup["ocr"])

    def answer(self, request: dict[str, Any], data: bytes, announce: Callable[[str], None]) -> dict[str, Any]:
        """One document: {"chunks": [...], ...}, or {"refused": reason}, or {"failed": reason}."""
        from worker.extracted import Refused

        def on_member(name: str) -> None:
            if engine_is_broken():
                raise _EngineBroken
            announce(name)
            self._allow_time()

        self._allow_time()
        try:
            return self._extract(request["name"], data, request.get("skipped", {}), on_member)
        except Refused as refusal:
            return {"refused": refusal.reason, "code": refusal.code}
        except MemoryError:
            return {"failed": _NO_MEMORY}
        except _EngineBroken:  # by the file that was announced last: the rest is for another child
            return {"failed": "the extraction broke the library that reads it"}
        except OSError as error:
            return {"failed": f"the extraction could not use its sandbox: {error}"}
        except Exception as error:  # whatever a document makes a reader do is that document's outcome
            return {"failed": f"the extraction failed: {type(error).__name__}: {error}"[:_MOST_REASON]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _allow_time(self) -> None:
        """From now on, for one document."""
        _limit_cpu(self._timeout_s)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s + 1.0)

    def _extract(
        self, name: str, data: bytes, skipped: Mapping[str, str], on_member: Callable[[str], None]
    ) -> dict[str, Any]:
        from worker.members import Limits, Reading, read_deep

        reading = Reading()
        pieces = read_deep(
            data,
            name,
            reading,
            limits=Limits(**self._limits),
            passwords=self._passwords,
            skipped=skipped,
            on_member=on_member,
            on_part=lambda: on_member(""),
            ocr=self._ocr,
        )
        members: list[dict[str, Any]] = []
        chunks: list[Chunk] = []
        libraries: dict[str, str] = {}
        for piece in pieces:
            libraries[piece.read.kind] = piece.read.library
            if piece.name is not None:
                members.append({"name": piece.name, **_about(piece.read)})
            found = self._chunks(piece.read)
            member = None if piece.name is None else len(members) - 1
            chunks += [replace(one, number=len(chunks) + at, member=member) for at, one in enumerate(found)]
            if len(chunks) > _MOST_CHUNKS:
                chunks = chunks[:_MOST_CHUNKS]
                reading.partial.append(f"only the first {_MOST_CHUNKS} chunks are indexed")
                break
        return {
            **_about(reading),
            "chunks": [asdict(one) for one in chunks],
            "members": members,
            "partial": reading.why_partial(),
            "unread": reading.reasons(),
            "libraries": {reading.kind: reading.library, **libraries},
        }

    def _chunks(self, found: Extracted) -> list[Chunk]:
        return chunk(
            found.text,
            "markdown" if found.markdown else found.kind,
            self._tokenizer,
            self._max_tokens,
            body_start=found.body_start,
            pages=found.pages,
            own_lines=found.own_lines,
            heading_context=self._heading_context,
        )


def _about(found: Extracted | Reading) -> dict[str, Any]:
    return {"kind": found.kind, "title": found.title, "metadata": dict(found.metadata)}


# -- limits of one document ----------------------------------------------------------------------------------


def _limit_cpu(seconds: float) -> None:
    """The soft limit counts the life of the process, so it moves along with each document."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent + seconds) + 2, hard))


def _die_with(parent: int) -> None:
    """End when the parent is gone, also in the middle of a document."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main()
