"""Whole frames by a deadline, whatever the other end does."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from worker.exchange import MOST_ANSWER_BYTES, Ended, Exchange, Garbled, Late
from worker.frames import encoded_frame, read_frame

SOON_S = 0.3


@dataclass
class Pipes:
    """An exchange, and the child's ends of its pipes."""

    exchange: Exchange
    requests: int
    answers: int
    looks: list[float]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    requests, to = os.pipe()
    back, answers = os.pipe()
    looks: list[float] = []
    made = Pipes(Exchange(to, back, lambda: looks.append(time.monotonic())), requests, answers, looks)
    yield made
    for pipe in (to, back, made.requests, made.answers):
        if pipe >= 0:
            os.close(pipe)


def soon() -> float:
    return time.monotonic() + SOON_S


def test_an_answer_comes_back(pipes: Pipes) -> None:
    os.write(pipes.answers, encoded_frame({"id": 1, "é": None}, b""))
    assert pipes.exchange.receive(soon()) == {"id": 1, "é": None}


def test_a_request_larger_than_a_pipe_arrives(pipes: Pipes) -> None:
    body = os.urandom(1024 * 1024)
    thread = threading.Thread(target=lambda: pipes.exchange.send({"id": 1}, body, time.monotonic() + 10))
    thread.start()
    with open(pipes.requests, "rb", closefd=False) as reading:
        assert read_frame(reading) == ({"id": 1}, body)
    thread.join()


@pytest.mark.parametrize("sent", [b"", b"\0", struct.pack("!II", 100, 0) + b'{"id":'])
def test_half_a_frame_is_waited_for_until_the_deadline_and_no_longer(pipes: Pipes, sent: bytes) -> None:
    started = time.monotonic()
    os.write(pipes.answers, sent)
    with pytest.raises(Late):
        pipes.exchange.receive(soon())
    assert SOON_S <= time.monotonic() - started < SOON_S + 1
    assert len(pipes.looks) >= 2


def test_bytes_that_drip_do_not_move_the_deadline(pipes: Pipes) -> None:
    stop = threading.Event()

    def drip() -> None:
        os.write(pipes.answers, struct.pack("!II", 10_000, 0))
        while not stop.wait(0.01):
            os.write(pipes.answers, b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(Late):
        pipes.exchange.receive(soon())
    stop.set()
    thread.join()
    assert len(pipes.looks) >= 2  # looked at meanwhile, too


def test_a_reader_that_does_not_read_is_waited_for_until_the_deadline(pipes: Pipes) -> None:
    with pytest.raises(Late):
        pipes.exchange.send({}, bytes(1024 * 1024), soon())


def test_pipes_that_are_closed_are_an_end(pipes: Pipes) -> None:
    os.write(pipes.answers, b"\0\0")
    os.close(pipes.answers)
    os.close(pipes.requests)
    pipes.answers = pipes.requests = -1
    with pytest.raises(Ended):
        pipes.exchange.receive(soon())
    with pytest.raises(Ended):
        pipes.exchange.send({}, b"x", soon())
    assert not pipes.exchange.silent()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!II", MOST_ANSWER_BYTES + 1, 0),
        struct.pack("!II", 2, 1) + b"{}x",
        struct.pack("!II", 4, 0) + b"nope",
        struct.pack("!II", 2, 0) + b"[]",
        struct.pack("!II", 2, 0) + b"\xff\xff",
        struct.pack("!II", 50_000, 0) + b"[" * 50_000,
    ],
)
def test_what_is_no_answer_is_garbled(pipes: Pipes, sent: bytes) -> None:
    os.write(pipes.answers, sent)
    with pytest.raises(Garbled):
        pipes.exchange.receive(soon())


def test_who_has_nothing_to_say_is_silent(pipes: Pipes) -> None:
    assert pipes.exchange.silent()
    os.write(pipes.answers, json.dumps({}).encode())
    assert not pipes.exchange.silent()
