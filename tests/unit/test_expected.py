"""What a producer expects of workers, and what hinders them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.expected import Expected, SeenFile, differences
from headwater.messages import Hindered
from headwater.settings import Settings
from producer.hindrances import Hindrances
from producer.indexcheck import IndexCheck


def seen(root: Path) -> tuple[SeenFile, ...]:
    stats = {os.fsencode(path.name): path.stat() for path in sorted(root.iterdir())}
    return tuple(SeenFile(name, status.st_size, status.st_mtime_ns) for name, status in stats.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for name in ("a.md", "b.md"):
        (made / name).write_text(name)
    return made


def test_what_is_expected_comes_back_as_it_went_and_nothing_is_expected_of_garbage() -> None:
    expected = Expected("p", {"model": '"m"'}, (SeenFile(b"\xff/a b", 1, -5),))
    assert Expected.from_json(expected.to_json()) == expected
    for text in ("", "{}", "[]", '{"pipeline": 1, "parts": [], "files": []}', '{"pipeline": "", "parts": {}}'):
        assert Expected.from_json(text) is None


def test_the_producers_folder_is_known_by_any_of_its_files(folder: Path) -> None:
    expected = Expected("p", {}, seen(folder))
    assert expected.missing(folder) is None
    (folder / "a.md").unlink()  # deleted just now
    (folder / "b.md").write_text("edited just now")
    os.utime(folder / "b.md", (4_000_000_000, 4_000_000_000))
    assert expected.missing(folder) is None
    os.utime(folder / "b.md", (1_000_000_000, 1_000_000_000))
    assert "another version" in str(expected.missing(folder)) or "a.md" in str(expected.missing(folder))


def test_an_empty_a_missing_and_another_folder_are_told_apart(folder: Path, tmp_path: Path) -> None:
    expected = Expected("p", {}, seen(folder))
    other = tmp_path / "other"
    assert "cannot be opened" in str(expected.missing(other))
    other.mkdir()
    assert "is empty" in str(expected.missing(other))
    (other / "c.md").write_text("c")
    assert "is another one" in str(expected.missing(other))
    assert Expected("p").missing(other) is None, "a producer without files cannot be told from another"


def test_a_time_that_a_file_system_rounded_is_the_same(folder: Path) -> None:
    files = tuple(SeenFile(file.path, file.size, file.mtime_ns + 1_500_000_000) for file in seen(folder))
    assert Expected("p", {}, files).missing(folder) is None


def test_settings_that_differ_are_named_with_both_values() -> None:
    own, other = Settings.read(), Settings.read(chunk_tokens=64, model="b")
    assert differences(own.pipeline_parts(), own.pipeline_parts()) == ""
    told = differences(own.pipeline_parts(), other.pipeline_parts())
    assert "chunk_tokens is 250 there and 64 here" in told and 'model is "all-MiniLM-L6-v2" there and "b" here' in told


@pytest.mark.parametrize(
    "changed", [{"language": "de"}, {"ocr": "eng"}, {"archive_depth": 1}, {"heading_context": True}]
)
def test_parts_differ_whenever_the_fingerprint_does(changed: dict[str, object]) -> None:
    own, other = Settings.read(), Settings.read(**changed)
    assert own.pipeline_fingerprint() != other.pipeline_fingerprint()
    assert own.pipeline_parts() != other.pipeline_parts()


def test_what_workers_tell_is_forgotten_when_they_tell_it_no_more() -> None:
    now = 0.0
    known = Hindrances(lambda: now)
    known.hear(Hindered("a:1", "host", "a is wrong"))
    known.hear(Hindered("b:1", "host", "b is wrong"))
    known.hear(Hindered("b:1", "qdrant", "no answer"))
    assert known.sentence("host") == "a is wrong (and 1 more workers)" and known.sentence("qdrant") == "no answer"
    known.hear(Hindered("a:1", "host", None))
    assert known.sentence("host") == "b is wrong"
    now = 16.0
    assert known.sentence("host") is None and known.sentence("qdrant") is None


def test_a_document_that_is_not_found_is_asked_for_again_later_and_later() -> None:
    known = Hindrances()
    assert [known.unseen(b"a", "h below /d") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert "a on h below /d" in str(known.sentence("host"))
    known.landed(b"a")
    assert known.sentence("host") is None and known.unseen(b"a", "h") == 1


def test_an_index_is_looked_at_by_the_clock_sooner_after_a_failure_and_not_twice_at_once() -> None:
    now = 0.0
    check = IndexCheck(60, 300, lambda: now)
    assert not check.is_due()
    now = 60.0
    assert check.is_due()
    check.asked()
    now = 130.0
    assert not check.is_due(), "an answer is waited for"
    check.answered()
    assert check.is_due()
    check.asked()
    check.answered()
    check.doubt()
    now += 5.0
    assert check.is_due()


def test_the_same_difference_is_looked_into_once() -> None:
    check = IndexCheck(60, 300)
    assert not check.differs((3, 7), (3, 7))
    assert check.differs((2, 7), (3, 7)) and not check.differs((2, 7), (3, 7))
    assert check.differs((2, 6), (3, 7))
