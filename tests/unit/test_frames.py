"""Frames over pipes."""

from __future__ import annotations

import io
import os
import struct
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.frames import read_frame, write_frame

HEADERS = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.integers() | st.text(max_size=10) | st.lists(st.integers(), max_size=3),
    max_size=4,
)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=200)), min_size=1, max_size=4)


def written(*frames: tuple[dict[str, Any], bytes]) -> bytes:
    stream = io.BytesIO()
    for header, body in frames:
        write_frame(stream, header, body)
    return stream.getvalue()


@given(FRAMES)
def test_frames_come_back_one_by_one_as_they_were_written(frames: list[tuple[dict[str, Any], bytes]]) -> None:
    stream = io.BytesIO(written(*frames))
    assert [read_frame(stream) for _ in frames] == frames
    assert read_frame(stream) is None


@given(HEADERS, st.binary(max_size=50))
def test_a_stream_that_ends_inside_a_frame_has_no_frame(header: dict[str, Any], body: bytes) -> None:
    data = written((header, body))
    for length in range(len(data)):
        assert read_frame(io.BytesIO(data[:length])) is None


def test_a_frame_may_have_no_body() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"a": 1})
    stream.seek(0)
    assert read_frame(stream) == ({"a": 1}, b"")


def test_a_frame_is_its_sizes_then_a_json_header_then_the_body() -> None:
    assert written(({"a": "\u00e9"}, b"body")) == struct.pack("!II", 15, 4) + b'{"a": "\\u00e9"}' + b"body"


def test_a_frame_larger_than_a_pipe_comes_through() -> None:
    inner, outer = os.pipe()
    body = os.urandom(1024 * 1024)
    with open(inner, "rb") as reading, open(outer, "wb") as writing:
        thread = threading.Thread(target=write_frame, args=(writing, {"n": 1}, body))
        thread.start()
        assert read_frame(reading) == ({"n": 1}, body)
        thread.join()


def test_a_reader_that_is_gone_is_an_error_of_the_system() -> None:
    inner, outer = os.pipe()
    os.close(inner)
    with open(outer, "wb", buffering=0) as writing, pytest.raises(BrokenPipeError):
        write_frame(writing, {"n": 1}, b"x")  # type: ignore[arg-type]  # a raw stream is enough
