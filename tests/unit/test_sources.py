"""The files behind the hits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.document import path_to_text, rfc3339
from headwater.sources import Sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "deep").mkdir(parents=True)
    return made


def test_a_text_file_is_read_as_the_worker_reads_it(folder: Path) -> None:
    (folder / "a.md").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (folder / "deep" / "b.txt").write_bytes("Möwen über dem Kai, und Fähren auf der Förde.".encode("utf-16"))
    sources = Sources({"": folder})
    assert sources.text("a.md") == "one\r\ntwo\r\n"
    assert sources.text("deep/b.txt") == "Möwen über dem Kai, und Fähren auf der Förde."


def test_what_is_not_there_or_no_text_has_none(folder: Path) -> None:
    (folder / "binary").write_bytes(bytes(range(256)) * 10)
    (folder / "large.md").write_text("x" * 100)
    sources = Sources({"": folder}, most_bytes=99)
    for path in ("gone.md", "deep", "binary", "large.md", "", "a\0b"):
        assert sources.text(path) is None, path
    assert sources.modified("gone.md") is None


def test_nothing_outside_of_the_folder_is_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("secret")
    (folder / "link.md").symlink_to(secret)
    sources = Sources({"": folder})
    for path in ("../secret.md", str(secret), "link.md", "deep/../../secret.md", "%2E%2E/secret.md"):
        assert sources.text(path) is None, path
        assert sources.modified(path) is None, path


def test_a_name_that_is_not_utf_8_is_found_by_the_form_that_a_hit_shows(folder: Path) -> None:
    name = b"caf\xe9.md"
    (folder / os.fsdecode(name)).write_text("coffee")
    (folder / "100%41.md").write_text("percent")
    sources = Sources({"": folder})
    assert sources.text(path_to_text(name)) == "coffee"
    assert sources.text("100%41.md") == "percent"


def test_the_time_is_that_of_the_file_as_the_index_notes_it(folder: Path) -> None:
    path = folder / "a.md"
    path.write_text("x")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert Sources({"": folder}).modified("a.md") == rfc3339(1_700_000_000_123_456_789)
