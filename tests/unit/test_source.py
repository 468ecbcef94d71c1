"""Reading a document's bytes without being led astray."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import FolderError
from worker.source import Source, SourceGone, SourceRefused, SourceUnreadable, read_source

LIMIT = 4 * 1024 * 1024


@pytest.fixture(autouse=True)
def files_count_as_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests need not wait for the clock tick after a write; the others say so."""
    monkeypatch.setattr("worker.source._SETTLE_NS", 0)


def read(root: Path, path: bytes, limit: int = LIMIT) -> Source:
    return read_source(os.fsencode(root), path, limit)


def test_a_file_is_read_whole_with_the_stat_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 17)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.bin").write_bytes(data)
    status = (tmp_path / "d/a.bin").stat()
    source = read(tmp_path, b"d/a.bin")
    assert source.data == data
    mark = source.fingerprint
    assert (mark.size, mark.mtime_ns, mark.ctime_ns, mark.inode) == (
        len(data), status.st_mtime_ns, status.st_ctime_ns, status.st_ino,
    )  # fmt: skip


def test_an_empty_file_and_one_whose_name_is_not_utf8_are_read(tmp_path: Path) -> None:
    name = b"\xff\xfe\n.md"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"")
    assert read(tmp_path, name).data == b""


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("secret")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    for path in (b"link", b"loop"):
        with pytest.raises(SourceRefused, match="link"):
            read(tmp_path, path)


def test_nothing_is_read_through_a_linked_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.md").write_text("secret")
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "inside/link").symlink_to(tmp_path / "real")
    for path in (b"link/a.md", b"inside/link/a.md"):
        with pytest.raises((SourceRefused, SourceGone)):
            read(tmp_path, path)


@pytest.mark.parametrize(
    "path",
    [b"../outside", b"d/../../outside", b"d/../a.md", b"/etc/passwd", b"", b".", b"..", b"./a.md", b"d//a.md", b"a.md/",
     b"d/./a.md", b"a\0.md", b"a.md\0"],
)  # fmt: skip
def test_a_path_that_could_leave_the_folder_is_refused(tmp_path: Path, path: bytes) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    for file in (tmp_path / "outside", root / "a.md", root / "d/a.md"):
        file.write_text("x")
    with pytest.raises(SourceRefused, match="folder"):
        read(root, path)


@given(st.binary(max_size=30))
def test_any_path_in_an_empty_folder_is_gone_or_refused(tmp_path_factory: pytest.TempPathFactory, path: bytes) -> None:
    with pytest.raises((SourceGone, SourceRefused)):
        read(tmp_path_factory.getbasetemp(), b"no-such-directory/" + path)


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket", "device"])
def test_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with pytest.raises(SourceRefused, match="not a regular file"):
        read(*((tmp_path, b"odd") if kind != "device" else (Path("/dev"), b"null")))


def test_a_file_up_to_the_limit_is_read_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert len(read(tmp_path, b"a", limit=100).data) == 100
    with pytest.raises(SourceRefused, match="99 bytes"):
        read(tmp_path, b"a", limit=99)


def test_a_file_that_is_not_there_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (b"gone", b"gone/deeper", b"file/inside"):
        with pytest.raises(SourceGone):
            read(tmp_path, path)


def test_a_folder_that_is_not_there_is_no_documents_fault(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="bring it back"):
        read(tmp_path / "gone", b"a.md")


def test_a_name_that_is_too_long_is_unreadable_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises((SourceUnreadable, SourceGone)):
        read(tmp_path, b"x" * 5000)


def test_a_file_that_may_not_be_read_says_so(without_privileges: Path) -> None:
    (without_privileges / "a.md").write_text("x")
    (without_privileges / "a.md").chmod(0)
    with pytest.raises(SourceUnreadable, match="Permission denied"):
        read(without_privileges, b"a.md")


# -- files that change meanwhile -------------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], None]) -> list[int]:
    """Call ``change`` with the number of the read, after each block that is read."""
    reads: list[int] = []
    original = os.read

    def reading(descriptor: int, size: int) -> bytes:
        block = original(descriptor, min(size, 1000))
        reads.append(len(block))
        change(len(reads))
        return block

    monkeypatch.setattr("worker.source.os.read", reading)
    return reads


@pytest.mark.parametrize("size", [500, 1000, 2500])
@pytest.mark.parametrize("new_size", [400, 1000, 2500, 9000])
def test_a_file_that_changes_while_it_is_read_is_never_a_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, new_size: int
) -> None:
    # Given a file of one version only, and a writer that puts another in place during the first blocks
    monkeypatch.setattr("worker.source._SETTLE_NS", 12_000_000)
    path = tmp_path / "a"
    path.write_bytes(b"A" * size)

    def write(number: int) -> None:
        if number <= 2:
            path.write_bytes(bytes([ord("B") + number]) * new_size)

    reads = meanwhile(monkeypatch, write)
    source = read(tmp_path, b"a")
    # Then one version is read, the last one, with its own stat
    assert source.data == path.read_bytes()
    assert len(set(source.data)) == 1
    assert source.fingerprint.size == len(source.data) == new_size
    assert source.fingerprint.mtime_ns == path.stat().st_mtime_ns
    assert len(reads) > 2


def test_a_file_that_is_replaced_while_it_is_read_gives_the_old_or_the_new_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"A" * 5000)

    def replace(number: int) -> None:
        if number == 2:
            (tmp_path / "new").write_bytes(b"B" * 5000)
            os.replace(tmp_path / "new", path)

    meanwhile(monkeypatch, replace)
    assert len(set(read(tmp_path, b"a").data)) == 1


def test_a_file_that_is_cut_short_while_it_is_read_is_never_a_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"A" * 5000)
    meanwhile(monkeypatch, lambda number: os.truncate(path, 1500) if number == 1 else None)
    assert read(tmp_path, b"a").data == b"A" * 1500


def test_a_file_that_never_rests_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"A" * 100)
    meanwhile(monkeypatch, lambda number: path.write_bytes(b"A" * (100 + number)) and None)
    with pytest.raises(SourceUnreadable, match="changes faster"):
        read(tmp_path, b"a")


def test_a_file_that_vanishes_between_two_tries_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"A" * 100)

    def remove(number: int) -> None:
        if number == 1:
            path.write_bytes(b"B" * 50)
            path.unlink()

    meanwhile(monkeypatch, remove)
    with pytest.raises(SourceGone):
        read(tmp_path, b"a")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/a").write_text("x")
    (tmp_path / "d/link").symlink_to("e")
    before = os.listdir("/proc/self/fd")
    for path in (b"d/e/a", b"d/e/gone", b"d/link/a", b"d/link", b"d/e", b"d/gone/a", b"../a"):
        try:
            read(tmp_path, path, limit=0)
        except (SourceGone, SourceRefused, SourceUnreadable):
            continue
    assert os.listdir("/proc/self/fd") == before
