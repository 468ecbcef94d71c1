"""Failpoints: inert by default, and once where a token says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater import failpoints

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from headwater.failpoints import reach; [reach('worker:read') for _ in range(3)]; print('alive')"


def run(armed: str | None, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HEADWATER_FAILPOINTS"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if armed is None else {"HEADWATER_FAILPOINTS": armed})
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


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


def test_passes_count_only_while_the_token_is_there(tmp_path: Path) -> None:
    # Given a token that comes after the first pass
    token = tmp_path / "token"
    program = PROGRAM.replace("[reach", f"reach('worker:read'); open({str(token)!r}, 'w').write('2'); [reach")
    # When three more pass
    done = run(f"worker:read=error:7@{token};worker:read=kill@{token}.other", program)
    # Then it fires at the second of them, as the number in the token says
    assert "a failpoint" in done.stderr
    assert "alive" not in done.stdout
    assert not token.exists()


def test_a_new_token_arms_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    body = f"open({str(token)!r}, 'w').close(); reach('worker:read')"
    program = f"from headwater.failpoints import reach; {body}; reach('worker:read'); {body}; print('alive')"
    token.touch()
    done = run(f"worker:read=sleep0@{token}", program)
    assert done.stdout == "alive\n", done.stderr
    assert not token.exists()


def test_an_error_is_an_os_error() -> None:
    assert "OSError: [Errno 5] a failpoint" in run("worker:read=error").stderr


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_each_name_is_reached_somewhere(name: str) -> None:
    sources = [
        p.read_text("utf-8") for package in ("headwater", "producer", "worker") for p in (ROOT / package).glob("*.py")
    ]
    assert sum(source.count(f'reach("{name}"') for source in sources) == 1


def test_only_passes_of_the_marked_subject_count() -> None:
    program = "from headwater.failpoints import reach; reach('worker:read', 'good.md'); print('alive', flush=True); "
    program += "reach('worker:read', 'poison.md')"
    done = run("worker:read=kill~poison", program)
    assert (done.stdout, done.returncode) == ("alive\n", -signal.SIGKILL)


def test_the_time_of_every_pass_is_noted(tmp_path: Path) -> None:
    times = tmp_path / "times"
    before = time.monotonic()
    assert run(f"worker:read=time@{times}").stdout == "alive\n"
    noted = [line.split() for line in times.read_text().splitlines()]
    assert [name for name, _ in noted] == ["worker:read"] * 3
    seconds = [float(second) for _, second in noted]
    assert before < seconds[0] <= seconds[1] <= seconds[2] < time.monotonic()
