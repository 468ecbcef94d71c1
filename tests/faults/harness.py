"""Runs faults: edits, a fault at a random moment, more edits, rest, check, and one JSON line for each run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry import Fault, Run
from searcher import Searcher
from session import Session
from soak import Steady

__all__ = ["Harness", "Line", "make_model", "to_json"]

#: a service is ended, checked and made anew after so many runs; few enough that kills do not look like a crash loop
_RUNS_PER_SESSION = 4
#: how long a damaged index gets to mend itself before a person repairs it
_DAMAGED_S = 40.0
#: a violation is looked at again after this long: an event may have come late on a loaded machine
_SECOND_LOOK_S = 4.0

Line = dict[str, Any]


def make_model(directory: Path) -> Path:
    """The tiny model, made in a process of its own so that this one stays small."""
    program = "import sys, pathlib, tiny_model; tiny_model.make_tiny_model(pathlib.Path(sys.argv[1]))"
    support = Path(__file__).parents[1] / "support"
    environment = {**os.environ, "PYTHONPATH": f"{support}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run(
        [sys.executable, "-c", program, str(directory)], check=True, capture_output=True, timeout=120, env=environment
    )
    return directory / "model"


class Harness:
    """Keeps at most one service running, for as long as the runs that follow can share it."""

    def __init__(
        self, work: Path | None = None, *, full: bool, model: Path | None = None, kind: type[Session] = Session
    ) -> None:
        """``kind`` is what makes the services."""
        self._kind = kind
        self._own = work is None
        self._work = Path(tempfile.mkdtemp(prefix="hwfaults-")) if work is None else work
        self._full = full
        self._model = model or make_model(self._work / "tiny")
        self._made = 0
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        if self._session is not None:
            self._session.discard()
        if self._own:
            shutil.rmtree(self._work, ignore_errors=True)

    def steady(self, seed: int, minutes: float) -> Steady:
        """A service beside the others that is only edited, from now on."""
        session = Session(self._work / "steady", self._model, seed)
        session.begin()
        made = Steady(session, minutes)
        made.start()
        return made

    def lines(self, plan: Iterable[tuple[Fault, int]]) -> Iterator[Line]:
        """Run a plan of faults and seeds; the service is ended, and that judged, with the last run that shares it."""
        current: tuple[Fault, int] | None = None
        for following in chain(plan, [None]):
            if current is not None:
                yield self.run(*current, following=following and following[0])
            current = following

    def run(self, fault: Fault, seed: int, following: Fault | None = None) -> Line:
        """One run. ``following`` is the fault that comes next, if one does."""
        run = Run(seed, self._full, self._work, self._lend(fault, seed), random.Random(seed))
        try:
            if not run.session.runs and not fault.alone:
                run.session.begin()
            run.session.runs += 1
            converge_s, verdict = self._alone(fault, run) if fault.alone else self._edited(fault, run)
        except Exception as error:  # a run that breaks is a run that failed, with its reason in its line
            converge_s, verdict = None, "violated"
            where = traceback.extract_tb(error.__traceback__)[-1]
            run.violations.append(f"the run broke: {error!r} ({Path(where.filename).name}:{where.lineno})"[:600])
        logs = run.session.logs() if run.violations and run.session.state.with_suffix(".out").exists() else None
        self._give_back(fault, run, following)
        verdict = "violated" if run.violations and verdict == "ok" else verdict
        line = {"group": fault.group, "fault": fault.name, "seed": seed, "runs": run.notes.pop("runs", 1)}
        line |= {"converge_s": converge_s, "verdict": verdict, "violations": run.violations, **run.notes}
        return line if logs is None else {**line, "logs": logs}

    # -- sessions --------------------------------------------------------------------------------------------

    def _lend(self, fault: Fault, seed: int) -> Session:
        if self._session is None:
            self._made += 1
            work = self._work / f"session-{self._made}"
            self._session = self._kind(work, self._model, seed, fault.profile)
        self._session.generator.reseed(seed)
        return self._session

    def _give_back(self, fault: Fault, run: Run, following: Fault | None) -> None:
        session = run.session
        if run.violations:
            session.discard()
        elif (
            fault.alone
            or following is None
            or following.alone
            or following.profile != fault.profile
            or session.runs >= _RUNS_PER_SESSION
        ):
            run.violations += [f"at the end: {wrong}" for wrong in session.end()]
        else:
            return
        self._session = None

    # -- one run ---------------------------------------------------------------------------------------------

    def _alone(self, fault: Fault, run: Run) -> tuple[float | None, str]:
        started = time.monotonic()
        fault.inject(run)
        run.notes.setdefault("took_s", round(time.monotonic() - started, 2))
        return run.notes.pop("converge_s", None), "ok"

    def _edited(self, fault: Fault, run: Run) -> tuple[float | None, str]:
        session = run.session
        with _searched(run), _edited_meanwhile(run):
            time.sleep(run.random.uniform(0.2, 1.5))
            fault.inject(run)
            time.sleep(run.random.uniform(0.2, 1.0))
        if not session.alive() and not run.violations:
            run.violations.append(f"the service ended by itself: {session.sentence()}")
        if run.violations:
            return None, "violated"
        return self._judge(fault, run)

    def _judge(self, fault: Fault, run: Run) -> tuple[float | None, str]:
        session = run.session
        converged = session.converge(_DAMAGED_S if fault.repair else fault.bound_s)
        if fault.repair:
            converged = self._repaired(fault, run, converged)
        if isinstance(converged, str):
            run.violations.append(converged)
            return None, "not converged"
        found = session.check()
        if found:
            time.sleep(_SECOND_LOOK_S)
            again = session.converge(fault.bound_s)
            run.notes["late"] = found[:2]
            found = session.check() if not isinstance(again, str) else [again]
        run.violations += found
        return converged, "violated" if found else "ok"

    def _repaired(self, fault: Fault, run: Run, converged: float | str) -> float | str:
        """As a person would: what the service cannot mend by itself it says, and ``verify --repair`` mends."""
        session = run.session
        if isinstance(converged, str) and session.alive() and session.status().get("health") == "ok":
            return f"{converged}, and status says that all is well"
        began = time.monotonic()
        done = session.headwater.run("verify", "--repair", check=False)
        run.notes["repair"] = done.returncode
        after = session.converge(fault.bound_s)
        return after if isinstance(after, str) else round(after + time.monotonic() - began, 2)


@contextmanager
def _edited_meanwhile(run: Run) -> Iterator[None]:
    generator = run.session.generator
    before = generator.edits
    generator.start()
    try:
        yield
    finally:
        generator.stop()
        run.notes["edits"] = generator.edits - before


@contextmanager
def _searched(run: Run) -> Iterator[None]:
    searcher = Searcher(run.session)
    searcher.start()
    try:
        yield
    finally:
        searcher.end()
        run.notes["searches"] = dict(searcher.answers)
        run.violations += searcher.violations[:3]


def to_json(line: Line) -> str:
    """The line as printed: without the logs, which stand in it for whoever shows a failure."""
    return json.dumps({name: value for name, value in line.items() if name != "logs"}, ensure_ascii=False)
