"""With the service running: every way in which people and programs change files shows in the index within 2 s."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Headwater, wait_until
from server_mode import servers_named
from word_embedder import word_environment

from headwater import Index

#: seconds from a change to its place in the answers
_WITHIN_S = 2.0
_WORDS = ("quokka", "numbat", "marzipan", "xylophone", "caipirinha", "bouillabaisse", "pianoforte", "zeppelin")


@pytest.fixture(scope="module", params=["usual"] if servers_named() else ["usual", "servers"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    """A service over a folder with a few documents, in step: with all embedded, and on servers."""
    base = tmp_path_factory.mktemp("live")
    folder = base / "folder"
    folder.mkdir()
    for number in range(5):
        (folder / f"note{number}.md").write_text(f"# Note {number}\n\nPlain words about subject {number}.\n")
    service = Headwater(folder, base / "state")
    if request.param == "servers":
        service.servers = request.getfixturevalue("own_servers").servers
        service.environment = word_environment()
    service.up()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def index(live: Headwater) -> Iterator[Index]:
    with live.open_index() as opened:
        yield opened


def _paths(index: Index, word: str) -> list[str]:
    return sorted({hit.path for hit in index.search(word, mode="sparse") if word in hit.text.lower()})


def _expect(index: Index, word: str, paths: list[str]) -> None:
    wait_until(lambda: _paths(index, word) == paths, f"{word!r} in {paths}: {_paths(index, word)}", _WITHIN_S)


def _embedded(live: Headwater) -> int:
    wait_until(lambda: live.peek()["in_step"], "in step")
    return int(live.status()["embedded_texts_total"])


def test_a_new_file_is_searchable(live: Headwater, index: Index) -> None:
    (live.folder / "created.md").write_text("# New\n\nA quokka was created.\n")
    _expect(index, "quokka", ["created.md"])


def test_an_edit_replaces_the_old_text(live: Headwater, index: Index) -> None:
    path = live.folder / "note1.md"
    path.write_text("# Note 1\n\nNow about a numbat.\n")
    _expect(index, "numbat", ["note1.md"])
    path.write_text("# Note 1\n\nNow about a wombat.\n")
    _expect(index, "wombat", ["note1.md"])
    assert _paths(index, "numbat") == []


def test_appended_text_is_searchable(live: Headwater, index: Index) -> None:
    with open(live.folder / "note2.md", "a") as file:
        file.write("\nMarzipan was appended.\n")
    _expect(index, "marzipan", ["note2.md"])


def test_a_rename_a_copy_and_a_touch_embed_nothing(live: Headwater, index: Index) -> None:
    (live.folder / "first.md").write_text("# First\n\nA xylophone of its own.\n")
    _expect(index, "xylophone", ["first.md"])
    before = _embedded(live)
    (live.folder / "first.md").rename(live.folder / "second.md")
    _expect(index, "xylophone", ["second.md"])
    shutil.copyfile(live.folder / "second.md", live.folder / "third.md")
    _expect(index, "xylophone", ["second.md", "third.md"])
    os.utime(live.folder / "third.md", (1_000_000_000, 1_000_000_000))
    modified = "2001-09-09T01:46:40.000000Z"
    wait_until(
        lambda: modified in {hit.modified_at for hit in index.search("xylophone", mode="sparse")}, "touch", _WITHIN_S
    )
    assert _embedded(live) == before


def test_a_directory_moved_in_is_searchable_and_gone_when_moved_out(
    live: Headwater, index: Index, tmp_path: Path
) -> None:
    outside = tmp_path / "trip"
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "log.md").write_text("A zeppelin lands.\n")
    (outside / "top.txt").write_text("A zeppelin starts.\n")
    inside = live.folder / "trip"
    shutil.move(outside, inside)
    _expect(index, "zeppelin", ["trip/deep/er/log.md", "trip/top.txt"])
    inside.rename(live.folder / "voyage")
    _expect(index, "zeppelin", ["voyage/deep/er/log.md", "voyage/top.txt"])
    shutil.move(live.folder / "voyage", outside)
    _expect(index, "zeppelin", [])


def test_a_deleted_file_is_gone(live: Headwater, index: Index) -> None:
    (live.folder / "doomed.md").write_text("A pianoforte falls.\n")
    _expect(index, "pianoforte", ["doomed.md"])
    (live.folder / "doomed.md").unlink()
    _expect(index, "pianoforte", [])


def test_vim_saves_by_a_backup_and_a_new_file(live: Headwater, index: Index) -> None:
    path, backup = live.folder / "note3.md", live.folder / "note3.md~"
    (live.folder / "4913").write_text("")  # vim's probe whether the directory is writable
    (live.folder / "4913").unlink()
    path.rename(backup)
    path.write_text("# Note 3\n\nvim wrote caipirinha.\n")
    backup.unlink()
    _expect(index, "caipirinha", ["note3.md"])


def test_vs_code_truncates_and_writes_in_place(live: Headwater, index: Index) -> None:
    with open(live.folder / "note3.md", "r+") as file:
        file.truncate(0)
        file.write("# Note 3\n\ncode wrote bouillabaisse.\n")
        file.flush()
        os.fsync(file.fileno())
    _expect(index, "bouillabaisse", ["note3.md"])
    assert _paths(index, "caipirinha") == []


def test_jetbrains_saves_by_two_renames(live: Headwater, index: Index) -> None:
    path = live.folder / "note3.md"
    new, old = live.folder / "note3.md___jb_tmp___", live.folder / "note3.md___jb_old___"
    new.write_text("# Note 3\n\nidea wrote tarantella.\n")
    path.rename(old)
    new.rename(path)
    old.unlink()
    _expect(index, "tarantella", ["note3.md"])
    assert _paths(index, "bouillabaisse") == []


def test_git_checkout_of_another_commit_and_back(live: Headwater, index: Index) -> None:
    repository = live.folder / "repository"
    repository.mkdir()

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True)

    git("init")
    (repository / "kept.md").write_text("The gondola stays.\n")
    (repository / "gone.md").write_text("The gondola goes.\n")
    git("add", ".")
    git("commit", "-m", "one")
    (repository / "gone.md").unlink()
    (repository / "came.md").write_text("The gondola came.\n")
    (repository / "kept.md").write_text("The gondola stays and changes.\n")
    git("add", "-A")
    git("commit", "-m", "two")
    _expect(index, "gondola", ["repository/came.md", "repository/kept.md"])
    git("checkout", "HEAD~1")
    _expect(index, "gondola", ["repository/gone.md", "repository/kept.md"])
    git("checkout", "main")
    _expect(index, "gondola", ["repository/came.md", "repository/kept.md"])
    _expect(index, "changes", ["repository/kept.md"])


def test_an_ignore_file_added_later_removes_what_it_excludes(live: Headwater, index: Index) -> None:
    (live.folder / "drafts").mkdir()
    (live.folder / "drafts" / "a.md").write_text("A secret armadillo.\n")
    _expect(index, "armadillo", ["drafts/a.md"])
    (live.folder / ".gitignore").write_text("drafts/\n")
    _expect(index, "armadillo", [])
    (live.folder / ".gitignore").unlink()
    _expect(index, "armadillo", ["drafts/a.md"])


def test_the_index_holds_the_folder_and_nothing_else(live: Headwater) -> None:
    wait_until(lambda: live.peek()["in_step"], "in step")
    on_disk = {
        str(path.relative_to(live.folder))
        for path in live.folder.rglob("*.*")
        if path.is_file() and ".git" not in path.parts
    }
    points = live.points()
    assert {point["payload"]["path"] for point in points} == on_disk
    chunks = [(p["payload"]["path"], p["payload"]["chunk"]) for p in points if "text" in p["payload"]]
    assert len(chunks) == len(set(chunks)) == live.status()["chunks"]


def test_ctrl_c_drains_and_leaves_no_process(live: Headwater) -> None:
    assert live.stop() == 0
    from driver import pids_with

    assert pids_with(str(live.state)) == {}
