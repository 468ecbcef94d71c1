"""Failpoints: inert by default, and once where a token says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import failpoints

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from headwater.failpoints import reach; [reach('worker:read') for _ in range(3)]; print('alive')"


def run(armed: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HEADWATER_FAILPOINTS"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if armed is None else {"HEADWATER_FAILPOINTS": armed})
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60)


def test_nothing_happens_where_nothing_is_armed() -> None:
    assert failpoints._ARMED == {}
    assert run(None).stdout == "alive\n"
    assert run("worker:applied=kill").stdout == "alive\n"


def test_a_process_is_killed_at_the_pass_that_was_named() -> None:
    assert run("worker:read=kill:3").returncode == -signal.SIGKILL
    assert run("worker:read=kill:4").stdout == "alive\n"


def test_a_token_is_spent_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    assert run(f"worker:read=kill@{token}").returncode == -signal.SIGKILL
    assert not token.exists()
    assert run(f"worker:read=kill@{token}").stdout == "alive\n"


def test_an_error_is_an_os_error() -> None:
    assert "OSError: [Errno 5] a failpoint" in run("worker:read=error").stderr


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_each_name_is_reached_somewhere(name: str) -> None:
    sources = [
        p.read_text("utf-8") for package in ("headwater", "producer", "worker") for p in (ROOT / package).glob("*.py")
    ]
    assert sum(source.count(f'reach("{name}")') for source in sources) == 1
