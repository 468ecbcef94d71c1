"""Sums up what a run would do. Pure; holds numbers, hashes and a bounded sample, never the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

__all__ = ["Tally", "Text"]

#: texts whose speed is measured
SAMPLE_TEXTS = 96


@dataclass(frozen=True, slots=True)
class Text:
    """One chunk to be indexed, its tokens counted as the model will."""

    text_hash: str
    text: str
    tokens: int


@dataclass
class Tally:
    """``known`` tells which texts (by hash) have a vector in the index already."""

    known: Callable[[Sequence[str]], set[str]]
    #: files by what would become of them
    files: Counter[str] = field(default_factory=Counter)
    #: why files would be refused or would fail
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {"refused": Counter(), "failed": Counter()})
    chunks: int = 0
    tokens: int = 0
    #: texts whose vector is in the index; that stand in the plan before; that the model would see
    reused: int = 0
    doubled: int = 0
    embedded: int = 0
    embedded_tokens: int = 0
    #: an even choice of the texts to be embedded
    sample: list[str] = field(default_factory=list)
    _met: set[bytes] = field(default_factory=set)
    _random: Random = field(default_factory=lambda: Random(0))  # noqa: S311  no secret hangs on it

    def not_indexed(self, state: str, reason: str) -> None:
        """A file would be refused, or would fail."""
        self.files[state] += 1
        self.reasons[state][reason] += 1

    def indexed(self, kind: str, texts: Sequence[Text]) -> None:
        """A file would be indexed with these chunks."""
        self.files[kind] += 1
        self.chunks += len(texts)
        self.tokens += sum(text.tokens for text in texts)
        fresh: dict[str, Text] = {}
        for text in texts:
            key = bytes.fromhex(text.text_hash)
            if key in self._met:
                self.doubled += 1
            else:
                self._met.add(key)
                fresh[text.text_hash] = text
        known = self.known(list(fresh)) if fresh else set()
        self.reused += len(known & set(fresh))
        for text_hash, text in fresh.items():
            if text_hash not in known:
                self._embed(text)

    def _embed(self, text: Text) -> None:
        """Count a text for the model; keep it in the sample with equal chance for each (reservoir sampling)."""
        self.embedded += 1
        self.embedded_tokens += text.tokens
        if len(self.sample) < SAMPLE_TEXTS:
            self.sample.append(text.text)
        elif (place := self._random.randrange(self.embedded)) < SAMPLE_TEXTS:
            self.sample[place] = text.text

    def to_dict(self) -> dict[str, Any]:
        return {
            "files": dict(self.files),
            "reasons": {state: dict(counts.most_common()) for state, counts in self.reasons.items()},
            "chunks": self.chunks,
            "tokens": self.tokens,
            "texts": {"embedded": self.embedded, "reused": self.reused, "doubled": self.doubled},
            "embedded_tokens": self.embedded_tokens,
        }
