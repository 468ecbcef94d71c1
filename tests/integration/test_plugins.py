"""The reader of docs/plugins.md, as the page has it, in a real extraction child."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from word_embedder import word_environment

import worker

ROOT = Path(worker.__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
BRICK = """Title: Brick & Steel
Author: Stu Maschwitz

EXT. BRICK'S PATIO - DAY

A gorgeous day. The sun is shining.

INT. TRAILER HOME - NIGHT

This is the home of the boys, forty or so.
"""


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With the package of the page installed, as an installer would leave it."""
    import tomllib

    project = tomllib.loads(block("toml"))["project"]
    site = tmp_path / "site"
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "screenplay.py").write_text(block("python"))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["headwater.readers"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[headwater.readers]\n{lines}")
    words = word_environment()
    path = os.pathsep.join(filter(None, [str(site), str(ROOT), words.get("PYTHONPATH", "")]))
    return {**os.environ, **words, "PYTHONPATH": path}


def extract(environment: dict[str, str], file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "headwater", "extract", str(file), *options],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip


def test_the_reader_of_the_page_reads_a_screenplay(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "brick.fountain"
    file.write_text(BRICK)
    found = json.loads(extract(environment, file, "--json").stdout)
    assert (found["outcome"], found["kind"], found["title"]) == ("indexed", "screenplay", "Brick & Steel")
    assert found["metadata"] == {"author": "Stu Maschwitz"}
    places = [(chunk["page"], chunk["headings"]) for chunk in found["chunks"]]
    assert places == [(1, ["EXT. BRICK'S PATIO - DAY"]), (2, ["INT. TRAILER HOME - NIGHT"])]
    shown = extract(environment, file).stdout.splitlines()
    promised = PAGE.split("$ headwater extract brick.fountain\n")[1].split("\n```")[0].splitlines()[1:]
    assert len(promised) == 4 and set(promised) <= set(shown)


def test_the_reader_s_refusal_is_the_document_s_outcome(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "empty.fountain"
    file.write_text("Title: Nothing\n\n")
    done = extract(environment, file)
    assert done.returncode == 1
    assert done.stdout == f"refused  {file}\n  a screenplay without scenes\n"


def test_without_the_package_the_same_file_is_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "brick.fountain"
    file.write_text(BRICK)
    environment = {**os.environ, **word_environment()}
    found = json.loads(extract(environment, file, "--json").stdout)
    assert (found["kind"], found["chunks"][0]["start_line"]) == ("text", 1)


def test_a_reader_that_cannot_be_loaded_is_a_failure_that_names_it(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "screenplay.py").write_text("import nothing_of_this_name")
    file = tmp_path / "brick.fountain"
    file.write_text(BRICK)
    found = json.loads(extract(environment, file, "--json").stdout)
    assert found["outcome"] == "failed"
    assert "the reader screenplay:read for text/x-fountain cannot be loaded: No module named" in found["reason"]
