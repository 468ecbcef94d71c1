"""Executes the code blocks of README.md and docs/usage.md as they are written, but for ``make test``.

``make run`` goes on in the background, over a home directory of its own, while the other blocks ask it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEADLINE_S = 300.0


def main() -> None:
    """Run all blocks; the first that fails ends with its status."""
    home = Path(tempfile.mkdtemp(prefix="headwater-home-"))
    shutil.copytree(_ROOT / "docs", home / "notes")
    environment = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    blocks = [found for page in ("README.md", "docs/usage.md") for found in _blocks(_ROOT / page)]
    runs = [code for _, code in blocks if code.startswith("make run")]
    others = [block for block in blocks if not block[1].startswith("make ")]
    assert len(runs) == 1 and others, "the README lost its commands"
    service = subprocess.Popen(["bash", "-ec", runs[0]], cwd=_ROOT, env=environment, start_new_session=True)
    try:
        _await_in_step(service, environment)
        for language, code in others:
            _execute(language, code, environment)
    finally:
        os.killpg(service.pid, signal.SIGINT)
        service.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)
    print(f"{len(others) + 1} code blocks ran")


def _blocks(page: Path) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in _BLOCK.finditer(page.read_text("utf-8"))]


def _await_in_step(service: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        assert service.poll() is None, "make run ended by itself"
        command = [str(_ROOT / ".venv/bin/headwater"), "status", "--json"]
        done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
        if done.returncode == 0 and json.loads(done.stdout)["in_step"] and json.loads(done.stdout)["api"]:
            return
        time.sleep(0.5)
    sys.exit("make run was not in step in time")


def _execute(language: str, code: str, environment: dict[str, str]) -> None:
    print(f"--- {language}\n{code}", flush=True)
    command = ["bash", "-eo", "pipefail", "-c", code] if language == "sh" else [".venv/bin/python", "-c", code]
    done = subprocess.run(command, cwd=_ROOT, env=environment)
    print(flush=True)
    if done.returncode != 0:
        sys.exit(f"this code block failed with status {done.returncode}")


if __name__ == "__main__":
    main()
