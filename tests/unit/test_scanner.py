"""The folder as it is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import FolderError
from producer.diff import Seen
from producer.rules import Rules
from producer.scanner import Scanner


def scanner(root: Path, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Scanner:
    return Scanner(os.fsencode(root), Rules(os.fsencode(root), include, exclude))


def write(root: Path, *paths: str, text: str = "text") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def below(seen: dict[bytes, Seen], path: bytes) -> dict[bytes, Seen]:
    return {p: entry for p, entry in seen.items() if not path or p == path or p.startswith(path + b"/")}


def test_a_scan_finds_every_document_with_the_stat_of_its_file(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "d/b.md", "d/e/c.md")
    found = scanner(tmp_path).scan()
    assert set(found) == {b"a.md", b"d/b.md", b"d/e/c.md"}
    status = (tmp_path / "d/b.md").stat()
    mark = found[b"d/b.md"].fingerprint
    assert (mark.size, mark.mtime_ns, mark.ctime_ns, mark.inode) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )
    assert all(entry.refusal is None for entry in found.values())


def test_a_scan_counts_the_directories_that_it_visits(tmp_path: Path) -> None:
    write(tmp_path, "a/b/c.md", ".git/x/y", "node_modules/z/a.md")
    asked = scanner(tmp_path)
    asked.scan()
    assert sorted(asked.directories) == [b"", b"a", b"a/b"]
    asked.scan()
    assert sorted(asked.directories) == [b"", b"a", b"a/b"]


def test_secrets_and_ignored_files_are_not_seen(tmp_path: Path) -> None:
    write(tmp_path, "a.md", ".env", ".git/config", "node_modules/a.md", "key.pem", "a.md~", "build/x.md", "x.log")
    write(tmp_path, ".gitignore", text="build/\n*.log\n")
    assert set(scanner(tmp_path).scan()) == {b"a.md"}


def test_an_ignore_file_that_changed_holds_at_the_next_scan(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md")
    asked = scanner(tmp_path)
    assert set(asked.scan()) == {b"a.md", b"b.md"}
    write(tmp_path, ".headwaterignore", text="a.md\n")
    assert set(asked.scan()) == {b"b.md"}


def test_names_that_are_not_utf8_are_seen_as_their_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe.md", b"caf\xe9.md", b"new\nline.md", b" .md"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    assert set(scanner(tmp_path).scan()) == set(names)


def test_links_are_refused_and_never_followed(tmp_path: Path) -> None:
    write(tmp_path, "real/a.md")
    (tmp_path / "file").symlink_to("real/a.md")
    (tmp_path / "directory").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "real/up").symlink_to("..")
    (tmp_path / "broken").symlink_to("nowhere")
    found = scanner(tmp_path).scan()
    links = {b"file", b"directory", b"loop", b"real/up", b"broken"}
    assert set(found) == links | {b"real/a.md"}
    assert {path for path, entry in found.items() if entry.refusal is not None} == links


@pytest.mark.parametrize("path", [b"link/a.md", b"link", b"inside/link/a.md"])
def test_what_lies_behind_a_linked_directory_is_not_there(tmp_path: Path, path: bytes) -> None:
    write(tmp_path, "real/a.md", "inside/x.md")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "inside/link").symlink_to("../real")
    asked = scanner(tmp_path)
    assert asked.look(path) == below(asked.scan(), path)


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    entry = scanner(tmp_path).scan()[b"pipe.md"]
    assert entry.refusal is not None
    assert "pipe" in entry.refusal


def test_the_state_directory_inside_the_folder_is_not_seen(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "state/index/b.md")
    denied = frozenset({os.fsencode(tmp_path / "state")})
    asked = Scanner(os.fsencode(tmp_path), Rules(os.fsencode(tmp_path), denied_directories=denied))
    assert set(asked.scan()) == {b"a.md"}
    assert asked.look(b"state/index/b.md") == {}
    assert asked.look(b"state") == {}


def test_a_folder_that_is_gone_is_an_error_and_not_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="cannot be read"):
        scanner(tmp_path / "gone").scan()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError):
        scanner(tmp_path / "file").scan()


def test_a_path_that_is_gone_shows_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    asked = scanner(tmp_path)
    assert asked.look(b"gone") == {}
    assert asked.look(b"gone/deeper") == {}
    assert asked.look(b"a.md/inside-a-file") == {}


def test_a_directory_that_vanishes_between_listing_and_looking_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "a/x.md", "b/y.md", "c.md")

    class Vanishing(Rules):
        def admits_directory(self, path: bytes) -> bool:
            if path == b"b" and (tmp_path / "b").exists():
                (tmp_path / "b/y.md").unlink()
                (tmp_path / "b").rmdir()
            return super().admits_directory(path)

    root = os.fsencode(tmp_path)
    assert set(Scanner(root, Vanishing(root)).scan()) == {b"a/x.md", b"c.md"}


def test_a_file_that_vanishes_between_listing_and_looking_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md")

    class Vanishing(Rules):
        def admits_file(self, path: bytes) -> bool:
            (tmp_path / "b.md").unlink(missing_ok=True)
            return super().admits_file(path)

    root = os.fsencode(tmp_path)
    assert set(Scanner(root, Vanishing(root)).scan()) == {b"a.md"}


def test_a_directory_that_may_not_be_listed_is_reported_and_remembered(without_privileges: Path) -> None:
    write(without_privileges, "a.md", "closed/b.md")
    (without_privileges / "closed").chmod(0)
    asked = scanner(without_privileges)
    found = asked.scan()
    assert set(found) == {b"a.md", b"closed"}
    assert "cannot be listed" in (found[b"closed"].refusal or "")
    assert asked.closed == {b"closed"}
    # When it can be read again
    (without_privileges / "closed").chmod(0o700)
    assert set(asked.scan()) == {b"a.md", b"closed/b.md"}
    assert asked.closed == set()


@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_closed_directory_stops_neither_the_scan_nor_a_look_below_it(without_privileges: Path, mode: int) -> None:
    write(without_privileges, "a.md", "closed/b.md", "closed/deeper/c.md")
    (without_privileges / "closed").chmod(mode)
    asked = scanner(without_privileges)
    assert b"a.md" in asked.scan()
    for path in (b"closed", b"closed/b.md", b"closed/deeper", b"closed/deeper/c.md"):
        assert b"a.md" not in asked.look(path)


def test_an_ignore_file_that_may_not_be_read_does_not_stop_the_scan_of_other_directories(
    without_privileges: Path,
) -> None:
    write(without_privileges, "a.md", "b/.gitignore", "b/x.md")
    (without_privileges / "b/.gitignore").chmod(0)
    assert b"a.md" in scanner(without_privileges).scan()


def test_a_folder_that_may_not_be_listed_is_an_error(without_privileges: Path) -> None:
    (without_privileges / "folder").mkdir()
    (without_privileges / "folder").chmod(0)
    with pytest.raises(FolderError):
        scanner(without_privileges / "folder").scan()


NAMES = st.sampled_from(["a", "b", ".x", "a.md", "a.log", "build", "k.pem", "a!", "a0"])
TREES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.sampled_from(["file", "directory", "link", "loop"])),
    max_size=8,
)
IGNORES = st.lists(
    st.tuples(
        st.lists(NAMES, max_size=2),
        st.sampled_from([".gitignore", ".headwaterignore"]),
        st.lists(st.sampled_from(["*.log", "!*.log", "build/", "/a", "a/*", "!a.md", "**/b"]), max_size=3),
    ),
    max_size=3,
)


@settings(max_examples=60)
@given(TREES, IGNORES, st.lists(NAMES, max_size=3))
def test_a_look_at_any_path_agrees_with_the_scan(
    tree: list[tuple[list[str], str]], ignores: list[tuple[list[str], str, list[str]]], asked_for: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for parts, kind in tree:
            make(root.joinpath(*parts), kind)
        for parts, name, lines in ignores:
            if root.joinpath(*parts).is_dir():
                root.joinpath(*parts, name).write_text("\n".join(lines))
        asked = scanner(root)
        seen = asked.scan()
        for path in {"/".join(asked_for).encode(), b"", *seen, *(p.split(b"/")[0] for p in seen)}:
            assert asked.look(path) == below(seen, path)


def make(path: Path, kind: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "file":
                path.write_text("x")
            case "directory":
                path.mkdir()
            case "link":
                path.symlink_to("a")
            case "loop":
                path.symlink_to(".")
    except OSError:
        return  # something else is there already
