"""Changes that bring no new text: how many texts are embedded for each by a running service."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.ingest import corpus
from bench.service import Running, make_static_model

#: seconds in which any event of a change has been noticed
_NOTICED_S = 2.0
_MOST_S = 60.0


def run(work: Path) -> dict[str, Any]:
    """Texts embedded for each change. The service is started anew on the way, so that its memory does not help."""
    folder, state = work / "folder", work / "state"
    shutil.copytree(corpus(work), folder)
    model = str(make_static_model(work))
    files = sorted(path for path in folder.rglob("*.md"))
    branch = _Branch(folder, work / "aside")
    one, renamed, copy = files[len(files) // 2], folder / "renamed.md", folder / "copy.md"
    results: dict[str, int] = {}
    with Running(folder, state, HEADWATER_MODEL=model) as service:
        service.wait_ready()
        service.wait_all(1)
        results["first ingest"] = service.peek()["embedded_texts_total"]
        _step(service, results, "rename a file", lambda: one.rename(renamed))
        _step(service, results, "rename a directory", lambda: _rename_largest_directory(folder))
        _step(service, results, "copy a file", lambda: shutil.copy(renamed, copy))
        _step(service, results, "touch every file", lambda: [os.utime(path) for path in folder.rglob("*.md")])
        _step(service, results, "another branch: of four files one gone, one changed", branch.switch)
        _step(service, results, "back", branch.back)
        _step(service, results, "the other branch again", branch.switch)
    with Running(folder, state, HEADWATER_MODEL=model) as service:
        service.wait_ready()
        service.wait_all(1)
        _step(service, results, "back, after a restart", branch.back)
        _step(service, results, "delete a file and its copy", lambda: (copy.unlink(), renamed.rename(work / "kept.md")))
    with Running(folder, state, HEADWATER_MODEL=model) as service:
        service.wait_ready()
        service.wait_all(1)
        _step(service, results, "restore it, after a restart", lambda: (work / "kept.md").rename(renamed))
    _show(results, len(files))
    return {"files": len(files), "texts_embedded": results}


def _step(service: Running, results: dict[str, int], name: str, change: Callable[[], object]) -> None:
    """Make a change, and wait until ``verify`` finds the index right."""
    before = service.peek()["embedded_texts_total"]
    change()
    time.sleep(_NOTICED_S)
    deadline = time.monotonic() + _MOST_S
    while service.run("verify", check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"{name}: the index is not right after {_MOST_S:.0f} s: {service.run('verify').stdout}")
    results[name] = service.peek()["embedded_texts_total"] - before


class _Branch:
    """Of four files of a folder one goes and one is edited at its top, and back, as by a version control system."""

    def __init__(self, folder: Path, aside: Path) -> None:
        self._folder = folder
        self._aside = aside

    def switch(self) -> None:
        shutil.copytree(self._folder, self._aside)
        for number, path in enumerate(sorted(self._folder.rglob("*.md"))):
            if number % 4 == 0:
                path.unlink()
            elif number % 4 == 1:
                path.write_text(f"The other branch says {number}.\n\n" + path.read_text("utf-8"), "utf-8")

    def back(self) -> None:
        for path in self._aside.rglob("*.md"):
            there = self._folder / path.relative_to(self._aside)
            if not there.exists() or there.read_bytes() != path.read_bytes():
                shutil.copyfile(path, there)
        shutil.rmtree(self._aside)


def _rename_largest_directory(folder: Path) -> None:
    directories = [path for path in folder.rglob("*") if path.is_dir()]
    if directories:
        largest = max(directories, key=lambda path: len(list(path.rglob("*.md"))))
        largest.rename(largest.with_name(f"{largest.name}-renamed"))


def _show(results: dict[str, int], files: int) -> None:
    table = Table(title=f"texts embedded, a folder of {files} files")
    table.add_column("change")
    table.add_column("texts", justify="right")
    for name, texts in results.items():
        table.add_row(name, str(texts))
    Console().print(table)
