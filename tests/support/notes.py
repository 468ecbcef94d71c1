"""A folder of notes that people edit and ask for without a pause; every answer is judged by its hits."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from word_embedder import WordEmbedder

__all__ = ["NOTES", "TEXT", "Notes", "Traffic"]

NOTES = 8
TEXT = "the sentinel of this note"
_EDIT = re.compile(r"edit (\d+)")
#: two ways to the same score differ by less, and scores of other vectors by more
_NEAR = 1e-4


@dataclass
class Notes:
    """Each note says which edit of it this is."""

    folder: Path
    #: number of the last edit of all
    edits: int = 0

    def fill(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(NOTES):
            self.write(number, 0)

    def edit(self) -> None:
        self.edits += 1
        self.write(self.edits % NOTES, self.edits)

    def write(self, number: int, edit: int) -> None:
        """Sections never share a chunk. The file is replaced: a note that is empty for a moment may be indexed so."""
        new = self.folder.parent / f"{number}.new"
        new.write_text(
            f"# Note {number}\n\nThe sentinel of this note is w{number}w. This is edit {edit}.\n\n"
            f"# More\n\nAnother line of w{number}w, by edit {edit}.\n"
        )
        new.rename(self.folder / f"{number}.md")

    def numbers(self) -> set[str]:
        """Of the edits that the notes show now."""
        return {match[1] for path in self.folder.iterdir() for match in _EDIT.finditer(path.read_text())}


@dataclass
class Traffic:
    """``ask`` gives the answer to a question (text, limit, mode) as the API does; ``dimensions`` are the lengths of the
    vectors of each generation, by which its scores are known."""

    notes: Notes
    ask: Callable[..., dict[str, Any]]
    dimensions: Mapping[int, int]
    #: whether somebody edits as well
    edits: bool = True
    #: answers by generation
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: questions that failed while the one server of the index was down
    unanswered: int = 0
    #: that the slowest answer took
    longest_s: float = 0.0
    _down: bool = False
    _up_at: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._embedders = {number: WordEmbedder(length) for number, length in self.dimensions.items()}

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        self._ended.clear()
        threads = [threading.Thread(target=step) for step in (self._ask, *([self._edit] if self.edits else []))]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def without_index(self) -> Iterator[None]:
        """Nobody can answer meanwhile: a question may fail then, but no answer may be wrong."""
        self._down = True
        try:
            yield
        finally:
            self._down, self._up_at = False, time.monotonic()

    def _edit(self) -> None:
        while not self._ended.wait(0.3):
            self.notes.edit()

    def _ask(self) -> None:
        while not self._ended.wait(0.1):
            began = time.monotonic()
            try:
                answer = self.ask(text=TEXT, limit=4 * NOTES, mode="dense")
            except Exception as error:  # whatever it is, a question was not answered
                if self._down or began < self._up_at:
                    self.unanswered += 1
                else:
                    self.wrong.append(repr(error))
                continue
            self.answers[answer["freshness"]["generation"]] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if (fault := self.fault_of(answer)) is not None:
                self.wrong.append(fault)

    def fault_of(self, answer: Mapping[str, Any]) -> str | None:
        """What is wrong with an answer, if anything: notes that it lacks, texts that nobody wrote, and hits whose
        scores are those of another generation than the one that the answer names."""
        generation, hits = answer["freshness"]["generation"], answer["hits"]
        if len(paths := {hit["path"] for hit in hits}) != NOTES:
            return f"generation {generation} knows {len(paths)} notes in {len(hits)} hits"
        for hit in hits:
            edit = _EDIT.search(hit["text"])
            if edit is None or not 0 <= int(edit[1]) <= self.notes.edits:
                return f"nobody wrote {hit['text']!r}"
            if abs(self.score(generation, hit["text"]) - hit["score"]) > _NEAR:
                others = [
                    number for number in self.dimensions if abs(self.score(number, hit["text"]) - hit["score"]) < _NEAR
                ]
                return f"an answer of generation {generation} has a hit of {others}"
        return None

    def score(self, generation: int, text: str) -> float:
        """That of a hit with this text."""
        embedder = self._embedders[generation]
        asked, found = embedder.encode([TEXT], "query"), embedder.encode([text], "document")
        return float(asked[0] @ found[0])
