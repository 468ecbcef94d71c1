"""What a person sees of ``headwater up``: a bar until the index is in step, then one quiet line per change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from headwater.document import path_to_text
from headwater.errors import HeadwaterError

__all__ = ["Screen"]

#: seconds between two looks at the ledger, and between two plain lines where there is no terminal
_LOOK_S = 0.25
_PLAIN_S = 10.0


class Settled(Protocol):
    """A document with its last outcome."""

    @property
    def path(self) -> bytes: ...
    @property
    def state(self) -> str: ...
    @property
    def chunks(self) -> int: ...
    @property
    def reason(self) -> str | None: ...


class Source(Protocol):
    """Where progress is read."""

    def status(self) -> dict[str, Any]: ...
    def changes(self) -> Sequence[Settled]: ...


class Screen:
    """``tick`` is called often; it looks and prints at its own pace."""

    def __init__(self, console: Console, source: Source, *, as_json: bool, api: Callable[[], str | None]) -> None:
        self._console = console
        self._api = api
        self._source = source
        self._json = as_json
        self._started = time.monotonic()
        self._look_at = 0.0
        self._plain_at = self._started + _PLAIN_S
        self._in_step = False
        self._first_rate: tuple[float, int] | None = None
        self._reasons: list[str] = []
        self._embedded_before: tuple[int, int] | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[facts]}"),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("scanning", total=None, facts="")

    def start(self) -> None:
        if self._console.is_terminal and not self._json:
            self._bar.start()

    def stop(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def tick(self, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_S
        try:
            status, changes = self._source.status(), self._source.changes()
        except HeadwaterError:
            return  # the ledger is being made
        self._embedded_before = self._embedded_before or _texts(status)
        if self._in_step:
            self._show_changes(changes)
        self._show_reasons(status["reasons"])
        if not self._in_step:
            self._show_progress(status)
            if status["in_step"]:
                self._arrive(status)

    # -- until in step ---------------------------------------------------------------------------------------

    def _show_progress(self, status: dict[str, Any]) -> None:
        documents = status["documents"]
        total = sum(documents.values())
        done = total - documents["waiting"]
        facts = f"{done}/{total} documents  {status['chunks']} chunks{self._pace(done, total)}"
        if self._json:
            self._say({"event": "progress", "done": done, "total": total, "chunks": status["chunks"]})
        elif self._console.is_terminal:
            self._bar.update(self._task, description="indexing", total=total, completed=done, facts=facts)
            self._bar.refresh()
        elif time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + _PLAIN_S
            self._console.print(f"indexing: {facts}", highlight=False)

    def _pace(self, done: int, total: int) -> str:
        """Rate and time left, counted from the first document that was settled."""
        now = time.monotonic()
        if self._first_rate is None and done:
            self._first_rate = (now, done)
        if self._first_rate is None or now - self._first_rate[0] < 1 or done <= self._first_rate[1]:
            return ""
        rate = (done - self._first_rate[1]) / (now - self._first_rate[0])
        return f"  {rate:.1f} documents/s  {_duration((total - done) / rate)} left"

    def _arrive(self, status: dict[str, Any]) -> None:
        self._in_step = True
        self.stop()
        before = self._embedded_before or (0, 0)
        embedded, reused = (now - then for now, then in zip(_texts(status), before, strict=True))
        documents = status["documents"]
        if self._json:
            self._say({"event": "in_step", **{k: status[k] for k in ("documents", "chunks", "health", "reasons")}})
            return
        others = ", ".join(
            f"{n} {state}" for state, n in documents.items() if n and state not in ("indexed", "waiting")
        )
        self._console.print(
            f"in step: {documents['indexed']} documents indexed{', ' + others if others else ''}, "
            f"{status['chunks']} chunks, {embedded} texts embedded and {reused} reused "
            f"in {_duration(time.monotonic() - self._started)}",
            highlight=False,
        )
        if (url := self._api()) is not None:
            self._console.print(f"answers on {url}; ask with: headwater search TEXT", highlight=False)

    def follow(self, source: Source, sentence: str) -> None:
        """Look there from now on: another index has taken the place of the one that was shown."""
        self._source = source
        self._say({"event": "moved", "sentence": sentence}) if self._json else self._console.print(
            sentence, highlight=False, markup=False
        )

    def drain(self) -> None:
        """The first signal came."""
        self.stop()
        if self._json:
            self._say({"event": "draining"})
        else:
            self._console.print("ending: what is under way is finished; once more to end at once", highlight=False)

    # -- afterwards ------------------------------------------------------------------------------------------

    def _show_changes(self, changes: Sequence[Settled]) -> None:
        for row in changes:
            path = path_to_text(row.path)
            if self._json:
                event = {"event": "document", "path": path, "state": row.state, "chunks": row.chunks}
                self._say({**event, "reason": row.reason})
                continue
            detail = row.reason if row.reason else f"{row.chunks} chunks" if row.chunks else ""
            self._console.print(f"{row.state:8} {path}  {detail}".rstrip(), highlight=False, markup=False)

    def _show_reasons(self, reasons: list[str]) -> None:
        for reason in reasons:
            if reason not in self._reasons:
                self._say({"event": "degraded", "reason": reason}) if self._json else self._console.print(
                    f"degraded: {reason}", highlight=False, markup=False
                )
        self._reasons = reasons

    def _say(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


def _texts(status: dict[str, Any]) -> tuple[int, int]:
    return status["embedded_texts_total"], status["reused_texts_total"]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
