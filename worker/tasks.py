"""The Celery task: decode the hint, call the pipeline, report what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery import Celery

from headwater import metrics, tracing
from headwater.errors import IndexUnavailable, MessageError
from headwater.failpoints import reach
from headwater.logs import about, origin
from headwater.messages import APPLY_TASK, CENSUS_TASK, CensusRequest, Event, Hint, Outcome, census_from_wire
from worker.fitness import given_back
from worker.pipeline import Pipeline
from worker.reporter import Reporter

__all__ = ["register"]

log = logging.getLogger(__name__)


def register(
    app: Celery,
    parts: Callable[[str], tuple[Pipeline, Reporter]],
    take_census: Callable[[CensusRequest], None],
    refuses: Callable[[Hint], str | None] = lambda hint: None,
) -> None:
    """Add the tasks to an app. The callables are called per message, once the worker has started; the first two raise
    MessageError for a folder that this worker does not have, the third says why a hint is left to another worker."""

    @app.task(name=APPLY_TASK)
    def apply(wire: object) -> None:
        try:
            hint = Hint.from_wire(wire, time.time())
            pipeline, reporter = parts(hint.source)
        except MessageError as error:
            log.warning("a hint was dropped: %s", error)  # forged or foreign: the ledger rings for what is due
            return
        if (reason := refuses(hint)) is not None:
            reporter.report([given_back(item, reason) for item in hint.items])
            return
        metrics.hints_taken.labels(hint.lane).inc()
        with (
            tracing.taken(hint, apply.request.headers),
            metrics.hints_under_way.track_inprogress(),
            metrics.hint_seconds.labels(hint.lane).time(),
        ):
            reporter.report(_apply(pipeline, hint))
        reach("worker:reported")

    @app.task(name=CENSUS_TASK)
    def census(wire: object) -> None:
        try:
            take_census(census_from_wire(wire, time.time()))
        except (MessageError, IndexUnavailable) as error:
            log.warning("a census was not taken: %s", error)  # the producer asks again


def _apply(pipeline: Pipeline, hint: Hint) -> list[Event]:
    """An error that no step foresaw costs its documents one try; the producer's budget bounds it."""
    try:
        return pipeline.apply(hint)
    except Exception as error:
        named = about(*(item.path for item in hint.items), source=hint.source)
        log.error("a hint of %d documents failed: %s", len(hint.items), origin(error), extra=named, exc_info=True)
        reason = f"unexpected {type(error).__name__}: {error}"
        return [Outcome(item.path, item.seq, "failed", reason=reason, retryable=True) for item in hint.items]
