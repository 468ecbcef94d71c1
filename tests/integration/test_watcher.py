"""The watcher on real directories: what changes is handed out, and what may be lost asks for a scan."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from driver import wait_until
from watchdog.observers.inotify_c import InotifyFD

from producer.rules import Rules
from producer.scanner import Scanner
from producer.watcher import HEARTBEAT_FILE, Dirty, Watcher

#: watchdog warns in its own thread when a directory is found twice, which is no harm; as an error it ends the thread
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")

DEBOUNCE_MS, DEBOUNCE_MAX_MS = 30, 300


@dataclass
class Follower:
    """Follows a folder as the producer does: it looks at each dirty path, and scans when asked to."""

    root: Path
    watcher: Watcher
    handed: list[tuple[float, Dirty]] = field(default_factory=list)
    files: dict[bytes, int] = field(default_factory=dict)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        scanner = Scanner(os.fsencode(self.root), Rules(os.fsencode(self.root)))
        for dirty in self.watcher.changes():
            self.handed.append((time.monotonic(), dirty))
            for path in dirty.paths:
                self._note(path, {p: seen.fingerprint.size for p, seen in scanner.look(path).items()})
            if dirty.rescan is not None and self.root.is_dir():
                self._note(b"", {p: seen.fingerprint.size for p, seen in scanner.scan().items()})

    def _note(self, top: bytes, seen: dict[bytes, int]) -> None:
        below = top + b"/" if top else b""
        kept = {p: size for p, size in self.files.items() if p != top and not p.startswith(below)}
        self.files = {**kept, **seen}

    @property
    def dirty(self) -> set[bytes]:
        return {path for _, dirty in self.handed for path in dirty.paths}

    @property
    def rescans(self) -> list[str]:
        return [dirty.rescan for _, dirty in self.handed if dirty.rescan is not None]

    def on_disk(self) -> dict[bytes, int]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {os.fsencode(path.relative_to(self.root)): path.stat().st_size for path in found}

    def wait_in_step(self) -> None:
        """What was followed is what the folder holds."""
        wait_until(lambda: self.files == self.on_disk(), "the follower is in step", timeout_s=10)


class Follow(Protocol):
    def __call__(self, root: Path, debounce_ms: int = DEBOUNCE_MS) -> Follower: ...


def watch_count() -> int:
    """How many inotify watches this process holds (proc(5), fdinfo)."""
    found = (Path(f"/proc/self/fdinfo/{name}") for name in os.listdir("/proc/self/fdinfo"))
    texts = (path.read_text("ascii", errors="replace") for path in found if path.exists())
    return sum(text.count("\ninotify") for text in texts)


@pytest.fixture
def follow() -> Iterator[Follow]:
    made: list[Follower] = []

    def start(root: Path, debounce_ms: int = DEBOUNCE_MS) -> Follower:
        watcher = Watcher(root, debounce_ms, max(debounce_ms, DEBOUNCE_MAX_MS))
        watcher.start()
        made.append(Follower(root, watcher))
        made[-1].thread.start()
        return made[-1]

    yield start
    for follower in made:
        follower.watcher.stop()
        follower.thread.join(timeout=10)
        assert not follower.thread.is_alive(), "changes() must end after stop()"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def test_a_file_is_dirty_when_it_is_made_changed_renamed_and_removed(root: Path, follow: Follow) -> None:
    follower = follow(root)
    steps: list[tuple[Callable[[], object], set[bytes]]] = [
        (lambda: (root / "a.md").write_text("one"), {b"a.md"}),
        (lambda: (root / "a.md").write_text("two!"), {b"a.md"}),
        (lambda: os.utime(root / "a.md", (1, 1)), {b"a.md"}),
        (lambda: (root / "a.md").rename(root / "b.md"), {b"a.md", b"b.md"}),
        (lambda: (root / "b.md").unlink(), {b"b.md"}),
    ]
    for step, expected in steps:
        follower.handed.clear()
        step()
        wait_until(lambda: expected <= follower.dirty, f"{expected} are dirty", timeout_s=5)  # noqa: B023
        follower.wait_in_step()
    assert follower.rescans == []


def test_a_name_that_is_not_text_is_dirty_by_its_bytes(root: Path, follow: Follow) -> None:
    follower = follow(root)
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.md")).write_text("one")
    wait_until(lambda: b"caf\xe9.md" in follower.dirty, "the file is dirty", timeout_s=5)


def test_a_replaced_file_is_dirty_under_its_own_name(root: Path, follow: Follow) -> None:
    (root / "a.md").write_text("old")
    follower = follow(root)
    (root / ".a.md.swp").write_text("new text")
    os.replace(root / ".a.md.swp", root / "a.md")
    wait_until(lambda: follower.files == {b"a.md": 8}, "the new text is seen", timeout_s=5)


def test_a_directory_that_comes_and_goes_takes_its_files_along(root: Path, follow: Follow, tmp_path: Path) -> None:
    follower = follow(root)
    outside = tmp_path / "outside"
    for name in ("one.md", "deep/two.md", "deep/er/three.md"):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_text(name)
    # When a directory with files is moved in
    outside.rename(root / "in")
    wait_until(lambda: len(follower.files) == 3, "the files that came are seen", timeout_s=5)
    follower.wait_in_step()
    # And changed inside, and renamed
    (root / "in" / "deep" / "er" / "three.md").write_text("longer than before")
    follower.wait_in_step()
    (root / "in").rename(root / "renamed")
    follower.wait_in_step()
    (root / "renamed" / "deep" / "four.md").write_text("after the rename")
    follower.wait_in_step()
    # And when it is moved out again, it is gone
    (root / "renamed").rename(tmp_path / "out")
    wait_until(lambda: follower.files == {}, "nothing is left", timeout_s=5)


def test_files_written_at_once_into_new_nested_directories_are_all_seen(root: Path, follow: Follow) -> None:
    follower = follow(root)
    for n in range(30):
        directory = root / f"{n}" / "a" / "b" / "c"
        directory.mkdir(parents=True)
        for level in (directory, directory.parent, directory.parents[1]):
            (level / "file.md").write_text(f"{n}")
    assert len(follower.on_disk()) == 90
    follower.wait_in_step()


def test_a_tree_that_is_copied_and_removed_at_once_leaves_nothing(root: Path, follow: Follow) -> None:
    follower = follow(root)
    for n in range(5):
        (root / "tree" / f"{n}").mkdir(parents=True)
        (root / "tree" / f"{n}" / "a.md").write_text("x")
    shutil.copytree(root / "tree", root / "copy")
    shutil.rmtree(root / "tree")
    wait_until(lambda: len(follower.files) == 5, "the copy is seen", timeout_s=5)
    follower.wait_in_step()


def test_a_path_that_keeps_changing_is_handed_out_within_the_maximum(root: Path, follow: Follow) -> None:
    follower = follow(root)
    path = root / "log.md"
    started = time.monotonic()
    writes = 0
    with open(path, "a") as file:
        while time.monotonic() - started < 1.5:  # an event every few milliseconds, all the time
            file.write("line\n")
            file.flush()
            writes += 1
            threading.Event().wait(0.004)
    ended = time.monotonic()
    times = [when for when, dirty in follower.handed if b"log.md" in dirty.paths and when < ended]
    assert writes > 50
    assert times, "it was never handed out while it changed"
    longest = max(later - earlier for earlier, later in zip([started, *times], [*times, ended], strict=True))
    assert longest < DEBOUNCE_MAX_MS / 1000 + 0.5
    assert len(times) < writes / 4  # debounced at all
    follower.wait_in_step()


def test_a_burst_of_writes_to_one_file_is_handed_out_once(root: Path, follow: Follow) -> None:
    follower = follow(root)
    for n in range(20):
        (root / "a.md").write_text("x" * n)
    follower.wait_in_step()
    wait_until(lambda: follower.watcher.quiet, "quiet", timeout_s=5)
    assert 1 <= sum(b"a.md" in dirty.paths for _, dirty in follower.handed) <= 3


#: far longer than a test waits for what should come at once
LONG_MS = 4_000


def save_in_place(path: Path) -> None:
    path.write_text("saved")


def save_by_rename(path: Path) -> None:
    temporary = path.with_name("a.md.tmp")
    temporary.write_text("saved")
    temporary.replace(path)


@pytest.mark.parametrize("save", [save_in_place, save_by_rename])
def test_a_saved_file_is_handed_out_at_once_and_the_next_save_right_after_it_waits(
    root: Path, follow: Follow, save: Callable[[Path], None]
) -> None:
    (root / "a.md").write_text("old")
    follower = follow(root, LONG_MS)
    save(root / "a.md")
    wait_until(lambda: b"a.md" in follower.dirty, "the saved file is handed out", timeout_s=LONG_MS / 2000)
    follower.handed.clear()
    save(root / "a.md")
    threading.Event().wait(0.3)
    assert b"a.md" not in follower.dirty


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.rename(path.with_name("b.md")),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.write_text("anew")),
        lambda path: path.with_name("new.md").write_text("new"),
    ],
    ids=["renamed", "removed", "removed and written anew", "made"],
)
def test_what_may_be_half_of_a_change_waits_for_the_other_half(
    root: Path, follow: Follow, change: Callable[[Path], object]
) -> None:
    (root / "a.md").write_text("old")
    follower = follow(root, LONG_MS)
    change(root / "a.md")
    threading.Event().wait(0.3)
    assert follower.dirty == set()


@pytest.mark.parametrize("how", ["moved away", "removed"])
def test_a_root_that_is_replaced_is_watched_anew_and_scanned(
    root: Path, follow: Follow, tmp_path: Path, how: str
) -> None:
    (root / "old.md").write_text("old")
    follower = follow(root)
    # When another directory takes the root's place
    if how == "moved away":
        root.rename(tmp_path / "away")
    else:
        shutil.rmtree(root)
    root.mkdir()
    (root / "new.md").write_text("new one")
    # Then a scan is asked for, which finds what is there now
    wait_until(lambda: follower.files == {b"new.md": 7}, "the new root is scanned", timeout_s=10)
    wait_until(lambda: follower.rescans, "a rescan", timeout_s=10)
    # And later changes are seen
    (root / "later.md").write_text("later")
    follower.wait_in_step()
    (tmp_path / "away").mkdir(exist_ok=True)
    handed = len(follower.handed)
    (tmp_path / "away" / "not ours.md").write_text("x")
    (root / "last.md").write_text("last")
    follower.wait_in_step()
    assert len(follower.handed) > handed
    assert b"not ours.md" not in follower.dirty


def test_a_root_that_is_away_for_a_while_is_watched_again_when_it_is_back(
    root: Path, follow: Follow, tmp_path: Path
) -> None:
    follower = follow(root)
    root.rename(tmp_path / "away")
    wait_until(lambda: not root.exists(), "the root is away", timeout_s=1)
    threading.Event().wait(1.5)  # longer than the watcher's own examination
    (tmp_path / "away" / "meanwhile.md").write_text("x")
    (tmp_path / "away").rename(root)
    (root / "later.md").write_text("later")
    follower.wait_in_step()


def test_a_watch_whose_reader_has_died_is_noticed_and_made_anew(
    root: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(root)
    (root / "before.md").write_text("x")
    follower.wait_in_step()
    # When an error ends the one thread of watchdog that reads the kernel's events
    died = threading.Event()

    def fails(*_: object) -> None:
        died.set()
        raise RuntimeError("an error inside of watchdog")

    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        patch.setattr(InotifyFD, "handle_event", fails)
        (root / "lost.md").write_text("x")
        assert died.wait(5)
        wait_until(lambda: not any(type(t) is InotifyFD for t in threading.enumerate()), "it has ended", timeout_s=5)
    # Then a scan is asked for, and later changes are seen
    try:
        wait_until(lambda: follower.rescans, "a rescan", timeout_s=5)
        follower.wait_in_step()
        (root / "after.md").write_text("x")
        follower.wait_in_step()
    finally:
        if InotifyFD._instance is not None and not InotifyFD._instance.is_alive():
            InotifyFD._instance = None  # the other tests want a live one


#: more events than the kernel keeps for one reader (fs.inotify.max_queued_events is 16384 by default)
_STORM = """
import os, sys
os.chdir(sys.argv[1])
for n in range(int(sys.argv[2])):
    os.rename("a", "b")
    os.rename("b", "a")
os.rename("a", "survivor.md")
"""


def run_while_nobody_listens(program: str, *arguments: object) -> None:
    """Another process does it while this one's interpreter stands still, so that its events are read afterwards."""
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)])
    holds_the_lock = ctypes.PyDLL(None)
    status = ctypes.create_string_buffer(256)
    holds_the_lock.waitid(1, process.pid, status, 4 | 0x01000000)  # P_PID, WEXITED | WNOWAIT
    assert process.wait(timeout=5) == 0


def test_an_overflow_of_the_kernels_queue_asks_for_a_scan(root: Path, follow: Follow) -> None:
    try:
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    except OSError:
        pytest.skip("this kernel has no inotify")
    if limit > 100_000:
        pytest.skip(f"the kernel keeps {limit} events: too many to overflow in a test")
    (root / "a").write_text("x")
    follower = follow(root)
    # Given a reader that cannot run: the interpreter's lock is held while another process makes the events
    rounds = limit // 4 + 500
    run_while_nobody_listens(_STORM, root, str(rounds))
    # Then events are lost, and that is noticed
    wait_until(lambda: any("overflow" in reason for reason in follower.rescans), "the overflow", timeout_s=10)
    follower.wait_in_step()
    assert list(follower.files) == [b"survivor.md"]


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "nowhere", DEBOUNCE_MS, DEBOUNCE_MAX_MS)
    with pytest.raises(OSError, match="No such file"):
        watcher.start()
    watcher.stop()


def test_stopping_gives_all_watches_back(root: Path) -> None:
    for n in range(5):
        (root / f"{n}").mkdir()
    before = watch_count()
    watcher = Watcher(root, DEBOUNCE_MS, DEBOUNCE_MAX_MS)
    watcher.start()
    wait_until(lambda: watch_count() == before + 6, "a watch for each directory", timeout_s=5)
    watcher.stop()
    watcher.stop()
    wait_until(lambda: watch_count() == before, "no watch is left", timeout_s=5)


def test_a_watch_that_hears_is_left_alone_and_leaves_no_file(root: Path) -> None:
    watcher = Watcher(root, DEBOUNCE_MS, DEBOUNCE_MAX_MS, heartbeat_s=0.5)
    watcher.start()
    follower = Follower(root, watcher)
    follower.thread.start()
    time.sleep(3.5)
    watcher.stop()
    follower.thread.join(10)
    assert watcher._marks.heard_at > 0
    assert follower.handed == []
    assert os.listdir(root) == []


def test_a_watch_that_is_deaf_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a watch whose kernel side is gone without a word
    monkeypatch.setattr("producer.watcher._HEARTBEAT_ANSWER_S", 1.0)
    watcher = Watcher(root, DEBOUNCE_MS, DEBOUNCE_MAX_MS, heartbeat_s=0.5)
    watcher.start()
    follower = Follower(root, watcher)
    follower.thread.start()
    assert watcher._observer is not None
    [emitter] = watcher._observer.emitters
    inotify = emitter._inotify  # type: ignore[attr-defined]  # watchdog's own
    monkeypatch.setattr(type(inotify), "on_event", lambda *_: None)
    # When its heartbeat does not come back
    wait_until(lambda: follower.rescans, "a rescan", timeout_s=10)
    monkeypatch.undo()
    # Then a scan is asked for
    assert follower.rescans[0] == "the watch does not answer"
    watcher.stop()
    follower.thread.join(10)


def test_a_folder_that_may_not_be_written_has_no_heartbeat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / os.fsdecode(HEARTBEAT_FILE)).mkdir()  # a directory in its place: opening it for writing fails
    watcher = Watcher(root, DEBOUNCE_MS, DEBOUNCE_MAX_MS, heartbeat_s=0.1)
    assert watcher._touch_heartbeat() is False


def test_it_knows_which_directories_are_watched(root: Path) -> None:
    (root / "inner").mkdir()
    watcher = Watcher(root, DEBOUNCE_MS, DEBOUNCE_MAX_MS)
    assert watcher.unwatched([b""]) == [b""]
    watcher.start()
    assert watcher.unwatched([b"", b"inner", b"other"]) == [b"other"]
    watcher.stop()
    assert watcher.unwatched([b"inner"]) == [b"inner"]


def test_a_directory_that_lost_its_watch_by_renames_is_noticed_and_watched_again(root: Path, follow: Follow) -> None:
    # Given a directory that is made and renamed, and another one of its name, before the first event is read
    follower = follow(root)
    program = "import os, sys; os.chdir(sys.argv[1]); os.mkdir('a'); os.rename('a', 'b'); os.mkdir('a')"
    run_while_nobody_listens(program, root)
    wait_until(lambda: {b"a", b"b"} <= follower.dirty, "both are seen", timeout_s=5)
    # Then watchdog has one watch for both names, which is known
    assert follower.watcher.unwatched([b"", b"a", b"b"]) == [b"b"]
    # When all is watched anew
    follower.watcher.renew()
    wait_until(lambda: follower.rescans, "a rescan", timeout_s=5)
    # Then nothing is deaf any more
    assert follower.watcher.unwatched([b"", b"a", b"b"]) == []
    (root / "b" / "late.md").write_text("x")
    follower.wait_in_step()
