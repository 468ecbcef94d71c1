"""The extraction children: real processes, hostile documents, and what the pool makes of their deaths."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import pids_with, wait_until

import worker
from headwater.document import text_hash
from headwater.embedder import Embedder
from worker.sandboxes import ExtractionFailed, ExtractionRefused, SandboxPool, _environment

#: Python runs a module of this name at the start of each child; it puts hostile behaviour in place of the reader,
#: chosen by the document's name. All else in the child is the real thing.
_SITECUSTOMIZE = """
import ctypes, os, resource, signal, socket, sys, time
import worker.extract
real = worker.extract.read


def spin():
    while True:
        pass


def eat():
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def sleep_through_alarms():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(3600)


def connect(port):
    with socket.socket() as client:
        client.settimeout(5)
        try:
            client.connect(("127.0.0.1", port))
        except OSError as error:
            return f"not connected: {error}"
    return "connected"


def limits():
    names = ("AS", "CORE", "NOFILE", "FSIZE", "CPU")
    return " ".join(f"{name}={resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0]}" for name in names)


def talk():
    print("this must not reach the answers", flush=True)
    os.write(1, b"nor this")
    return "quiet"


DEATHS = {
    "spin": spin,
    "sleep": lambda: time.sleep(3600),
    "deaf": sleep_through_alarms,
    "eat": eat,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "bug": lambda: {}["a bug of ours"],
}
WORDS = {
    "limits": limits,
    "environment": lambda: "\\n".join(sorted(f"{k}={v}" for k, v in os.environ.items())),
    "where": lambda: f"{os.getpid()} {os.getcwd()} {os.stat('.').st_mode & 0o777:o}",
    "talk": talk,
    "doze": lambda: time.sleep(0.6) or "awake",
}


def read(data, name, **options):
    verb = os.path.basename(name).removesuffix(".txt")
    if verb in DEATHS:
        DEATHS[verb]()
    if verb in WORDS:
        return worker.extract.Extracted("text", WORDS[verb]())
    if verb == "connect":
        return worker.extract.Extracted("text", connect(int(data)))
    return real(data, name, **options)


worker.extract.read = read
"""
MEMORY = 1024**3
TIMEOUT_S = 1.0

MakePool = Callable[..., SandboxPool]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the children's PYTHONPATH that makes some documents hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    root = str(Path(worker.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), root]))
        patch.setenv("QDRANT_API_KEY", "a-secret")
        patch.setenv("HEADWATER_ANYTHING", "a-secret")
        yield folder


@pytest.fixture(scope="module")
def make_pool(hostile: Path, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakePool]:
    made: list[SandboxPool] = []

    def make(timeout_s: float = TIMEOUT_S, size: int = 1) -> SandboxPool:
        homes = tmp_path_factory.mktemp("homes") / "sandbox"
        tokenizer = embedder.tokenizer_json
        pool = SandboxPool(tokenizer, homes=homes, max_tokens=32, timeout_s=timeout_s, memory_bytes=MEMORY, size=size)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def pool(make_pool: MakePool) -> SandboxPool:
    """One child at a time, with a second for each document."""
    return make_pool()


def read(pool: SandboxPool, verb: str, data: bytes = b"-") -> str:
    return "\n".join(chunk.text for chunk in pool.extract(f"{verb}.txt", data).chunks)


def test_a_document_comes_back_as_chunks_of_its_own_text(pool: SandboxPool, embedder: Embedder) -> None:
    text = "# Title\n\n" + "\n\n".join(f"Paragraph {n} says something of its own." for n in range(30))
    found = pool.extract("a.md", text.encode())
    assert (found.kind, found.title, found.partial) == ("markdown", "Title", None)
    assert [chunk.number for chunk in found.chunks] == list(range(len(found.chunks)))
    assert len(found.chunks) > 3
    for chunk in found.chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text_hash == text_hash(chunk.text)
        assert embedder.count_tokens(chunk.text) <= 32
    assert "".join("".join(chunk.text for chunk in found.chunks).split()) == "".join(text.split())


def test_what_is_no_document_is_refused_and_the_child_lives_on(pool: SandboxPool) -> None:
    before = read(pool, "where")
    with pytest.raises(ExtractionRefused, match="empty"):
        pool.extract("a.txt", b"  \n")
    with pytest.raises(ExtractionRefused):
        pool.extract("a.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    assert read(pool, "where") == before


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("spin", "took longer than it is allowed|used more processor time"),
        ("sleep", "took longer than it is allowed"),
        ("deaf", "took longer than 1 s"),
        ("segfault", r"crashed \(segmentation fault\)"),
        ("abort", r"crashed \(abort\)"),
        ("exit", r"ended by itself \(status 3\)"),
        ("kill", "was killed"),
        ("bug", "failed: KeyError"),
    ],
)
def test_a_document_that_ends_its_child_fails_with_the_reason_and_the_next_one_is_read(
    pool: SandboxPool, verb: str, reason: str
) -> None:
    started = time.monotonic()
    with pytest.raises(ExtractionFailed, match=f"^the extraction ({reason})"):
        pool.extract(f"{verb}.txt", b"-")
    assert time.monotonic() - started < 10
    assert read(pool, "next", b"good words") == "good words"


def test_a_document_that_eats_memory_fails_and_the_next_one_is_read(make_pool: MakePool) -> None:
    pool = make_pool(timeout_s=20.0)
    with pytest.raises(ExtractionFailed, match=r"needs more memory than it is allowed|was killed"):
        pool.extract("eat.txt", b"-")
    assert read(pool, "next", b"good words") == "good words"


def test_each_child_has_its_limits(pool: SandboxPool) -> None:
    found = dict(pair.split("=") for pair in read(pool, "limits").split())
    assert int(found["AS"]) == MEMORY
    assert int(found["CORE"]) == 0
    assert 0 < int(found["NOFILE"]) <= 64
    assert 0 < int(found["FSIZE"]) <= 64 * 1024**2
    assert 1 <= int(found["CPU"]) < 60


def test_a_child_works_in_a_private_home_of_its_own(pool: SandboxPool) -> None:
    pid, home, mode = read(pool, "where").split()
    assert mode == "700"
    assert Path(home).parent.name == "sandbox"
    assert int(pid) != os.getpid()


def test_a_child_sees_nothing_of_our_environment(pool: SandboxPool) -> None:
    found = read(pool, "environment")
    assert "PATH=" in found  # it does see what Python needs
    assert "QDRANT" not in found
    assert "secret" not in found


def test_a_child_has_one_thread_until_it_is_confined() -> None:
    """Another one would stay outside of its filter, and keep it from making a user namespace."""
    code = "import os, worker.sandbox; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def packed(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, f"The words of {name}.")
    return file.getvalue()


def test_files_in_an_archive_come_back_as_documents_of_their_own(pool: SandboxPool) -> None:
    found = pool.extract("a.zip", packed("one.txt", "two.md"))
    assert [(member.name, member.kind) for member in found.members] == [("one.txt", "text"), ("two.md", "markdown")]
    assert [(chunk.number, chunk.member, chunk.start_line) for chunk in found.chunks] == [(0, 0, 1), (1, 1, 1)]
    assert (found.kind, found.partial, found.unread) == ("zip", None, ())


@pytest.mark.parametrize("verb", ["segfault", "eat", "bug"])
def test_a_file_in_an_archive_that_ends_its_child_costs_only_itself(pool: SandboxPool, verb: str) -> None:
    found = pool.extract("a.zip", packed("one.txt", f"{verb}.txt", "two.txt"))
    assert [member.name for member in found.members] == ["one.txt", "two.txt"]
    assert len(found.unread) == 1 and found.unread[0].startswith(f"{verb}.txt: the extraction ")
    assert found.partial is not None and found.partial.startswith(f"{verb}.txt within it: ")


def test_an_archive_of_which_file_after_file_ends_its_child_fails(pool: SandboxPool) -> None:
    deadly = packed("segfault.txt", "abort.txt", "exit.txt", "kill.txt", "one.txt")
    with pytest.raises(ExtractionFailed, match=r"^kill\.txt within it: "):
        pool.extract("a.zip", deadly)


def test_each_file_in_an_archive_has_the_time_of_a_document(pool: SandboxPool) -> None:
    """Four of them take 0.6 s each where a document has one second."""
    found = pool.extract("a.zip", packed(*(f"{number}/doze.txt" for number in range(4))))
    assert len(found.members) == 4 and found.unread == ()


def test_what_a_library_prints_does_not_reach_the_answers(pool: SandboxPool) -> None:
    assert read(pool, "talk") == "quiet"
    assert read(pool, "next", b"good words") == "good words"


def _may_leave_the_network() -> bool:
    """Whether this kernel lets a process make a network namespace, asked in a process of its own."""
    code = "import ctypes; l = ctypes.CDLL(None); raise SystemExit(l.unshare(0x40000000) and l.unshare(0x50000000))"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_child_reaches_no_network(pool: SandboxPool) -> None:
    if not _may_leave_the_network():
        pytest.skip("this kernel does not let a process make a network namespace")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass  # we reach it
        assert read(pool, "connect", str(port).encode()).startswith("not connected")


def test_a_pool_of_two_reads_two_documents_at_once(make_pool: MakePool) -> None:
    pool = make_pool(timeout_s=20.0, size=2)
    read(pool, "next", b"x")
    failed: list[str] = []

    def blocked() -> None:
        try:
            pool.extract("sleep.txt", b"-")
        except ExtractionFailed as error:
            failed.append(str(error))

    thread = threading.Thread(target=blocked)
    thread.start()
    wait_until(lambda: pool._free.qsize() == 1, "one child is lent", timeout_s=10)
    assert read(pool, "next", b"good words") == "good words"
    assert thread.is_alive()
    pool.close()  # ends the one that sleeps as well
    thread.join(timeout=20)
    assert len(failed) == 1


def test_closing_a_pool_leaves_no_process_and_no_home(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    pid, home, _ = read(pool, "where").split()
    pool.close()
    pool.close()
    assert not Path("/proc", pid).exists()
    assert not Path(home).exists()


_PARENT = """
import queue, sys, threading
from pathlib import Path
from worker.sandboxes import SandboxPool
tokenizer = Path(sys.argv[1]).read_text()
pool = SandboxPool(tokenizer, homes=Path(sys.argv[2]), max_tokens=32, timeout_s=60, memory_bytes=1 << 30, size=2)
pids = queue.Queue()
def where():
    pids.put(pool.extract("where.txt", b"-").chunks[0].text.split()[0])
    pool.extract("sleep.txt", b"-")
threads = [threading.Thread(target=where) for _ in range(2)]
for thread in threads:
    thread.start()
print(pids.get(), pids.get(), flush=True)
"""


def test_no_child_outlives_a_parent_that_was_killed(hostile: Path, embedder: Embedder, tmp_path: Path) -> None:
    # Given a worker with children at work
    (tmp_path / "tokenizer.json").write_text(embedder.tokenizer_json)
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(_PARENT),
        str(tmp_path / "tokenizer.json"),
        str(tmp_path / "h"),
    ]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(set(pids)) == 2
        assert all(Path("/proc", str(pid)).exists() for pid in pids)
        # When it is killed
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        # Then they end by themselves
        alive = lambda: set(pids) & set(pids_with(str(tmp_path)))  # noqa: E731
        wait_until(lambda: not alive(), "the children are gone", timeout_s=15)
    finally:
        parent.kill()
        parent.communicate()
        for pid in pids_with(str(tmp_path)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
