"""The state directory, its lock, and the note of the running service."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from kombu import Connection

from headwater.errors import AlreadyRunning, DiskFull, SettingsError
from headwater.settings import Settings
from headwater.state import (
    Layout,
    Lock,
    Service,
    check_free_space,
    default_root,
    find_layout,
    free_bytes,
    noted_folder,
    remember,
    used_now,
    write_atomically,
)
from producer.ledger import Ledger

#: sun_path holds 108 bytes with its end mark (unix(7))
MOST_SOCKET_BYTES = 107
HOLDER = """
import sys
from pathlib import Path
from headwater.state import Layout, Lock
lock = Lock(Layout(Path(sys.argv[1])), "up").acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(layout: Layout) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until the block ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(layout.root)], text=True, **pipes)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.communicate()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "state").create()


# -- layout ----------------------------------------------------------------------------------------------------


def test_the_directories_are_private_and_made_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "state").create()
    assert layout.create() == layout
    for directory in (layout.root, layout.broker, layout.logs, layout.socket.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_socket_directory_that_others_may_enter_is_closed_to_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state").create()
    layout.socket.parent.chmod(0o755)
    layout.create()
    assert stat.S_IMODE(layout.socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("length", [1, 60, 80, 90, 100, 150, 250])
def test_the_socket_always_has_a_path_that_the_kernel_takes(length: int) -> None:
    root = Path("/s") / ("d" * length)
    socket = Layout(root).socket
    assert len(os.fsencode(socket)) <= MOST_SOCKET_BYTES
    assert socket.is_relative_to(root) == (length < 70)


def test_two_state_directories_with_long_names_have_two_sockets() -> None:
    a, b = (Layout(Path("/s") / (letter * 200)).socket for letter in "ab")
    assert a != b
    assert a == Layout(Path("/s") / ("a" * 200)).socket
    assert str(os.getuid()) in str(a)


@pytest.mark.parametrize(
    "name", ["plain", "two words", "C#", "what?", "100%41", "\u00e9t\u00e9", "a:b@c", "a&b=c", "a;b", "caf\udce9"]
)
def test_both_clients_of_the_broker_find_its_socket_whatever_the_folder_is_called(name: str) -> None:
    # (the default state directory takes its name from the folder)
    layout = Layout(Path("/s") / name)
    client = redis.Redis.from_url(layout.broker_url.replace("redis+socket://", "unix://", 1))
    assert client.connection_pool.connection_kwargs["path"] == str(layout.socket)
    assert kombu_socket(Connection(layout.broker_url)) == str(layout.socket)


def kombu_socket(connection: Connection) -> str:
    """Where kombu's Redis transport would connect to; it does not connect."""
    channel = object.__new__(connection.transport.Channel)
    channel.connection = connection.transport
    channel.connection.client = connection
    return str(channel._connparams()["path"])


def test_a_state_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="cannot be made"):
        Layout(tmp_path / "file" / "state").create()


def test_a_state_directory_that_cannot_be_written_is_one_sentence(without_privileges: Path) -> None:
    layout = Layout(without_privileges / "state").create()
    layout.root.chmod(0o500)
    with pytest.raises(SettingsError, match="not writable"):
        layout.create()


def test_the_state_directory_is_found_by_setting_folder_place_and_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    docs, place = tmp_path / "docs", tmp_path / "place"
    for directory in (docs / "deep", place):
        directory.mkdir(parents=True)
    monkeypatch.chdir(place)
    # Given nothing at all
    with pytest.raises(SettingsError, match="no index is known"):
        find_layout(Settings())
    # Then a remembered one, one of a folder around us, one of a named folder, and a named one, the later the stronger
    remember(Layout(tmp_path / "remembered"))
    assert find_layout(Settings()).root == tmp_path / "remembered"
    default_root(docs).mkdir()
    monkeypatch.chdir(docs / "deep")
    assert find_layout(Settings()).root == default_root(docs)
    assert find_layout(Settings(folder=place)).root == default_root(place)
    assert find_layout(Settings(folder=place, state_dir=tmp_path / "s")).root == tmp_path / "s"


def test_folders_of_one_name_have_different_state_directories() -> None:
    assert default_root(Path("/a/docs")) != default_root(Path("/b/docs"))
    assert default_root(Path("/")).name.startswith("root-")


# -- lock ------------------------------------------------------------------------------------------------------


def test_a_second_holder_is_told_the_pid_of_the_first(layout: Layout) -> None:
    assert not Lock.is_held(layout, "up")
    with held_elsewhere(layout) as holder:
        assert Lock.is_held(layout, "up")
        assert not Lock.is_held(layout, "producer")
        with pytest.raises(AlreadyRunning, match=rf"pid {holder.pid}\b"):
            Lock(layout, "up").acquire()
    # When the first process has ended, however it ended
    assert not Lock.is_held(layout, "up")
    Lock(layout, "up").acquire().release()


def test_a_lock_that_was_refused_keeps_nothing_open(layout: Layout) -> None:
    holder = Lock(layout, "up").acquire()
    before = len(os.listdir("/proc/self/fd"))
    refused = Lock(layout, "up")
    with pytest.raises(AlreadyRunning):
        refused.acquire(wait_s=0.01)
    after = len(os.listdir("/proc/self/fd"))
    refused.release()
    holder.release()
    assert after == before


def test_a_lock_that_was_let_go_can_be_taken_again(layout: Layout) -> None:
    lock = Lock(layout, "up")
    for _ in range(2):
        lock.acquire()
        assert Lock.is_held(layout, "up")
        assert layout.lock("up").read_text() == str(os.getpid())
        lock.release()
        lock.release()
        assert not Lock.is_held(layout, "up")


# -- service, token, disk --------------------------------------------------------------------------------------


def test_the_service_that_runs_is_found(layout: Layout) -> None:
    assert Service.read(layout) is None
    Service("http://127.0.0.1:5", os.getpid()).write(layout)
    assert Service.read(layout) == Service("http://127.0.0.1:5", os.getpid())


def test_a_note_of_a_process_that_has_ended_counts_as_none(layout: Layout) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Service("http://127.0.0.1:5", ended.pid).write(layout)
    assert Service.read(layout) is None


def test_a_service_that_ended_without_its_parent_taking_note_is_none(layout: Layout) -> None:
    # Given a process that has ended, and is not waited for
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    Service("http://127.0.0.1:5", ended.pid).write(layout)
    # Then no service runs, although a signal would reach it
    os.kill(ended.pid, 0)
    assert Service.read(layout) is None
    ended.wait()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", "{}", '{"pid": 1}', '{"url": "x", "pid": "1"}', '{"url": "x", "pid": null}',
     '{"url": "x", "pid": 1e400}', '{"url": "x", "pid": 100000000000000000000}', '{"url": "x", "pid": 0}',
     '{"url": "x", "pid": -1}'],
)  # fmt: skip
def test_a_damaged_note_counts_as_none(layout: Layout, text: str) -> None:
    layout.service.write_text(text)
    assert Service.read(layout) is None


def test_a_note_that_may_not_be_read_counts_as_none(without_privileges: Path) -> None:
    layout = Layout(without_privileges)
    Service("http://127.0.0.1:5", os.getpid()).write(layout)
    layout.service.chmod(0)
    assert Service.read(layout) is None


def test_a_service_of_another_user_is_found(layout: Layout, without_privileges: Path) -> None:
    # (asked as nobody where the tests run as root; else process 1 is another user's)
    theirs = Layout(without_privileges)
    Service("http://127.0.0.1:5", 1).write(theirs)
    assert Service.read(theirs) == Service("http://127.0.0.1:5", 1)


def test_the_token_is_made_once_and_for_us_alone(layout: Layout) -> None:
    old = os.umask(0)
    try:
        token = layout.read_token()
    finally:
        os.umask(old)
    assert stat.S_IMODE(layout.token.stat().st_mode) == 0o600
    assert len(token) >= 40
    assert layout.read_token() == token
    assert Layout(layout.root).read_token() == token


def test_two_state_directories_have_different_tokens(tmp_path: Path) -> None:
    a, b = (Layout(tmp_path / name).create().read_token() for name in "ab")
    assert a != b


def test_a_text_is_replaced_in_one_step_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    for text in ("one", json.dumps({"two": "\u00e9"})):
        write_atomically(path, text)
        assert path.read_text("utf-8") == text
    assert os.listdir(tmp_path) == ["note.json"]


def test_too_little_free_space_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free > 0
    check_free_space(tmp_path, 0)
    needed = free + 2**40
    with pytest.raises(DiskFull, match=str(needed // 1024**2)):
        check_free_space(tmp_path, needed)


@pytest.mark.parametrize("left", [b"", b"\n", b"\0\0\0", b"\xff"])
def test_a_token_that_a_power_cut_left_empty_is_made_anew(tmp_path: Path, left: bytes) -> None:
    layout = Layout(tmp_path)
    layout.token.write_bytes(left)
    token = layout.read_token()
    assert len(token) > 30
    assert layout.read_token() == token
    assert layout.token.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_the_folder_of_a_ledger_is_told_and_that_of_none_is_not(layout: Layout) -> None:
    assert noted_folder(layout) is None
    ledger = Ledger(layout.ledger)
    assert noted_folder(layout) is None
    ledger.set_meta("folder", str(layout.root))
    assert noted_folder(layout) == layout.root
    ledger.set_meta("folder", str(layout.root / "unmounted"))
    assert noted_folder(layout) is None
    ledger.close()
    layout.ledger.write_bytes(b"no database at all" * 100)
    assert noted_folder(layout) is None


def test_a_start_that_failed_before_there_was_an_index_is_not_the_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    good, failed = Layout(tmp_path / "good").create(), Layout(tmp_path / "failed").create()
    with used_now(good):
        assert find_layout(Settings()).root == good.root
    with pytest.raises(SettingsError), used_now(failed):
        assert find_layout(Settings()).root == failed.root  # a search from a second terminal waits for it
        raise SettingsError("the port is taken")
    assert find_layout(Settings()).root == good.root
    # But one with an index stays
    failed.manifest.write_text("{}")
    with pytest.raises(SettingsError), used_now(failed):
        raise SettingsError("the port is taken")
    assert find_layout(Settings()).root == failed.root
