"""OpenTelemetry traces of a change from event to flush (extra ``otel``): spans carry document ids, lane and counts,
never text or paths. Without the extra or an endpoint nothing is made, and a call here costs one comparison."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headwater import __version__
from headwater.document import document_id, in_collection
from headwater.messages import Hint
from headwater.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

__all__ = ["end", "published", "span", "start", "taken"]

log = logging.getLogger(__name__)

#: ids that a span of many documents carries at most
_MOST_IDS = 64
#: makes the spans, once ``start`` has found that somebody wants them
_tracer: Tracer | None = None
_shutdown: Callable[[], None] | None = None
_NOTHING = contextlib.nullcontext()


def start(settings: Settings, part: str, exporter: SpanExporter | None = None) -> None:
    """Make traces from now on, if the settings name an endpoint; ``part`` (watch, work) names this process in them.
    ``exporter`` takes the endpoint's place."""
    if exporter is None and not settings.otlp_endpoint:
        return
    try:
        _start(settings, part, exporter)
    except ImportError:
        log.warning("no traces are made: OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra is missing: "
                    "pip install 'headwater[otel]'")  # fmt: skip


def _start(settings: Settings, part: str, exporter: SpanExporter | None) -> None:
    global _tracer, _shutdown
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    named = {"service.name": f"headwater-{part}", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    if exporter is None:
        url = f"{str(settings.otlp_endpoint).rstrip('/')}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    _tracer, _shutdown = provider.get_tracer("headwater", __version__), provider.shutdown


def end() -> None:
    """Send what is left, and make no more."""
    global _tracer, _shutdown
    if _shutdown is not None:
        _shutdown()
    _tracer = _shutdown = None


def span(name: str, **attributes: int | str) -> contextlib.AbstractContextManager[object]:
    """A step of what this thread is at. An error that leaves it marks it as failed, without its message."""
    if _tracer is None:
        return _NOTHING
    return _step(_tracer, name, attributes)


@contextlib.contextmanager
def _step(tracer: Tracer, name: str, attributes: Mapping[str, Any], **how: Any) -> Iterator[None]:
    from opentelemetry.trace import Status, StatusCode

    named = {f"headwater.{key}": value for key, value in attributes.items()}
    how = {"record_exception": False, "set_status_on_exception": False, **how}
    with tracer.start_as_current_span(name, attributes=named, **how) as made:
        try:
            yield
        except BaseException as error:
            made.set_status(Status(StatusCode.ERROR, type(error).__name__))  # a message may hold text
            raise


@contextlib.contextmanager
def published(hint: Hint) -> Iterator[dict[str, str] | None]:
    """The producer's span of a hint, from when its oldest document was noticed until it is out. Gives the headers that
    go with the message, so that its worker goes on with the trace; None if there is none."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    now = time.time_ns()
    noticed = min((item.seq * 1000 for item in hint.items), default=now)  # a seq is a time in microseconds, or later
    with _step(_tracer, "publish", _about(hint), kind=SpanKind.PRODUCER, start_time=min(noticed, now)):
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        yield headers


def taken(hint: Hint, headers: Mapping[str, Any] | None) -> contextlib.AbstractContextManager[object]:
    """The worker's span of a hint, from taken to reported, within the trace that its message names."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: value for name, value in (headers or {}).items() if isinstance(value, str)}
    context = TraceContextTextMapPropagator().extract(carrier)
    return _step(_tracer, "apply", _about(hint), kind=SpanKind.CONSUMER, context=context)


def _about(hint: Hint) -> dict[str, Any]:
    ids = [document_id(in_collection(item.path, hint.source)) for item in hint.items[:_MOST_IDS]]
    return {"lane": hint.lane, "documents": len(hint.items), "document_ids": ids}
