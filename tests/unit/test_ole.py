"""Containers that state more than they have."""

from __future__ import annotations

import struct

import pytest

from worker.ole import is_oversized, opened
from worker.olestreams import Streams
from worker.olewriter import container
from worker.package import Broken

WHOLE = container({("Long",): bytes(5000)})


def with_number(data: bytes, at: int, number: int) -> bytes:
    return data[:at] + struct.pack("<I", number) + data[at + 4 :]


def entry(name: str) -> int:
    return WHOLE.index(name.encode("utf-16-le"))


@pytest.mark.parametrize("at", [0x2C, 0x40, 0x48])
def test_a_container_with_more_tables_than_bytes_is_damaged(at: int) -> None:
    with pytest.raises(Broken):
        opened(with_number(WHOLE, at, 0xFFFFFFF0))


def test_a_chain_that_goes_in_circles_ends_with_the_size_of_the_container() -> None:
    huge = with_number(WHOLE, entry("Long") + 0x78, 0xFFFFFFF0)
    first = struct.unpack_from("<I", huge, 0x4C)[0]
    circle = with_number(huge, 512 * (first + 1), 0)
    assert is_oversized(circle) and not is_oversized(WHOLE)
    assert len(Streams(circle).read("Long")) <= len(circle)


def test_a_stream_that_is_cut_off_is_noticed() -> None:
    streams = Streams(with_number(WHOLE, entry("Long") + 0x78, 6000))
    assert len(streams.read("Long")) < 6000 and streams.cut_off
