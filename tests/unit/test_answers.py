"""An answer of an extraction child is believed only as far as it fits together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from headwater.document import text_hash
from headwater.index import Chunk, Member
from worker.answers import Extraction, Failure, Refusal, understand
from worker.exchange import Garbled

CHUNKS = (
    Chunk(0, "Herons", text_hash("Herons"), 0, 6, 1, 1, None, ("Birds",)),
    Chunk(1, "wait", text_hash("wait"), 7, 11, None, None, 3),
)


def answer(**changes: Any) -> dict[str, Any]:
    whole = {"id": 5, "chunks": [asdict(chunk) for chunk in CHUNKS], "kind": "text", "title": None, "metadata": {}}
    return {**whole, "partial": None, "members": [], "unread": [], "libraries": {}, **changes}


def chunk(**changes: Any) -> list[dict[str, Any]]:
    return [{**asdict(CHUNKS[0]), **changes}]


def test_what_a_child_read_is_understood() -> None:
    assert understand(answer(title="T"), 5) == Extraction(CHUNKS, "text", "T", {}, None)
    member = {"name": "b.txt", "kind": "text", "title": None, "metadata": {"author": "Ada"}}
    within = understand(answer(chunks=chunk(member=0), members=[member], unread=["c: empty"]), 5)
    assert isinstance(within, Extraction) and within.chunks[0].member == 0
    assert (within.members, within.unread) == ((Member("b.txt", "text", metadata={"author": "Ada"}),), ("c: empty",))
    assert understand({"id": 5, "refused": "empty"}, 5) == Refusal("empty")
    assert understand({"id": 5, "failed": "no memory"}, 5) == Failure("no memory")


@pytest.mark.parametrize(
    "wrong",
    [
        answer(id=4),
        {"refused": "no number"},
        {"id": 5, "refused": None},
        {"id": 5},
        answer(chunks=None),
        answer(chunks=["Herons"]),
        answer(chunks=chunk(number=1)),
        answer(chunks=chunk(text="Storks")),
        answer(chunks=chunk(text=5)),
        answer(chunks=chunk(start="0")),
        answer(chunks=chunk(page=True)),
        answer(chunks=chunk(headings=[1])),
        answer(chunks=chunk(unknown=1)),
        answer(kind=None),
        answer(title=["T"]),
        answer(metadata=[]),
        answer(partial=1),
        answer(members=None),
        answer(members=[{"name": 1, "kind": "text", "title": None, "metadata": {}}]),
        answer(chunks=chunk(member=0)),
        answer(unread=[1]),
    ],
)
def test_what_does_not_fit_together_is_garbled(wrong: dict[str, Any]) -> None:
    with pytest.raises(Garbled):
        understand(wrong, 5)
