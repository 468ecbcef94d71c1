"""What ``up``, ``status``, ``reindex`` and ``rollback`` share about the generations of an index."""

from __future__ import annotations

import json
from typing import Any

from headwater.errors import SettingsError
from headwater.following import Adopting
from headwater.generations import Note, Return, as_pinned, existing, overruled, pins, serving
from headwater.handover import Handover
from headwater.screen import Screen
from headwater.settings import Settings
from headwater.state import Layout, Pointer, find_layout
from headwater.supervisor import Supervisor

__all__ = ["as_answering", "following", "of_moves", "refuse_other_model"]


def as_answering(given: Settings, *, once: bool) -> Settings:
    """The settings of the generation that ``up`` begins with: the one that answered last, for the current one may still
    have to catch up before it does. ``once``, nobody asks."""
    layout = find_layout(given)
    last = serving(layout)
    if once or given.generation is not None or last is None or last not in existing(layout.root):
        return as_pinned(given)
    return as_pinned(given.model_copy(update={"generation": last}))


def refuse_other_model(settings: Settings, model: str | None) -> None:
    """Raises SettingsError for a ``--model`` that would not be used."""
    if model is not None and settings.model != model:
        raise SettingsError(
            f"the index was moved to the model {settings.model} by 'headwater reindex': leave out --model {model}, or "
            f"run 'headwater reindex --model {model}' to change the index"
        )


def following(supervisor: Supervisor, given: Settings, screen: Screen) -> Handover:
    """Lets the supervisor follow the pointer from one generation to the next."""
    from producer.catchup import CatchUp
    from producer.status import Observer, forget_step

    def follow(layout: Layout) -> Any:
        forget_step(layout)
        return CatchUp(layout).reached

    moves = Handover(
        supervisor,
        prepare=lambda layout: as_pinned(given.model_copy(update={"generation": layout.generation})),
        follow=follow,
        on_move=lambda layout: screen.follow(
            Observer(layout), f"generation {layout.generation} of the index answers from now on"
        ),
        keep_s=given.keep_generation_s,
    )
    if given.qdrant_url is not None:
        moves.adopting = Adopting(given, supervisor.layout)
        moves.adopting.start()
    shown = supervisor.on_tick

    def tick() -> None:
        moves.tick()
        shown()

    supervisor.on_tick = tick
    return moves


def of_moves(layout: Layout, given: Settings) -> dict[str, Any]:
    """What the status says of generations: ``generation``, ``previous_generation``, ``answering`` (the one that ``up``
    has answer), ``reindex`` (null, or generation, phase, documents done and in all), ``rollback`` (null, or generation,
    documents done and in all), ``notes`` (settings that are given and not used)."""
    pointer = Pointer.read(layout)
    answering = serving(layout)
    return {
        "generation": layout.generation,
        "previous_generation": pointer.previous,
        "answering": answering if answering is not None else layout.generation,
        "reindex": _reindex(layout),
        "rollback": _rollback(layout),
        "notes": overruled(given, pins(layout)),
    }


def _reindex(layout: Layout) -> dict[str, Any] | None:
    note = Note.read(layout)
    if note is None:
        return None
    settings = json.loads(json.dumps(dict(note.pins)))
    return {"phase": note.phase, "settings": settings, **_how_far(layout, note.generation)}


def _rollback(layout: Layout) -> dict[str, Any] | None:
    note = Return.read(layout)
    return None if note is None else _how_far(layout, note.generation)


def _how_far(layout: Layout, generation: int) -> dict[str, Any]:
    from producer.status import read_status

    documents = read_status(Layout(layout.root, generation), running=False)["documents"]
    total = sum(documents.values())
    return {"generation": generation, "done": total - documents["waiting"], "total": total}
