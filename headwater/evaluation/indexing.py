"""A folder indexed by the real command, as a child process, in a directory that is ours alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.errors import PermanentError, RetryableError
from headwater.evaluation.configuration import SEARCH_SETTINGS, Configuration
from headwater.evaluation.stage import Stage
from headwater.settings import Settings
from headwater.state import Layout, write_atomically

__all__ = ["Built", "build_index", "private_settings"]

_COMMAND = (sys.executable, "-P", "-m", "headwater")
_TETHER = Path(__file__).parents[1] / "tether.py"
_ENVIRONMENT_NAMES = ("CELERY_BROKER_URL", "QDRANT_URL", "QDRANT_API_KEY")
#: most of a failure's output that is shown
_SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Built:
    """An index and what it took. ``seconds`` go from the start of the command to "in step", loading included;
    ``reused``: it was there from an earlier evaluation, whose figures these are."""

    settings: Settings
    seconds: float | None
    texts_embedded: int
    chunks: int
    documents: Mapping[str, int]
    index_bytes: int
    reused: bool = False

    @property
    def texts_per_s(self) -> float | None:
        return self.texts_embedded / self.seconds if self.seconds and self.texts_embedded else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "index_s": self.seconds,
            "texts_embedded": self.texts_embedded,
            "texts_per_s": self.texts_per_s,
            "chunks": self.chunks,
            "documents": dict(self.documents),
            "index_bytes": self.index_bytes,
            "index_reused": self.reused,
        }


def build_index(configuration: Configuration, folder: Path, work: Path, stage: Stage, *, ours: bool = True) -> Built:
    """Bring an index of ``folder`` below ``work`` in step with ``headwater up --once``.

    The same folder and settings find the index again that an earlier call made. ``ours``: the folder was written for
    this purpose, so that globs for a person's own files do not apply. Raises what stops the command.
    """
    settings = private_settings(configuration, folder, ours=ours)
    home = work / f"index-{_key(settings)}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = settings.model_copy(update={"state_dir": (home / "state").resolve()})
    before = _status(settings, home)["embedded_texts_total"] if _layout(settings).ledger.exists() else 0
    began = time.monotonic()
    _run(settings, home, stage)
    seconds = time.monotonic() - began
    status = _status(settings, home)
    built = Built(
        settings,
        seconds,
        status["embedded_texts_total"] - before,
        status["chunks"],
        status["documents"],
        _disk_bytes(_layout(settings).index),
    )
    return _remembered(built, home / "built.json")


def private_settings(configuration: Configuration, folder: Path, *, ours: bool) -> Settings:
    """The settings with which nothing of a person's is touched: no server, port or state directory of theirs, and no
    file made in the folder."""
    private: dict[str, Any] = {
        "folder": folder.resolve(),
        "state_dir": None,
        "generation": None,
        "broker_url": None,
        "qdrant_url": None,
        "qdrant_api_key": None,
        "host": "127.0.0.1",
        "port": 0,
        "heartbeat_s": 0.0,
        "deletion_share": 1.0,
    }
    private |= {name: Settings.model_fields[name].default for name in SEARCH_SETTINGS}
    if ours:
        private |= {"include": (), "exclude": ()}
    return configuration.settings().model_copy(update=private)


def _key(settings: Settings) -> str:
    """Differs where any setting does."""
    return hashlib.sha256(json.dumps(settings.to_environment(), sort_keys=True).encode()).hexdigest()[:12]


def _layout(settings: Settings) -> Layout:
    assert settings.state_dir is not None
    return Layout(settings.state_dir)


def _remembered(built: Built, note: Path) -> Built:
    """With the figures of the evaluation that embedded the texts, where this one did not have to."""
    if built.texts_embedded or not note.exists():
        write_atomically(note, json.dumps({"seconds": built.seconds, "texts_embedded": built.texts_embedded}))
        return built
    return replace(built, **json.loads(note.read_text("utf-8")), reused=True)


def _disk_bytes(directory: Path) -> int:
    """What the files take on the disk, holes not counted (st_blocks of stat(2) counts 512 bytes)."""
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


# -- the command ----------------------------------------------------------------------------------------------


def _run(settings: Settings, home: Path, stage: Stage) -> None:
    state = _layout(settings).root
    arguments = ("up", str(settings.folder), "--once", "--state-dir", str(state), "--json")
    errors = home / "errors.log"
    with open(errors, "wb") as log:
        child = _start(settings, home, arguments, log)
        try:
            _follow(child, stage)
            child.wait()
        finally:
            _end(child)
    if child.returncode:
        raise _failure(child.returncode, errors.read_text("utf-8", "replace"))


def _start(settings: Settings, home: Path, arguments: tuple[str, ...], log: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(_TETHER), str(os.getpid()), *_COMMAND, *arguments],
        cwd=home,  # no .env and no headwater.toml there: what counts is handed over
        env=_environment(settings, home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # Ctrl-C of the terminal reaches us alone, and we end it in order
    )


def _environment(settings: Settings, home: Path) -> dict[str, str]:
    """Ours, with these settings and no others, and a state home that keeps "the index used last" as it is."""
    ours = {*_ENVIRONMENT_NAMES, *(f"HEADWATER_{name.upper()}" for name in Settings.model_fields)}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, **settings.to_environment(), "XDG_STATE_HOME": str(home / "state-home")}


def _follow(child: subprocess.Popen[str], stage: Stage) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if not line.startswith("{"):  # of a library that prints
            continue
        event = json.loads(line)
        if event["event"] == "progress":
            stage.update(event["done"], event["total"])
        elif event["event"] == "degraded":
            stage.note(f"indexing: {event['reason']}")


def _end(child: subprocess.Popen[str]) -> None:
    """The command leaves no process behind if it is asked to end, and waited for."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failure(status: int, errors: str) -> PermanentError | RetryableError:
    """The command's own sentence, as an error of the same kind."""
    lines = [line.removeprefix("headwater: ") for line in errors.splitlines() if line.strip()]
    sentence = lines[-1][-_SHOWN_CHARACTERS:] if lines else f"'headwater up' ended with status {status}"
    error = RetryableError if status in (74, RetryableError.exit_code) else PermanentError
    return error(f"indexing for the evaluation failed: {sentence}")


def _status(settings: Settings, home: Path) -> dict[str, Any]:
    """What ``headwater status --json`` says."""
    command = [*_COMMAND, "status", "--state-dir", str(_layout(settings).root), "--json"]
    done = subprocess.run(command, cwd=home, env=_environment(settings, home), capture_output=True, text=True)
    if done.returncode:
        raise _failure(done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
