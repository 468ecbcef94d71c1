"""The log of a process: lines for people, or one JSON object a line. A line names documents by path and id, and never
carries their text: of an error that a document's text may be in, only class and place are told."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from headwater.document import document_id, in_collection
from headwater.errors import HeadwaterError
from headwater.settings import Settings

__all__ = ["about", "log_to_stderr", "origin", "setup"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: what a call of a logger may give beside its message (``extra``)
_FIELDS = ("document_id", "documents")
_NOISY = ("httpx", "celery.worker.strategy", "celery.app.trace", "watchdog")
#: frames of a stack that are told, the innermost last
_MOST_FRAMES = 12
#: classes of HeadwaterError are told with their message, which is ours; so is the number of an OSError
_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def about(*paths: bytes, source: str = "") -> dict[str, Any]:
    """The ``extra`` of a line about documents of a folder, which has the name ``source`` in its collection."""
    ids = [document_id(in_collection(path, source)) for path in paths]
    return {"document_id": ids[0]} if len(ids) == 1 else {"documents": ids}


def origin(error: BaseException) -> str:
    """What an error is and where it came from, without its message unless that is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{_named(error)}{place}"


def _named(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, HeadwaterError):
        return f"{name}: {error}"
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


def _stack(error: BaseException) -> list[str]:
    """The chain of errors, each with its frames, the first cause first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    lines = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return [*(_stack(before) if before is not None else []), *lines, _named(error)]


class _People(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's own name
        raised: _Raised = ei
        return "" if raised[1] is None else "\n".join(f"  {line}" for line in _stack(raised[1]))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_info[1] is not None:
            line["stack"] = _stack(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def setup(settings: Settings) -> logging.Handler:
    """A handler on standard error in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _People(_TEXT))
    return handler


def log_to_stderr(settings: Settings) -> None:
    """Let this process log, as the settings say."""
    logging.basicConfig(level=settings.log_level.upper(), handlers=[setup(settings)])
    logging.captureWarnings(settings.log_format == "json")
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
