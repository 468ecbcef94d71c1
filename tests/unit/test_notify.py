"""What a command tells its service manager."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater import notify
from headwater.state import Layout, Lock


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Each test has a manager of its own, or none."""
    notify._manager.cache_clear()
    yield
    notify._manager.cache_clear()


@pytest.mark.parametrize("abstract", [True, False])
def test_states_reach_the_manager_and_no_child_hears_of_it(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{place}" if abstract else place)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{place}" if abstract else place)
        notify.ready()
        assert manager.recv(100) == b"READY=1"
        assert "NOTIFY_SOCKET" not in os.environ
        notify.stopping()
        assert manager.recv(100) == b"STOPPING=1"
    notify.stopping()  # it has gone: no error


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()


def test_up_is_not_ready_before_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "socket"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "socket"))
        layout = Layout(tmp_path / "state").create()
        state = notify.WhenReady(layout)
        state.look()
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        lock = Lock(layout, "producer").acquire()
        state.look()  # the folder is held, but nobody answers
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        lock.release()
