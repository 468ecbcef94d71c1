"""Which rule decides on a path, said in the same breath as whether it does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.rules import Rules, Verdict

NAMES = st.sampled_from([b"a", b"b.md", b"keep.md", b".env", b"x.tmp", b"state", b"caf\xe9.txt", b"build"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
LINES = st.sampled_from(
    ["", "# remark", "*.md", "!keep.md", "/a", "a/", "!a/", "build/*", "!build/keep.md", "**/b.md", "!", "*", "!*/"]
)
FILES = st.lists(LINES, max_size=5).map("\n".join)
GLOBS = st.lists(st.sampled_from(["*.md", "!keep.md", "/a/", "*.txt", "build", ""]), max_size=3).map(tuple)


def rules(root: Path, **options: tuple[str, ...]) -> Rules:
    denied = frozenset({os.fsencode(root / "state")})
    return Rules(os.fsencode(root), options.get("include", ()), options.get("exclude", ()), denied)


@settings(max_examples=300, deadline=None)
@given(path=PATHS, git=FILES, own=FILES, deep=FILES, include=GLOBS, exclude=GLOBS)
def test_it_says_excluded_exactly_where_the_rules_do(
    path: bytes, git: str, own: str, deep: str, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "a").mkdir()
        (root / ".gitignore").write_text(git)
        (root / ".headwaterignore").write_text(own)
        (root / "a" / ".gitignore").write_text(deep)
        asked = rules(root, include=include, exclude=exclude)
        verdict = asked.explain(path)
        assert verdict.admitted == asked.admits(path)
        assert verdict.admitted or verdict.rule
        above = [b"/".join(path.split(b"/")[:depth]) for depth in range(1, path.count(b"/") + 2)]
        inside = all(asked.admits_directory(part) for part in above)
        assert asked.explain(path, is_directory=True).admitted == inside


def test_the_folder_itself_is_admitted(tmp_path: Path) -> None:
    assert rules(tmp_path, include=("*.md",)).explain(b"", is_directory=True) == Verdict(True, b"")


@pytest.mark.parametrize(
    ("path", "at", "rule"),
    [
        (b".env", b".env", "the default denials: .*"),
        (b"x/node_modules/y.md", b"x/node_modules", "the default denials: node_modules/"),
        (b"state/log.txt", b"state", "the state directory of the index"),
        (b"old/a.md", b"old", "the setting exclude (HEADWATER_EXCLUDE): old/"),
        (b"notes/a.txt", b"notes/a.txt", "the setting include (HEADWATER_INCLUDE): no pattern of it matches (*.md)"),
        (b"secret.md", b"secret.md", ".gitignore:4: secret.*"),
        (b"sub/draft.md", b"sub/draft.md", "sub/.headwaterignore:1: draft*"),
        (b"sub/draft.md/b.md", b"sub/draft.md", "sub/.headwaterignore:1: draft*"),
    ],
)
def test_the_rule_is_named_with_its_place(tmp_path: Path, path: bytes, at: bytes, rule: str) -> None:
    # Given rules of each kind; the lines before the pattern are a remark, an empty one and one that is no pattern
    (tmp_path / ".gitignore").write_text("# remark\n\n!\nsecret.*\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".headwaterignore").write_text("draft*\n")
    asked = rules(tmp_path, include=("*.md",), exclude=("", "old/"))
    assert asked.explain(path) == Verdict(False, at, rule)


def test_a_line_that_takes_a_path_in_again_is_named_as_well(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.md\n!keep.md\n")
    assert rules(tmp_path).explain(b"keep.md") == Verdict(True, b"keep.md", ".gitignore:2: !keep.md")
    assert rules(tmp_path).explain(b"a.txt") == Verdict(True, b"a.txt")


def test_a_pattern_that_is_not_utf8_is_shown_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff*.md\n")
    assert rules(tmp_path).explain(b"\xffa.md").rule == ".gitignore:1: %FF*.md"
