"""Starts the parts on their hosts and starts anew what ends, as systemd does on each: ``python caretaker.py PLAN``.

The plan is a JSON list of parts: name, command, environment, log. They are ended in the order of the plan, and with
this process, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_TETHER = Path(__file__).resolve().parents[2] / "headwater" / "tether.py"
#: seconds before a part is started anew, and for its orderly end
_PAUSE_S = 0.5
_GRACE_S = 35.0


@dataclass
class Part:
    name: str
    command: list[str]
    environment: dict[str, str]
    log: str
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    due_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(_TETHER), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def look(self) -> None:
        if self.process is None:
            if time.monotonic() >= self.due_at:
                self.start()
        elif (code := self.process.poll()) is not None:
            print(f"{self.name} ended with status {code}", flush=True)
            self.process, self.due_at = None, time.monotonic() + _PAUSE_S

    def stop(self) -> str | None:
        """None if it ended in order, else how it did."""
        if self.process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            code = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"{self.name} (not within {_GRACE_S:.0f} s)"
        if code in (0, -signal.SIGTERM):
            return None
        said = Path(self.log).read_text("utf-8", "replace").strip().splitlines()[-1:]
        return f"{self.name} (status {code}, {' '.join(said)[-200:]})"


def main() -> int:
    """0 if all parts ended in order after a signal."""
    parts = [Part(**part) for part in json.loads(Path(sys.argv[1]).read_text("utf-8"))]
    ending: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: ending.append(number))
    while not ending:
        for part in reversed(parts):  # servers first
            part.look()
        time.sleep(0.05)
    late = [how for part in parts if (how := part.stop()) is not None]
    print(f"did not end in order: {', '.join(late)}" if late else "all ended in order", flush=True)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
