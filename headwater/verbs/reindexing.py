"""The runs behind ``headwater reindex`` and ``headwater rollback``: fill an index beside the one that answers with the
ordinary producer and worker, compare, and move the pointer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from headwater.errors import IndexMismatch, ServiceUnavailable, SettingsError
from headwater.failpoints import reach
from headwater.following import made_of, on_server, tell_pins
from headwater.generations import MAKING, Note, as_pinned, existing, making, pin, pins, serve
from headwater.screen import Screen
from headwater.settings import Settings
from headwater.shadow import Comparison, refusals
from headwater.state import Layout, Lock, Pointer, Service, check_free_space, noted_folder
from headwater.supervisor import Supervisor

__all__ = ["Check", "Reindexing", "Returning"]

#: seconds that a document which one side lacks has to come in, before it counts as missing
_PATIENCE_S = 5.0
#: seconds between two looks whether the service has taken over
_LOOK_S = 0.1
#: seconds between two looks whether the new collection is there
_BEGIN_S = 0.5


@dataclass(frozen=True)
class Check:
    """What the shadow check is to be: files of queries and of judged questions, and what it must find."""

    queries: Path | None = None
    evaluation: Path | None = None
    min_overlap: float | None = None
    accept_missing: bool = False
    only: bool = False


@dataclass
class Filling:
    """The ordinary parts of ``up`` over one generation, until it has caught up and ``on_caught_up`` says that this was
    all."""

    given: Settings
    layout: Layout
    console: Console
    as_json: bool
    #: whether a worker runs here; else those of other hosts do the work
    worker: bool = True
    interrupted: bool = False

    def run(
        self, on_caught_up: Callable[[Settings], bool], *, api: bool, begun: Callable[[], bool] = lambda: True
    ) -> None:
        """``begun`` is called until it is true, then ``on_caught_up`` when it is time, until that is. Raises
        HeadwaterError."""
        from producer.catchup import CatchUp
        from producer.status import Observer, forget_step

        settings = _settings_of(self.given, self.layout)
        check_free_space(self.layout.root, settings.min_free_bytes)
        forget_step(self.layout.create())
        reached, caught_up, has_begun, look_at = CatchUp(self.layout).reached, False, False, 0.0

        def done() -> bool:
            nonlocal caught_up, has_begun, look_at
            if not has_begun:
                if time.monotonic() < look_at:
                    return False
                look_at = time.monotonic() + _BEGIN_S
                has_begun = begun()
                return False
            caught_up = caught_up or reached()
            return caught_up and on_caught_up(settings)

        screen = Screen(self.console, Observer(self.layout), as_json=self.as_json, api=lambda: None)
        how: Literal["private", "none"] = "private" if api and self.worker else "none"
        supervisor = Supervisor(settings, self.layout, False, screen.tick, screen.drain, how, worker=self.worker)
        supervisor.end_when(done)
        try:
            screen.start()
            supervisor.run()
        finally:
            screen.stop()
            self.interrupted = supervisor.interrupted


def _settings_of(given: Settings, layout: Layout) -> Settings:
    """Those of a generation that is filled beside another one: its API is for nobody but us."""
    settings = as_pinned(given.model_copy(update={"generation": layout.generation}))
    folder = settings.folder or noted_folder(layout) or noted_folder(Pointer.read(layout).layout(layout.root))
    found = settings.model_copy(update={"folder": folder, "host": "127.0.0.1", "port": 0, "metrics_port": 0})
    found.required_folder()
    return found


def _move(given: Settings, layout: Layout, left: int, *, at_once: bool = False) -> None:
    """This generation is the current one from now on, instead of ``left``; of a server's index, by its alias first. It
    may be done again after a crash."""
    with on_server(given) as index:
        if index is not None:
            index.aliases.move(layout.generation, left)
            reach("move:alias")
    pointer = Pointer.read(layout)  # a process of this host may have followed the alias already
    if (moved := pointer.moved_to(layout.generation, at_once=at_once)) != pointer:
        moved.write(layout)
    reach("move:pointer")
    if not Lock.is_held(layout, "up"):
        serve(layout)  # nobody answers: the next to start begins with this one


def _await_service(layout: Layout) -> None:
    """Until the service that runs answers from this generation; at once if none runs."""
    while Lock.is_held(layout, "up"):
        service = Service.read(layout)
        if service is not None and service.generation == layout.generation:
            return
        time.sleep(_LOOK_S)


@dataclass
class Returning:
    """Moves the pointer to a generation that was current before ``left``."""

    given: Settings
    layout: Layout
    left: int
    console: Console
    as_json: bool
    interrupted: bool = False

    def run(self, *, now: bool) -> None:
        """While a service runs, it lets the generation catch up before that one answers; else this is done here."""
        is_moved = Pointer.read(self.layout).generation == self.layout.generation  # and killed before that was all
        if not is_moved:
            with on_server(self.given) as index:
                if index is not None:
                    index.aliases.leave(self.layout.generation)  # so that no host removes it on the way
        if not (now or is_moved or Lock.is_held(self.layout, "up")):
            filling = Filling(self.given, self.layout, self.console, self.as_json)
            filling.run(lambda _: True, api=False)
            self.interrupted = filling.interrupted
        if not self.interrupted:
            reach("rollback:filled")
            _move(self.given, self.layout, self.left, at_once=now)
            reach("rollback:moved")
            _await_service(self.layout)


@dataclass
class Reindexing:
    """One ``headwater reindex``. ``asked`` names the settings that are given as options."""

    given: Settings
    #: the current generation
    layout: Layout
    asked: frozenset[str]
    check: Check
    console: Console
    as_json: bool
    worker: bool = True
    interrupted: bool = False
    _moved: bool = False
    _looking_since: float | None = None
    _found: Comparison | None = field(default=None)

    def run(self) -> None:
        """Raises HeadwaterError with a sentence if it cannot be done, or the new index must not be moved to."""
        note = self._noted()
        new = Layout(self.layout.root, note.generation)
        if note.generation != self.layout.generation:
            if not self.worker:
                self._make_collection(new)
            filling = Filling(self.given, new, self.console, self.as_json, self.worker)
            filling.run(
                lambda settings: self._compare_and_move(note, settings), api=True, begun=lambda: self._tell_server(note)
            )
            self.interrupted = filling.interrupted
        else:
            _move(self.given, new, note.source)  # again: it was killed before that was all
            self._moved = True
            reach("reindex:moved")
        if self._moved:
            self.layout.reindex.unlink(missing_ok=True)
            self._say("moved", f"generation {note.generation} is the current index")
            _await_service(new)

    # -- what is to be made ------------------------------------------------------------------------------------

    def _noted(self) -> Note:
        """The reindex that is under way, else a new one. Both generations have their settings then."""
        note = Note.read(self.layout)
        if note is None:
            chosen, before = self._chosen()
            self.layout.rollback.unlink(missing_ok=True)  # one that was not ended is given up
            note = Note(self._free_number(), self.layout.generation, chosen, before)
            note.write(self.layout)
            reach("reindex:noted")
        elif self.asked and any(note.pins.get(name) != value for name, value in self._asked_values().items()):
            raise SettingsError(
                f"a reindex to {_shown(note.pins)} is under way: run 'headwater reindex' without settings to go on "
                "with it, or give it up with --cancel"
            )
        if note.phase == "preparing":
            source = Layout(self.layout.root, note.source)
            new = Layout(self.layout.root, note.generation).create()
            pin(new, {**pins(source), **note.pins})
            pin(source, note.source_pins)
            reach("reindex:pinned")
            note = replace(note, phase="filling")
            note.write(self.layout)
        return note

    def _free_number(self) -> int:
        """Of a generation that is neither here nor on the server."""
        number = max(existing(self.layout.root), default=self.layout.generation) + 1
        with on_server(self.given) as index:
            while index is not None and index.aliases.is_there(number):
                number += 1
        return number

    def _asked_values(self) -> dict[str, Any]:
        values = making(self.given)
        return {name: _lasting(name, values[name]) for name in self.asked}

    def _chosen(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings that are to change as they are to be, and those of them that only the environment has as yet."""
        self._check_index()
        own = pins(self.layout)
        bare = as_pinned(self.given.model_copy(update={name: _default(name) for name in self.asked}))
        before = {**making(bare), **made_of(self.given, self.layout).settings, **own}
        wanted = {name: _lasting(name, value) for name, value in making(self.given).items()}
        given = self.asked | {name for name in MAKING if name in self.given.model_fields_set}
        changed = [
            name
            for name in MAKING
            if wanted[name] != _lasting(name, before[name]) and (name in given or name not in own)
        ]
        if not changed:
            raise SettingsError(
                "the index is made with these settings already: name another --model, or other settings with --set"
            )
        kept = {name: _lasting(name, before[name]) for name in changed if name not in own}
        return {name: wanted[name] for name in changed}, kept

    def _check_index(self) -> None:
        """Raises SettingsError if there is nothing to move from, or no way to move."""
        with on_server(self.given) as index:
            if index is None:
                missing = not self.layout.manifest.exists()
            else:
                missing = index.aliases.current() is None
                if index.aliases.is_plain() and not missing:
                    name = self.given.collection
                    raise SettingsError(
                        f"the collection {name} itself has the name that others ask by, so none can take its place: "
                        "index the folder anew with another HEADWATER_COLLECTION, and name that one on all hosts"
                    )
        if missing:
            raise SettingsError(f"there is no index in {self.layout.root} yet: run 'headwater up FOLDER' first")

    # -- compare and move ----------------------------------------------------------------------------------------

    def _compare_and_move(self, note: Note, settings: Settings) -> bool:
        """True when all is done; False to be asked again soon."""
        from headwater.verbs.comparing import Comparing

        new = Layout(self.layout.root, note.generation)
        if self._looking_since is None:
            self._looking_since = time.monotonic()
            replace(note, phase="filled").write(self.layout)
            reach("reindex:filled")
        comparing = Comparing(as_pinned(self.given.model_copy(update={"generation": note.source})), settings)
        found = comparing.documents(self.layout, new)
        if (found.missing or found.differing) and time.monotonic() - self._looking_since < _PATIENCE_S:
            return False  # an edit may be in one of them already
        if self.worker and Service.read_from(new.private_service) is None:
            return False
        self._check_others(note)
        try:
            self._found = comparing.answers(found, self.layout, new, self.check.queries, self.check.evaluation)
        except ServiceUnavailable:
            return False  # its worker has ended, and is started anew
        self._show(self._found)
        if sentences := refusals(self._found, self.check.min_overlap, accept_missing=self.check.accept_missing):
            raise IndexMismatch("the index is not moved: " + "; ".join(sentences))
        replace(note, phase="checked").write(self.layout)
        reach("reindex:checked")
        if not self.check.only:
            _move(self.given, new, note.source)
            self._moved = True
            reach("reindex:moved")
        return True

    def _make_collection(self, new: Layout) -> None:
        """For the workers of other hosts, which take their settings from it. Raises SettingsError without a server."""
        settings = _settings_of(self.given, new)
        with on_server(settings) as index:
            if index is None:
                raise SettingsError("--no-worker needs workers of other hosts, which an embedded index does not have")
            from headwater.embedder import load_embedder

            embedder = load_embedder(settings)
            index.ensure_schema(embedder.name, embedder.dimension)
        self._say("waiting", f"run 'headwater work --generation {new.generation}' on the hosts that are to fill it")

    def _tell_server(self, note: Note) -> bool:
        """Other hosts learn the settings of both generations from their collections. False if one is not there yet."""
        told = [tell_pins(self.given, Layout(self.layout.root, number)) for number in (note.source, note.generation)]
        if all(told):
            reach("reindex:told")
        return all(told)

    def _check_others(self, note: Note) -> None:
        """Raises IndexMismatch if the collection holds other folders of which the new one lacks documents: the alias
        moves for all of them."""
        with on_server(self.given.model_copy(update={"generation": note.source})) as old:
            if old is None:
                return
            old.open_existing()
            with on_server(self.given.model_copy(update={"generation": note.generation})) as new:
                assert new is not None, "both are on the server"
                new.open_existing()
                for source in set(old.values("source")) - {self.given.source}:
                    had, has = len(old.census(source)), len(new.census(source))
                    if has < had:
                        raise IndexMismatch(
                            f"the collection also holds the folder {source!r}, of which the new index has {has} of "
                            f"{had} documents: run 'headwater watch --generation {note.generation}' for it, wait until "
                            "it is in step, and run this again"
                        )

    def _show(self, found: Comparison) -> None:
        from headwater.verbs.comparing import table

        if self.as_json:
            print(json.dumps({"event": "compared", **found.to_dict()}), flush=True)
            return
        self.console.print(table(found))
        for sentence in found.notes:
            self.console.print(f"- {sentence}")

    def _say(self, event: str, sentence: str) -> None:
        if self.as_json:
            print(json.dumps({"event": event, "sentence": sentence}), flush=True)
        else:
            self.console.print(sentence)


def _default(name: str) -> Any:
    return Settings.model_fields[name].default


def _lasting(name: str, value: Any) -> Any:
    """A path that means the same from any directory."""
    return os.path.realpath(value) if name == "model" and isinstance(value, str) and os.path.isdir(value) else value


def _shown(values: Any) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
