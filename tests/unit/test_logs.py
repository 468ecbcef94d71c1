"""A line of the log names documents, and holds no text of theirs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from headwater.document import document_id
from headwater.errors import IndexUnavailable
from headwater.logs import about, origin, setup
from headwater.settings import Settings

SECRET = "marzipan"


def lines(log_format: str, *records: logging.LogRecord) -> list[str]:
    handler = setup(Settings.load(log_format=log_format))
    return [handler.format(record) for record in records]


def record(message: str, *values: object, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    raised = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("worker.pipeline", logging.WARNING, "x.py", 1, message, values, raised)
    made.__dict__.update(extra)
    return made


def caught(raising: Any) -> BaseException:
    try:
        raising()
    except Exception as error:
        return error
    raise AssertionError


def spell() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(f"cannot read {SECRET}") from error


def test_a_line_is_one_json_object_with_the_document() -> None:
    [line] = lines("json", record("%s failed: %s", "a\nb.md", "why", **about(b"a\nb.md")))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "a\nb.md failed: why" and found["level"] == "warning"
    assert found["logger"] == "worker.pipeline" and found["ts"].endswith("+00:00")
    assert found["document_id"] == document_id(b"a\nb.md")


def test_a_line_about_several_documents_names_them_all() -> None:
    [line] = lines("json", record("two", **about(b"a", b"b")))
    assert json.loads(line)["documents"] == [document_id(b"a"), document_id(b"b")]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_error_is_told_by_class_and_place_and_not_by_its_message(log_format: str) -> None:
    [line] = lines(log_format, record("it failed", error=caught(spell)))
    assert SECRET not in line
    assert "RuntimeError" in line and "ValueError" in line and "test_logs.py" in line


def test_the_message_of_an_error_of_ours_is_told() -> None:
    assert origin(IndexUnavailable("Qdrant does not answer")) == "IndexUnavailable: Qdrant does not answer"
    assert origin(caught(spell)).startswith("RuntimeError at test_logs.py:")
    assert origin(OSError(28, "No space left on device", "/x")) == "OSError: No space left on device"


def test_a_folder_with_a_name_has_ids_of_its_own() -> None:
    assert about(b"a", source="notes") == {"document_id": document_id(b"notes/a")}
