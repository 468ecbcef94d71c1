"""Which path in the folder a person means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.errors import QueryError
from headwater.verbs.place import path_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path)) / "folder"
    (folder / "sub").mkdir(parents=True)
    return folder


def inside(text: str, folder: Path, cwd: Path, *known: bytes) -> bytes:
    return path_inside(text, folder, cwd, lambda path: path in known)


def test_a_path_is_seen_from_the_working_directory_first(folder: Path) -> None:
    assert inside("a.md", folder, folder / "sub", b"sub/a.md", b"a.md") == b"sub/a.md"
    assert inside("../a.md", folder, folder / "sub", b"a.md") == b"a.md"
    assert inside("folder/a.md", folder, folder.parent, b"a.md") == b"a.md"


def test_else_it_is_a_path_in_the_folder(folder: Path) -> None:
    assert inside("a.md", folder, folder / "sub", b"a.md") == b"a.md"
    assert inside("sub/a.md", folder, Path("/"), b"sub/a.md") == b"sub/a.md"
    assert inside("nobody.md", folder, Path("/")) == b"nobody.md"


def test_an_absolute_path_may_reach_the_folder_by_another_name(folder: Path) -> None:
    (folder.parent / "alias").symlink_to(folder)
    assert inside(str(folder / "a.md"), folder, Path("/")) == b"a.md"
    assert inside(str(folder.parent / "alias" / "sub" / "a.md"), folder, Path("/")) == b"sub/a.md"


def test_a_link_in_the_folder_stays_itself(folder: Path) -> None:
    (folder / "link.md").symlink_to("/etc/hostname")
    assert inside(str(folder / "link.md"), folder, Path("/"), b"link.md") == b"link.md"


def test_the_folder_itself_is_the_empty_path(folder: Path) -> None:
    assert inside(".", folder, folder, b"") == b""
    assert inside(str(folder), folder, Path("/"), b"") == b""


def test_a_name_that_is_not_utf8_is_found_by_the_form_that_is_shown(folder: Path) -> None:
    assert inside("caf%E9.md", folder, Path("/"), b"caf\xe9.md") == b"caf\xe9.md"
    assert inside("100%25.md", folder, Path("/"), b"100%25.md", b"100%.md") == b"100%25.md"


@pytest.mark.parametrize("text", ["/etc/passwd", "../outside.md", "../folder2/a.md"])
def test_a_path_outside_is_a_sentence(folder: Path, text: str) -> None:
    with pytest.raises(QueryError, match="does not lie in the folder"):
        inside(text, folder, folder)
