"""The wire between producer and worker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.document import Fingerprint
from headwater.errors import MessageError
from headwater.messages import (
    Census,
    CensusRequest,
    Embedded,
    Event,
    Hello,
    Hindered,
    Hint,
    Holding,
    Item,
    Outcome,
    census_from_wire,
    census_to_wire,
    event_from_wire,
    event_to_wire,
    events_key,
    queue_name,
)

PATHS = st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path)
SEQS = st.integers(1, 2**53 - 1)
COUNTS = st.integers(0, 2**53)
MARKS = st.builds(Fingerprint, COUNTS, st.integers(-(2**40), 2**63 - 1), st.integers(0, 2**63 - 1), COUNTS)
TRIED = st.none() | st.text("0123456789abcdef", min_size=1)
ITEMS = st.builds(Item, PATHS, SEQS, st.sampled_from(["index", "final", "spent", "delete"]), TRIED)
HINTS = st.builds(
    Hint,
    st.lists(ITEMS, max_size=5).map(tuple),
    st.sampled_from(["live", "bulk"]),
    pipeline=st.sampled_from(["", "ab12"]),
)
STATES = st.sampled_from(
    ["indexed", "partial", "refused", "failed", "deleted", "vanished", "changed", "superseded"]
)  # fmt: skip
OUTCOMES = st.builds(
    Outcome,
    path=PATHS,
    seq=SEQS,
    state=STATES,
    reason=st.none() | st.text(max_size=20),
    fingerprint=st.none() | MARKS,
    content_hash=st.none() | st.just("ab" * 32),
    chunks=st.integers(0, 10**6),
    retryable=st.booleans(),
    service=st.booleans(),
    index_seq=st.integers(0, 2**53 - 1),
)
EVENTS = OUTCOMES | st.builds(Embedded, COUNTS, COUNTS) | st.builds(Hello, st.text(), st.text())
EVENTS |= st.builds(Census, st.text(), st.text(), COUNTS, COUNTS, st.lists(st.tuples(SEQS, COUNTS)).map(tuple))
EVENTS |= st.builds(Holding, st.text(), COUNTS, st.integers(0, 2**53 - 1))
EVENTS |= st.builds(Hindered, st.text(), st.sampled_from(["host", "qdrant"]), st.none() | st.text(max_size=20))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def over_the_wire(wire: dict[str, Any]) -> Any:
    return json.loads(json.dumps(wire))


@given(HINTS)
def test_a_hint_comes_back_as_it_went(hint: Hint) -> None:
    assert Hint.from_wire(over_the_wire(hint.to_wire())) == hint


@given(EVENTS)
def test_an_event_comes_back_as_it_went(event: Event) -> None:
    assert event_from_wire(over_the_wire(event_to_wire(event))) == event


@given(HINTS)
def test_a_wire_is_ascii_whatever_the_names(hint: Hint) -> None:
    items = hint.to_wire()["items"]
    assert all(path.isascii() for path, *_ in items)


def test_the_form_on_the_wire_is_as_agreed() -> None:
    hint = Hint((Item(b"a b/\xff%", 7), Item(b"old", 8, "delete")), "live")
    assert hint.to_wire() == {
        "v": 1,
        "lane": "live",
        "items": [["a b/%FF%25", 7, "index"], ["old", 8, "delete"]],
    }
    assert Hint((Item(b"a", 7, "spent", "h"),), "bulk").to_wire()["items"] == [["a", 7, "spent", "h"]]
    outcome = Outcome(b"a", 7, "indexed", None, Fingerprint(1, 2, 3, 4), "h", 5)
    assert event_to_wire(outcome) == {
        "type": "outcome", "path": "a", "seq": 7, "state": "indexed", "stat": [1, 2, 3, 4], "hash": "h", "chunks": 5,
    }  # fmt: skip
    assert event_to_wire(Embedded(1, 2)) == {"type": "embedded", "embedded": 1, "reused": 2}
    assert queue_name("docs", "bulk") == "docs.bulk"
    assert events_key("docs") == "docs.events"


@pytest.mark.parametrize(
    ("operation", "same", "other"),
    [("index", "index", "index"), ("final", "final", "index"), ("spent", "spent", "final")],
)
def test_tries_belong_to_the_content_that_failed(operation: Any, same: str, other: str) -> None:
    item = Item(b"a", 7, operation, tried="poison")
    assert item.with_content("poison").operation == same
    assert item.with_content("cure").operation == other
    assert Item(b"a", 7, operation).with_content("any").operation == operation


GOOD_ITEM = ["a", 1, "index"]


@pytest.mark.parametrize(
    "wire",
    [
        None, 5, "hint", [], {}, {"v": 2, "lane": "live", "items": []}, {"v": 1, "lane": "slow", "items": []},
        {"v": 1, "lane": ["live"], "items": []}, {"v": 1, "lane": "live"}, {"v": 1, "lane": "live", "items": "abc"},
        {"v": 1, "lane": "live", "items": {"a": 1}}, {"v": 1, "lane": "live", "items": [None]},
        {"v": 1, "lane": "live", "items": [GOOD_ITEM, ["a", 1]]}, {"v": 1, "lane": "live", "items": [["", 1, "index"]]},
        {"v": 1, "lane": "live", "items": [["a", 0, "index"]]}, {"v": 1, "lane": "live", "items": [["a", -1, "index"]]},
        {"v": 1, "lane": "live", "items": [["a", 1.5, "index"]]},
        {"v": 1, "lane": "live", "items": [["a", "1", "index"]]},
        {"v": 1, "lane": "live", "items": [["a", 1, "destroy"]]}, {"v": 1, "lane": "live", "items": [[1, 1, "index"]]},
        {"v": 1, "lane": "live", "items": [["a", 1, ["index"]]]},
        {"v": 1, "lane": "live", "items": [["a", True, "index"]]},
        {"v": 1, "lane": "live", "items": [["\ud800", 1, "index"]]},
        {"v": 1, "lane": "live", "items": [["a", 1, "spent", ""]]},
        {"v": 1, "lane": "live", "items": [["a", 1, "spent", 5]]},
        {"v": 1, "lane": "live", "items": [["a", 1, "spent", "h", "h"]]},
    ],
)  # fmt: skip
def test_what_is_no_hint_is_a_message_error(wire: object) -> None:
    with pytest.raises(MessageError):
        Hint.from_wire(wire)


@pytest.mark.parametrize("seq", [2**53, 2**63, 10**30])
def test_a_hint_with_a_seq_that_a_float_cannot_hold_is_refused(seq: int) -> None:
    # such a seq, once in the index, would take the fence away from all later ones
    with pytest.raises(MessageError):
        Hint.from_wire({"v": 1, "lane": "live", "items": [["a", seq, "index"]]})


@given(JSON)
def test_any_json_is_a_hint_or_a_message_error(wire: object) -> None:
    for candidate in (wire, {"v": 1, "lane": "live", "items": wire}, {"v": 1, "lane": "live", "items": [wire]}):
        try:
            hint = Hint.from_wire(candidate)
        except MessageError:
            continue
        assert Hint.from_wire(hint.to_wire()) == hint


OUTCOME = {"type": "outcome", "path": "a", "seq": 1, "state": "indexed"}


@pytest.mark.parametrize(
    "wire",
    [
        None, 5, "event", [], {}, {"type": "other"}, {"type": []}, {"type": "embedded"},
        {"type": "embedded", "embedded": "x", "reused": 0}, {"type": "embedded", "embedded": None, "reused": 0},
        {"type": "embedded", "embedded": float("inf"), "reused": 0},
        {"type": "embedded", "embedded": float("nan"), "reused": 0},
        {"type": "hello", "worker": "w"},
        {"type": "census", "census": "c", "index_id": "i", "page": 0, "pages": 1, "counts": [[1]]},
        {"type": "census", "census": "c", "index_id": "i", "page": float("inf"), "pages": 1, "counts": []},
        {"type": "outcome", "path": "a", "seq": 1}, {**OUTCOME, "state": "gone"}, {**OUTCOME, "state": ["indexed"]},
        {**OUTCOME, "path": 5}, {**OUTCOME, "path": None}, {**OUTCOME, "path": "\ud800"}, {**OUTCOME, "seq": "x"},
        {**OUTCOME, "seq": float("inf")}, {**OUTCOME, "stat": 5}, {**OUTCOME, "stat": [1, 2]},
        {**OUTCOME, "stat": ["x", 1, 2, 3]}, {**OUTCOME, "chunks": float("inf")}, {**OUTCOME, "chunks": []},
        {**OUTCOME, "reason": {"a": 1}}, {**OUTCOME, "reason": 5}, {**OUTCOME, "hash": [1]},
        {**OUTCOME, "seq": 10**30}, {**OUTCOME, "stat": [10**30, 1, 2, 3]}, {**OUTCOME, "chunks": 10**30},
        {**OUTCOME, "index_seq": 10**30},
    ],
)  # fmt: skip
def test_what_is_no_event_is_a_message_error(wire: object) -> None:
    # each of these would otherwise end in an exception of the thread that reads, or of SQLite
    with pytest.raises(MessageError):
        event_from_wire(wire)


@given(JSON, st.sampled_from(["path", "seq", "state", "stat", "hash", "chunks", "reason", "index_seq", "type"]))
def test_any_json_in_any_place_is_an_event_that_the_ledger_can_keep_or_a_message_error(value: Any, name: str) -> None:
    for candidate in (value, {**OUTCOME, name: value}, {"type": "embedded", "embedded": value, "reused": 0}):
        try:
            event = event_from_wire(candidate)
        except MessageError:
            continue
        if isinstance(event, Outcome):
            assert isinstance(event.reason, str | None)
            assert isinstance(event.content_hash, str | None)
            assert -(2**63) <= event.seq < 2**63
            assert -(2**63) <= event.chunks < 2**63


@given(st.builds(CensusRequest, st.text(max_size=20), st.lists(SEQS, max_size=5).map(tuple), st.text(), st.booleans()))
def test_a_request_for_a_census_survives_the_wire(request: CensusRequest) -> None:
    assert census_from_wire(over_the_wire(census_to_wire(request))) == request


@pytest.mark.parametrize(
    "wire", [None, {}, {"v": 2, "census": "c", "sweep": []}, {"v": 1, "census": "c", "sweep": ["1"]}]
)
def test_a_forged_request_for_a_census_is_refused(wire: object) -> None:
    with pytest.raises(MessageError, match="drop the message"):
        census_from_wire(wire)


_NOW_S = 1_800_000_000.0
_NEXT_YEAR = int(_NOW_S + 400 * 24 * 3600) * 1_000_000


def _read_all(seq: int, now_s: float) -> None:
    Hint.from_wire(Hint((Item(b"a.md", seq),), "live").to_wire(), now_s)
    census_from_wire(census_to_wire(CensusRequest("c", (seq,))), now_s)
    for event in _events(seq):
        event_from_wire(event_to_wire(event), now_s)


def _events(seq: int) -> list[Event]:
    return [
        Outcome(b"a.md", seq, "indexed"),
        Outcome(b"a.md", 1, "superseded", index_seq=seq),
        Census("c", "i", 0, 1, ((seq, 1),)),
    ]


def test_a_seq_of_a_clock_that_is_wrong_by_a_year_is_taken() -> None:
    _read_all(_NEXT_YEAR, _NOW_S)


def test_a_forged_seq_after_which_nothing_could_be_written_is_dropped() -> None:
    with pytest.raises(MessageError):
        Hint.from_wire(Hint((Item(b"a.md", 2**53 - 2),), "live").to_wire(), _NOW_S)
    with pytest.raises(MessageError):
        census_from_wire(census_to_wire(CensusRequest("c", (2**53 - 2,))), _NOW_S)
    for event in _events(2**53 - 2):
        with pytest.raises(MessageError):
            event_from_wire(event_to_wire(event), _NOW_S)
