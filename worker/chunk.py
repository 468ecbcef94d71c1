"""Cuts a text into chunks that fit the model's window and keep their borders under edits. Pure: no I/O.

The document is tokenised once; borders are then chosen on token counts. Sections never share a chunk. A paragraph
that fits stays whole, one that does not, alone or below its heading, is cut into as few equal parts as can be, and
short ones are joined, but only up to a part of the limit: what an edit costs is the size of the chunk around it. A
chunk that is full enough also ends after a paragraph whose own hash says so (content-defined chunking, Muthitacharoen,
Chen, Mazieres 2001): after an edit, the borders behind it fall back into place at the next such paragraph or heading.
The figures behind the shares: docs/performance.md, "Chunk borders".
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from headwater.document import text_hash
from headwater.index import Chunk
from worker.outline import Block, blocks

__all__ = ["TokenCounter", "chunk"]

#: a chunk holds at most this many characters per token of its limit: one "unknown" token may span any length
_CHARACTERS_PER_TOKEN = 12
#: share of the limit up to which paragraphs are joined
_JOINED_SHARE = 0.35
#: share of the limit up to which a beginning (a heading, a line above code) takes in what follows, if both fit
_STUB_SHARE = 0.1
#: share of the limit from which on a content-defined border may close a chunk, and the odds of one
_EARLY_SHARE = 0.2
_EARLY_ODDS = 3
#: share of the limit above which a chunk is counted again by itself: a cut may change the tokens beside it
_RECOUNT_SHARE = 0.7
#: share of the limit that is left to the headings above a chunk, where the model is to read them
_CONTEXT_SHARE = 0.2

_LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_LIST_ITEMS = re.compile(r"\n(?=[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t])")
_SENTENCES = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])")
_WORDS = re.compile(r"\s+")
#: how code and tables begin: a full stop there ends no sentence
_NO_PROSE = re.compile(r" {0,3}(?:```|~~~|\||<|    |\t)")
_SENTENCE_BORDERS = (_LIST_ITEMS, _SENTENCES)
_PROSE = (_LIST_ITEMS, _SENTENCES, _LINES, _WORDS)
_RECORDS = (_LINES, _SENTENCES, _WORDS)
#: kinds whose lines are records or statements, not wrapped prose
_LINE_KINDS = frozenset({"code", "csv", "json", "xml"})


class TokenCounter(Protocol):
    """The model's own tokenizer, without special tokens, truncation and padding."""

    def starts(self, text: str) -> Sequence[int]:
        """The character at which each token begins, in order."""
        ...

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        """The number of tokens of each text."""
        ...


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece of the text that is not cut further, with its section and heading path."""

    start: int
    end: int
    tokens: int
    section: tuple[int, int]
    headings: tuple[str, ...]
    #: where the paragraph begins that it is a part of, if that does not fit, and the tokens of each of its equal parts
    part_of: tuple[int, int] | None = None


def chunk(
    text: str,
    kind: str,
    counter: TokenCounter,
    max_tokens: int,
    *,
    body_start: int = 0,
    pages: Sequence[int] = (),
    own_lines: bool = True,
    heading_context: bool = False,
) -> list[Chunk]:
    """Chunks in order, numbered from 0, none with more than ``max_tokens`` tokens, which together hold every
    character of the body but blank space. ``pages`` are the characters at which pages begin. ``heading_context``: each
    chunk carries the headings above it as its context, which counts as a part of it."""
    most = max_tokens - int(max_tokens * _CONTEXT_SHARE) if heading_context else max_tokens
    cutter = _Cutter(text, kind, counter, most, body_start, pages)
    spans = cutter.fitting(cutter.packed())
    lines = _line_starts(text) if own_lines else None
    chunks = [_to_chunk(text, span, number, lines, pages) for number, span in enumerate(spans)]
    return _with_headings(chunks, counter, max_tokens) if heading_context else chunks


def _with_headings(chunks: Sequence[Chunk], counter: TokenCounter, max_tokens: int) -> list[Chunk]:
    """The headings that a chunk does not itself show, the innermost last; the outer ones go if all are too long."""
    room = int(max_tokens * _CONTEXT_SHARE)
    paths = [_hidden_headings(chunk) for chunk in chunks]
    contexts = {path: _context(path, counter, room) for path in dict.fromkeys(paths)}
    found = [_in_context(chunk, contexts[path]) for chunk, path in zip(chunks, paths, strict=True)]
    counts = counter.counts([chunk.embedded for chunk in found])
    return [whole if count <= max_tokens else plain for whole, plain, count in zip(found, chunks, counts, strict=True)]


def _hidden_headings(chunk: Chunk) -> tuple[str, ...]:
    """All but the innermost if the chunk begins with its line; sections never share a chunk, so it shows no other."""
    first_line = chunk.text.split("\n", 1)[0].strip("#= \t\r")
    return chunk.headings[:-1] if first_line in chunk.headings[-1:] else chunk.headings


def _context(headings: Sequence[str], counter: TokenCounter, most: int) -> str:
    for first in range(len(headings)):
        context = " > ".join(headings[first:])
        if counter.counts([context])[0] <= most:
            return context
    return ""


def _in_context(chunk: Chunk, context: str) -> Chunk:
    return replace(chunk, context=context, text_hash=text_hash(chunk.text, context))


class _Cutter:
    def __init__(
        self,
        text: str,
        kind: str,
        counter: TokenCounter,
        max_tokens: int,
        body_start: int,
        pages: Sequence[int],
    ) -> None:
        self._text = text
        self._counter = counter
        self._max_tokens = max_tokens
        self._max_characters = max_tokens * _CHARACTERS_PER_TOKEN
        self._borders = _RECORDS if kind in _LINE_KINDS else _PROSE
        self._blocks = blocks(text, kind, body_start)
        self._pages = pages
        self._starts = counter.starts(text)

    # -- paragraphs into pieces that fit ---------------------------------------------------------------------

    def _pieces(self) -> Iterator[_Span]:
        for block in self._blocks:
            for start, end in self._by_page(block):
                page = bisect_right(self._pages, start)
                part_of = None if self._fits(start, end) else (start, self._equal_part(start, end))
                for first, last in self._split(start, end, 0):
                    tokens = self._tokens(first, last)
                    yield _Span(first, last, tokens, (block.section, page), block.headings, part_of)

    def _equal_part(self, start: int, end: int) -> int:
        """Tokens of a part, when as few equal ones as can be are made."""
        tokens = self._tokens(start, end)
        return -(-tokens // -(-tokens // self._max_tokens))

    def _by_page(self, block: Block) -> Iterator[tuple[int, int]]:
        inside = [page for page in self._pages if block.start < page < block.end]
        yield from pairwise([block.start, *inside, block.end])

    def _split(self, start: int, end: int, level: int) -> Iterator[tuple[int, int]]:
        """Cut at the first kind of border that the text has, until each piece fits; packing joins them again."""
        if self._fits(start, end):
            yield start, end
        elif level < len(self._borders):
            found = self._borders[level].finditer(self._text, start, end)
            cuts = [match.end() for match in found if start < match.end() < end]
            for first, last in pairwise([start, *cuts, end]):
                yield from self._split(first, last, level + 1)
        else:
            yield from self._split_anywhere(start, end)

    def _split_anywhere(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """No border at all (a line without spaces): cut between tokens, or between characters of a giant one."""
        while not self._fits(start, end):
            token = bisect_left(self._starts, start) + self._max_tokens
            by_tokens = self._starts[token] if token < len(self._starts) else end
            cut = max(start + 1, min(by_tokens, start + self._max_characters, end))
            yield start, cut
            start = cut
        if end > start:
            yield start, end

    def _fits(self, start: int, end: int) -> bool:
        return end - start <= self._max_characters and self._tokens(start, end) <= self._max_tokens

    def _tokens(self, start: int, end: int) -> int:
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    # -- pieces into chunks ----------------------------------------------------------------------------------

    def packed(self) -> Iterator[_Span]:
        """Neighbours of one section joined up to a part of the limit."""
        current: _Span | None = None
        for paragraph in self._pieces():
            for piece in self._below(current, paragraph):
                if current is None:
                    current = piece
                elif self._joins(current, piece):
                    tokens = current.tokens + piece.tokens
                    current = replace(current, end=piece.end, tokens=tokens, part_of=piece.part_of)
                else:
                    yield current
                    current = piece
                if self._closes(current, piece):
                    yield current
                    current = None
        if current is not None:
            yield current

    def _below(self, current: _Span | None, piece: _Span) -> list[_Span]:
        """The sentences of a paragraph that fits alone but not together with the beginning above it (which else would
        be a chunk of its own); in any other case the paragraph."""
        if current is None or piece.part_of is not None or not self._is_stub_of(current, piece):
            return [piece]
        is_prose = self._borders is _PROSE and _NO_PROSE.match(self._text, piece.start) is None
        if not is_prose or self._fits(current.start, piece.end):
            return [piece]
        matches = (
            match for border in _SENTENCE_BORDERS for match in border.finditer(self._text, piece.start, piece.end)
        )
        cuts = sorted({match.end() for match in matches if piece.start < match.end() < piece.end})
        if not cuts or not self._fits(current.start, cuts[0]):
            return [piece]
        part_of = piece.start, self._equal_part(current.start, piece.end)
        spans = pairwise([piece.start, *cuts, piece.end])
        return [replace(piece, start=a, end=b, tokens=self._tokens(a, b), part_of=part_of) for a, b in spans]

    def _is_stub_of(self, current: _Span, piece: _Span) -> bool:
        return current.section == piece.section and current.tokens <= self._max_tokens * _STUB_SHARE

    def _joins(self, current: _Span, piece: _Span) -> bool:
        if current.section != piece.section or not self._fits(current.start, piece.end):
            return False
        if piece.part_of is not None and current.part_of == piece.part_of:
            return current.tokens + piece.tokens / 2 <= piece.part_of[1]
        return self._is_stub_of(current, piece) or current.tokens + piece.tokens <= self._max_tokens * _JOINED_SHARE

    def _closes(self, current: _Span, piece: _Span) -> bool:
        """Whether a chunk that is full enough ends after this piece: decided by the piece's own words alone. The parts
        of a paragraph that does not fit end where they are equal."""
        if piece.part_of is not None or current.tokens < self._max_tokens * _EARLY_SHARE:
            return False
        words = " ".join(self._text[piece.start : piece.end].split())
        return zlib.crc32(words.encode("utf-8", "surrogatepass")) % _EARLY_ODDS == 0

    # -- the last word has the tokenizer ---------------------------------------------------------------------

    def fitting(self, spans: Iterator[_Span]) -> list[_Span]:
        """Count full chunks again by themselves, and halve those that are over: a cut can change tokens."""
        kept: list[_Span] = []
        waiting = [stripped for span in spans if (stripped := self._stripped(span)) is not None]
        over = self._over(waiting)
        for span in waiting:
            kept += self._halved(span) if span in over and span.end - span.start > 1 else [span]
        return kept

    def _over(self, spans: Sequence[_Span]) -> set[_Span]:
        most = self._max_tokens * _RECOUNT_SHARE
        full = [span for span in spans if span.tokens > most or self._cuts_a_word(span)]
        counts = self._counter.counts([self._text[span.start : span.end] for span in full])
        return {span for span, count in zip(full, counts, strict=True) if count > self._max_tokens}

    def _cuts_a_word(self, span: _Span) -> bool:
        """Whether a border lies inside a word: a word that was one unknown token may be many in pieces. To a tokenizer
        only plain blanks part words; a form feed, say, is nothing at all to BERT's."""
        beside = self._text[max(0, span.start - 1) : span.start] + self._text[span.end : span.end + 1]
        return bool(beside.strip(" \t\r\n"))

    def _halved(self, span: _Span) -> list[_Span]:
        middle = (span.start + span.end) // 2
        space = self._text.rfind(" ", span.start + 1, middle)
        cut = space if space > 0 else middle
        halves = (
            replace(span, start=start, end=end, tokens=self._max_tokens)
            for start, end in ((span.start, cut), (cut, span.end))
        )
        return self.fitting(iter([half for half in halves if half.end > half.start]))

    def _stripped(self, span: _Span) -> _Span | None:
        piece = self._text[span.start : span.end]
        start = span.start + len(piece) - len(piece.lstrip())
        end = span.start + len(piece.rstrip())
        return replace(span, start=start, end=end) if end > start else None


def _to_chunk(text: str, span: _Span, number: int, lines: list[int] | None, pages: Sequence[int]) -> Chunk:
    piece = text[span.start : span.end]
    return Chunk(
        number=number,
        text=piece,
        text_hash=text_hash(piece),
        start=span.start,
        end=span.end,
        start_line=None if lines is None else bisect_right(lines, span.start),
        end_line=None if lines is None else bisect_right(lines, span.end - 1),
        page=bisect_right(pages, span.start) if pages else None,
        headings=span.headings,
    )


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]
