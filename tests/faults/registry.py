"""The faults by name. A module of faults adds its own with ``@fault`` and is named in ``GROUPS``."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from session import PLAIN, Profile, Session

__all__ = ["FAULTS", "GROUPS", "Fault", "Run", "fault", "load"]

#: group -> pattern of the modules that add its faults
GROUPS = {
    "processes": "process_faults*.py",
    "broker": "broker_faults*.py",
    "index": "index_faults*.py",
    "files": "file_faults*.py",
    "poison": "poison*.py",
    "model": "model*.py",
}


@dataclass
class Run:
    """One run of one fault. ``session`` is a service in step whose folder is being edited, unless the fault is
    ``alone``. What is found to be wrong goes into ``violations``, facts for the line into ``notes``."""

    seed: int
    full: bool
    work: Path
    session: Session = field(repr=False)
    random: random.Random = field(repr=False)
    violations: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """``inject`` does the fault and undoes it. ``runs`` is the count of the full form.

    ``alone``: no service is lent, ``inject`` does all the work and ``session`` is an unstarted one. ``bound_s`` is the
    most seconds to converge; ``repair`` runs ``headwater verify --repair`` before the check, as a person would.
    """

    group: str
    name: str
    runs: int
    inject: Callable[[Run], None]
    profile: Profile = PLAIN
    alone: bool = False
    repair: bool = False
    bound_s: float = 90.0


FAULTS: dict[tuple[str, str], Fault] = {}


def fault(group: str, name: str, runs: int, **options: Any) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Registers a function as a fault."""

    def register(inject: Callable[[Run], None]) -> Callable[[Run], None]:
        assert (group, name) not in FAULTS, f"two faults are named {group} {name}"
        FAULTS[group, name] = Fault(group, name, runs, inject, **options)
        return inject

    return register


def load() -> dict[tuple[str, str], Fault]:
    """All faults of all groups whose modules are there, in the order of GROUPS."""
    for pattern in GROUPS.values():
        for module in sorted(Path(__file__).parent.glob(pattern)):
            importlib.import_module(module.stem)
    return FAULTS
