"""Which paths are documents."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from headwater.errors import SettingsError
from producer.rules import Rules


def rules(root: Path, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Rules:
    return Rules(os.fsencode(root), include, exclude)


def write(root: Path, **files: str) -> None:
    """``ignore`` is the ignore file of the root, ``a_b_ignore`` that of a/b."""
    for name, text in files.items():
        directory = root.joinpath(*name.split("_")[:-1])
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".gitignore").write_text(text, "utf-8")


@pytest.mark.parametrize(
    "path",
    [
        b".env", b".env.local", b".git/config", b"a/.git/config", b".ssh/id_rsa", b".headwater.tmp", b"a/.hidden/b.md",
        b"node_modules/x/readme.md", b"a/node_modules/x.md", b"__pycache__/a.txt", b"a.pyc",
        b"notes.md~", b"#notes.md#", b".notes.md.swp", b"notes.md.swp", b"4913", b"a/4913", b"a.md___jb_tmp___",
        b"~$report.docx", b"a.tmp", b"a.part", b"a.crdownload", b".goutputstream-ABC123", b"x.goutputstream-1",
        b"server.pem", b"server.key", b"a/b.p12", b"keys.kdbx", b"id_rsa", b"id_ed25519.pub", b"a/id_ecdsa",
    ],
)  # fmt: skip
def test_secrets_and_temporary_files_are_never_documents(tmp_path: Path, path: bytes) -> None:
    assert not rules(tmp_path).admits(path)
    assert not rules(tmp_path, include=("*", "!x")).admits(path)


@pytest.mark.parametrize(
    "path",
    [
        b"a", b"a.md", b"a/b/c.txt", b"environment.md", b"git/config", b"a b.md", b"monkey.md", b"key", b"#1.md",
        b"a#", b"temp/notes.md", b"4913.md", b"my_node_modules/a", b"node_modules", b"caf\xc3\xa9.md", b"\xff\xfe.txt",
        b"new\nline.md", b"[a].md", b"!a.md",
    ],
)  # fmt: skip
def test_ordinary_names_are_documents(tmp_path: Path, path: bytes) -> None:
    assert rules(tmp_path).admits(path)


@pytest.mark.parametrize("name", [".gitignore", ".headwaterignore"])
def test_an_ignore_file_keeps_documents_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("*.log\n# a comment\n\n/top.md\nbuild/\n\\#odd\ntrailing.md   \n")
    asked = rules(tmp_path)
    out = (b"a.log", b"x/a.log", b"top.md", b"build/a.md", b"x/build/a.md", b"#odd", b"trailing.md")
    assert [path for path in out if asked.admits(path)] == []
    assert [path for path in (b"a.md", b"x/top.md", b"build", b"a comment") if not asked.admits(path)] == []


def test_a_later_line_takes_back_what_an_earlier_one_kept_out(tmp_path: Path) -> None:
    write(tmp_path, ignore="*.log\n!keep.log\n")
    assert rules(tmp_path).admits(b"keep.log")
    assert not rules(tmp_path).admits(b"other.log")


def test_nothing_inside_an_excluded_directory_is_taken_in_again(tmp_path: Path) -> None:
    write(tmp_path, ignore="build/\n!build/keep.md\n", build_ignore="!keep.md\n")
    assert not rules(tmp_path).admits(b"build/keep.md")


def test_a_directory_whose_contents_are_excluded_can_take_some_in_again(tmp_path: Path) -> None:
    write(tmp_path, ignore="build/*\n!build/keep.md\n")
    assert rules(tmp_path).admits(b"build/keep.md")
    assert not rules(tmp_path).admits(b"build/other.md")


def test_a_deeper_ignore_file_wins_over_a_shallower_one(tmp_path: Path) -> None:
    write(tmp_path, ignore="*.md\n", a_ignore="!*.md\n", a_b_ignore="secret.md\n")
    asked = rules(tmp_path)
    admitted = {path: asked.admits(path) for path in (b"x.md", b"a/x.md", b"a/b/x.md", b"a/b/secret.md")}
    assert admitted == {b"x.md": False, b"a/x.md": True, b"a/b/x.md": True, b"a/b/secret.md": False}


def test_a_slash_anchors_a_pattern_to_the_directory_of_its_file(tmp_path: Path) -> None:
    write(tmp_path, a_ignore="/x.md\nsub/y.md\n")
    asked = rules(tmp_path)
    assert not asked.admits(b"a/x.md")
    assert not asked.admits(b"a/sub/y.md")
    assert asked.admits(b"a/sub/x.md")
    assert asked.admits(b"x.md")
    assert asked.admits(b"a/deep/sub/y.md")


def test_our_own_ignore_file_wins_over_that_of_git_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("docs/\n*.txt\n")
    (tmp_path / ".headwaterignore").write_text("!docs/\nsecret.md\n")
    asked = rules(tmp_path)
    assert asked.admits(b"docs/a.md")
    assert not asked.admits(b"a.txt")
    assert not asked.admits(b"secret.md")


def test_an_ignore_file_cannot_take_in_what_is_always_denied(tmp_path: Path) -> None:
    write(tmp_path, ignore="!.env\n!*.pem\n!node_modules/\n")
    asked = rules(tmp_path)
    assert not any(asked.admits(path) for path in (b".env", b"a.pem", b"node_modules/a.md"))


def test_include_keeps_all_other_files_out_and_lets_directories_be_entered(tmp_path: Path) -> None:
    asked = rules(tmp_path, include=("*.md", "/guide/"))
    assert asked.admits(b"a.md")
    assert asked.admits(b"x/y/a.md")
    assert asked.admits(b"guide/picture.pdf")
    assert not asked.admits(b"a.txt")
    assert asked.admits_directory(b"x/y")


def test_exclude_wins_over_include(tmp_path: Path) -> None:
    asked = rules(tmp_path, include=("*.md",), exclude=("drafts/", "old-*"))
    assert asked.admits(b"a.md")
    assert not asked.admits(b"drafts/a.md")
    assert not asked.admits(b"x/old-a.md")
    assert not asked.admits_directory(b"drafts")


def test_the_state_directory_inside_the_folder_is_never_entered(tmp_path: Path) -> None:
    asked = Rules(os.fsencode(tmp_path), denied_directories=frozenset({os.fsencode(tmp_path / "state")}))
    assert not asked.admits_directory(b"state")
    assert not asked.admits(b"state/logs/a.txt")
    assert asked.admits(b"x/state/a.txt")


def test_ignore_files_are_read_again_after_forget_only(tmp_path: Path) -> None:
    asked = rules(tmp_path)
    assert asked.admits(b"a.md")
    write(tmp_path, ignore="a.md\n")
    assert asked.admits(b"a.md")
    asked.forget()
    assert not asked.admits(b"a.md")


def test_names_that_are_not_utf8_match_as_they_are(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff*.md\n")
    asked = rules(tmp_path)
    assert not asked.admits(b"\xffa.md")
    assert asked.admits(b"\xfea.md")


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbffirst.md\r\nsecond.md\r\n")
    asked = rules(tmp_path)
    assert not asked.admits(b"second.md")
    assert not asked.admits(b"first.md")


@pytest.mark.parametrize("line", ["!", "\\", "broken\\", "[z-a]"])
def test_a_line_that_is_no_pattern_leaves_the_other_lines_in_force(tmp_path: Path, line: str) -> None:
    # git takes such a line as matching nothing: one repository's slip must not stop the whole service
    write(tmp_path, ignore=f"a.md\n{line}\nb.md\n")
    asked = rules(tmp_path)
    assert not asked.admits(b"a.md")
    assert not asked.admits(b"b.md")
    assert asked.admits(b"c.md")


@pytest.mark.parametrize("pattern", ["!", "[z-a]"])
def test_a_setting_that_is_no_pattern_is_an_error_that_names_it(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SettingsError, match="include"):
        rules(tmp_path, include=(pattern,))
    with pytest.raises(SettingsError, match="exclude"):
        rules(tmp_path, exclude=(pattern,))


def test_a_directory_named_like_an_ignore_file_holds_no_rules(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").mkdir()
    assert rules(tmp_path).admits(b"a.md")


def test_an_ignore_file_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".gitignore")
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(rules(tmp_path).admits(b"a.md")), daemon=True)
    thread.start()
    thread.join(timeout=2)
    if thread.is_alive():  # let it go, so that the thread does not stay
        os.close(os.open(tmp_path / ".gitignore", os.O_WRONLY | os.O_NONBLOCK))
        thread.join(timeout=2)
        pytest.fail("a pipe named .gitignore blocks whoever reads the rules")
    assert answers == [True]


def test_an_ignore_file_that_is_a_broken_link_or_a_loop_holds_no_rules(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").symlink_to("nowhere")
    (tmp_path / ".headwaterignore").symlink_to(".headwaterignore")
    assert rules(tmp_path).admits(b"a.md")
