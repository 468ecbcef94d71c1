"""``headwater verify``: is the index what folder and settings make it? With ``--repair`` it is made so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from headwater.errors import AlreadyRunning, FolderError, PermanentError
from headwater.query import running_service
from headwater.settings import Settings
from headwater.state import Layout, Lock, find_layout

__all__ = ["verify"]


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Put right exactly what is found wrong.")] = False,
    folder: Annotated[Path | None, typer.Option(help="The folder whose index is verified.")] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="Directory of ledger, broker and index (default: one per folder)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Compare folder, ledger and index anew, and name whatever is missing, stale, double, left over or unsearchable.

    The exit status is 0 if all is well, 1 if something is wrong, and 75 if nothing is wrong but documents still wait.
    """
    settings = _of_answering(folder=folder, state_dir=state_dir)
    layout = find_layout(settings)
    if not layout.ledger.exists():
        raise PermanentError(f"nothing is indexed yet in {layout.root}: run 'headwater up FOLDER' first")
    settings = _with_folder(settings, layout.create())
    from headwater.verbs.report import make_bar
    from headwater.verbs.verifying import Verifying

    with make_bar(as_json) as bar, _only_repair(layout) if repair else contextlib.nullcontext():
        status = Verifying(settings, layout, as_json, bar).run(repair=repair)
    sys.exit(status)


def _of_answering(**flags: Path | None) -> Settings:
    """The settings of the generation that is meant, which they name: while a running service hands over to another one,
    of that which answers."""
    given = Settings.read(**flags)
    layout = find_layout(given)
    generation = layout.generation
    if given.qdrant_url is None and given.generation is None and (service := running_service(layout)) is not None:
        generation = service.generation
    return Settings.load(**flags, generation=generation)


def _with_folder(settings: Settings, layout: Layout) -> Settings:
    """The folder that is given, else the one that the ledger was made for."""
    from producer.ledger import Ledger

    if settings.folder is None:
        ledger = Ledger(layout.ledger, read_only=True)
        try:
            noted = ledger.meta("folder")
        finally:
            ledger.close()
        if noted is None or not Path(noted).is_dir():
            raise FolderError(f"the folder {noted or 'of this index'} is not there: bring it back, or give --folder")
        settings = settings.model_copy(update={"folder": Path(noted)})
    settings.required_folder()
    return settings.model_copy(update={"state_dir": layout.root})


@contextlib.contextmanager
def _only_repair(layout: Layout) -> Iterator[None]:
    """Two repairs at once would each undo what the other is about to see."""
    try:
        lock = Lock(layout, "repair").acquire()
    except AlreadyRunning:
        pid = Lock.holder(layout, "repair") or "unknown"
        raise AlreadyRunning(
            f"another 'headwater verify --repair' works on {layout.root} (pid {pid}): wait until it has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()
