"""What a run would do, summed up."""

from __future__ import annotations

from headwater.document import text_hash
from headwater.verbs.tally import SAMPLE_TEXTS, Tally, Text


def texts(*contents: str) -> list[Text]:
    return [Text(text_hash(content), content, len(content.split())) for content in contents]


def test_a_text_is_embedded_once_however_often_it_stands_in_the_plan() -> None:
    held = {text_hash("in the index")}
    tally = Tally(lambda hashes: held & set(hashes))
    tally.indexed("new", texts("one", "two words", "one"))
    tally.indexed("changed", texts("in the index", "two words", "in the index"))
    assert (tally.chunks, tally.tokens) == (6, 1 + 2 + 1 + 3 + 2 + 3)
    assert (tally.embedded, tally.embedded_tokens, tally.reused, tally.doubled) == (2, 3, 1, 3)
    assert tally.embedded + tally.reused + tally.doubled == tally.chunks
    assert sorted(tally.sample) == ["one", "two words"]
    assert tally.files == {"new": 1, "changed": 1}


def test_files_that_would_not_be_indexed_are_counted_by_reason() -> None:
    tally = Tally(lambda hashes: set())
    for reason in ("empty", "binary", "empty"):
        tally.not_indexed("refused", reason)
    tally.not_indexed("failed", "it crashed")
    assert tally.files == {"refused": 3, "failed": 1}
    assert tally.to_dict()["reasons"] == {"refused": {"empty": 2, "binary": 1}, "failed": {"it crashed": 1}}


def test_the_sample_is_bounded_and_drawn_from_all_texts() -> None:
    tally = Tally(lambda hashes: set())
    for number in range(100):
        tally.indexed("new", texts(*(f"text {number} {part}" for part in range(50))))
    assert tally.embedded == 5000
    assert len(tally.sample) == len(set(tally.sample)) == SAMPLE_TEXTS
    later = sum(int(text.split()[1]) >= 50 for text in tally.sample)
    assert SAMPLE_TEXTS / 4 < later < SAMPLE_TEXTS * 3 / 4


def test_a_document_without_chunks_asks_nobody() -> None:
    def refuse(hashes: object) -> set[str]:
        raise AssertionError("asked for nothing")

    tally = Tally(refuse)
    tally.indexed("new", [])
    assert (tally.files["new"], tally.chunks) == (1, 0)
