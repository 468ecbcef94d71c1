"""Parts of the service that are started one by one, as on hosts of their own, which share a broker and an index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driver import wait_until

from headwater.errors import HeadwaterError
from headwater.state import Layout
from producer.status import read_status

__all__ = ["FOLDERS", "Hosts"]

_COMMAND = [sys.executable, "-P", "-m", "headwater"]
FOLDERS = ("manuals", "notes")


@dataclass
class Hosts:
    """Processes that share a broker, a server and a collection; each has a state directory of its own."""

    root: Path
    common: dict[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def folder(self, source: str) -> Path:
        return self.root / "documents" / source

    def environment(self, name: str, **more: str) -> dict[str, str]:
        return {**os.environ, **self.common, "HEADWATER_STATE_DIR": str(self.root / "state" / name), **more}

    def own(self, source: str) -> dict[str, str]:
        """What a process of one folder is told."""
        return {"HEADWATER_FOLDER": str(self.folder(source)), "HEADWATER_SOURCE": source}

    def all(self) -> dict[str, str]:
        return {"HEADWATER_SOURCES": json.dumps({name: str(self.folder(name)) for name in FOLDERS})}

    def start(self, name: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        with open(self.root / f"{name}.log", "a") as log:
            started = subprocess.Popen(
                [*_COMMAND, *arguments], env=self.environment(name, **more), stdout=log, stderr=log, text=True
            )
        self.running[name] = started
        return started

    def run(self, name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(name, **more)
        return subprocess.run([*_COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120)

    def watch(self, source: str) -> None:
        self.start(source, "watch", **self.own(source))
        wait_until(lambda: self.in_step(source), f"{source} is in step: {self.log(source)}{self.log('worker')}")

    def in_step(self, source: str) -> bool:
        status = self.status(source)
        return bool(status["in_step"] and status["checked"])

    def status(self, source: str) -> dict[str, Any]:
        """As the ledger of a producer says."""
        try:
            return read_status(Layout(self.root / "state" / source), running=True)
        except HeadwaterError:  # the ledger is just being made
            return {"in_step": False, "checked": False, "health": "ok", "causes": [], "documents": {}}

    def parts(self, source: str) -> dict[str, str]:
        """What is wrong, by part."""
        return {cause["part"]: cause["cause"] for cause in self.status(source)["causes"]}

    def log(self, name: str) -> str:
        path = self.root / f"{name}.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def stop(self, name: str) -> int:
        """In order; its exit status."""
        self.running[name].send_signal(signal.SIGTERM)
        return self.running.pop(name).wait(40)

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(40)
            finally:
                process.kill()
