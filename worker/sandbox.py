"""The extraction child: ``python -m worker.sandbox``. Hostile bytes come in, text and chunks go out.

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
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from worker.chunk import chunk
from worker.confinement import confine
from worker.frames import read_frame, write_frame
from worker.ocr import use_data
from worker.office import engine_is_broken
from worker.tokens import ModelTokenizer

#: characters of a reason
_MOST_REASON = 300
_NO_MEMORY = "the extraction needs more memory than it is allowed"
#: no honest document has more: 20 million characters make 25,000 chunks of the usual size
_MOST_CHUNKS = 100_000
#: of the time for one document; the rest is for its chunks
_READING_SHARE = 0.75


def main() -> None:
    """Serve requests from standard input until it ends."""
    requests, answers = sys.stdin.buffer, _claim_stdout()
    first = read_frame(requests)
    if first is None:
        return
    setup, tokenizer_json = first
    if tessdata := str(setup["tessdata"]):
        use_data(tessdata)
    confine(
        int(setup["memory_bytes"]), Path.cwd(), [tessdata] if tessdata else []
    )  # before the first thread: it would stay outside
    _die_with(os.getppid())
    import_module("worker.extract")  # now, not at the expense of the first document
    server = _Server(ModelTokenizer(tokenizer_json.decode()), setup)
    write_frame(answers, {"ready": True})
    while (request := read_frame(requests)) is not None:
        _reply(answers, request[0].get("id"), server.answer(*request))
        if engine_is_broken():
            return  # the next document gets a new child


def _reply(answers: BinaryIO, number: object, answer: dict[str, Any]) -> None:
    """Send an answer with the number of its request. It is encoded as a whole before the first byte is written."""
    try:
        write_frame(answers, {"id": number, **answer})
    except MemoryError:
        write_frame(answers, {"id": number, "failed": _NO_MEMORY})


def _claim_stdout() -> BinaryIO:
    """The answers' pipe; whatever a library prints goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


class _Server:
    def __init__(self, tokenizer: ModelTokenizer, setup: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = int(setup["max_tokens"])
        self._heading_context = bool(setup["heading_context"])
        self._timeout_s = float(setup["timeout_s"])
        self._ocr = str(setup["ocr"])

    def answer(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        """One document: {"chunks": [...], ...}, or {"refused": reason}, or {"failed": reason}."""
        from worker.extract import Refused

        _limit_cpu(self._timeout_s)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s + 1.0)
        try:
            return self._extract(request["name"], data)
        except Refused as refusal:
            return {"refused": refusal.reason, "code": refusal.code}
        except MemoryError:
            return {"failed": _NO_MEMORY}
        except OSError as error:
            return {"failed": f"the extraction could not use its sandbox: {error}"}
        except Exception as error:  # whatever a document makes a reader do is that document's outcome
            return {"failed": f"the extraction failed: {type(error).__name__}: {error}"[:_MOST_REASON]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _extract(self, name: str, data: bytes) -> dict[str, Any]:
        from worker.extract import extract

        until = time.monotonic() + _READING_SHARE * self._timeout_s
        found = extract(data, name, ocr=self._ocr, until=until)
        chunks = chunk(
            found.text,
            found.kind,
            self._tokenizer,
            self._max_tokens,
            body_start=found.body_start,
            pages=found.pages,
            own_lines=found.own_lines,
            heading_context=self._heading_context,
        )
        partial = found.partial
        if len(chunks) > _MOST_CHUNKS:
            partial = f"only the first {_MOST_CHUNKS} chunks are indexed"
        return {
            "chunks": [asdict(piece) for piece in chunks[:_MOST_CHUNKS]],
            "kind": found.kind,
            "title": found.title,
            "metadata": dict(found.metadata),
            "partial": partial,
        }


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
