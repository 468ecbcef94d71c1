"""Whether XML is a document or data, and what its elements look like: counted in one pass. Pure: no I/O.

It is a document when its root element is one of a known vocabulary of documents, or when attributes are not longer
than the text and either one in twenty elements with text has text between its children, or half of the characters
stand in leaves of 200 and more. All else is data (configuration, build files, schemas, records): there the names of
elements are content, and stay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from worker import vocabulary
from worker.markup import tokens

__all__ = ["Shape", "measured"]

#: Share of elements with text whose text stands between children, from which on XML is a document.
MIXED_SHARE = 0.05
#: Characters of a leaf that is prose, and the share of all text in such, from which on XML is a document.
PROSE_CHARS, PROSE_SHARE = 200, 0.5
#: An element with children is one line up to so many characters.
RECORD_CHARS = 200


@dataclass(slots=True)
class _Counted:
    """An element that has not ended yet, while they are counted."""

    name: str
    children: Counter[str] = field(default_factory=Counter)
    own: int = 0  # its own characters
    below: int = 0  # with those of all within it
    structured: bool = False  # whether headings, running text, lists or tables are within it


@dataclass(slots=True)
class Shape:
    """What the elements of a document look like, counted in one pass."""

    root: str = ""
    texts: int = 0  # elements with text
    mixed: int = 0  # of those, the ones with children, too
    chars: int = 0
    prose: int = 0  # characters in long leaves
    attribute_chars: int = 0
    #: names whose elements all hold a few words without structure, or structure
    short: set[str] = field(default_factory=set)
    long: set[str] = field(default_factory=set)
    #: per name how often it stands within a line, and how often at all
    inline: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def count(self, ended: _Counted) -> None:
        """Take in one element that has ended."""
        self.seen.update(ended.children)
        self.chars += ended.own
        self.texts += ended.own > 0
        if ended.own and ended.children:
            self.mixed += 1
            self.inline.update(ended.children)
        elif ended.own >= PROSE_CHARS:
            self.prose += ended.own
        if ended.children:
            (self.long if ended.structured or ended.below > RECORD_CHARS else self.short).add(ended.name)

    def is_record(self, name: str) -> bool:
        """Whether all that such elements hold together is one line."""
        return name in self.short and name not in self.long

    @property
    def structured(self) -> bool:
        """Whether there are headings and paragraphs at all."""
        return any(vocabulary.role(self.root, name) in ("h", "p") for name in self.seen)

    def is_inline(self, name: str) -> bool:
        return name in vocabulary.TIGHT or 2 * self.inline[name] > self.seen[name]

    def is_document(self) -> bool:
        if self.root in vocabulary.DOCUMENTS:
            return True
        if self.root in vocabulary.DATA or self.attribute_chars > self.chars:
            return False
        return self.mixed > max(1, MIXED_SHARE * self.texts) or self.prose >= PROSE_SHARE * max(self.chars, 1)


def measured(text: str) -> Shape:
    shape = Shape()
    opened: list[_Counted] = []
    names: Counter[str] = Counter()
    for token in tokens(text):
        if isinstance(token, str):
            if opened:
                opened[-1].own += len(token.strip())
        elif not token.closing:
            shape.root = shape.root or token.name
            shape.attribute_chars += len(token.source) if "xmlns" not in token.source else 0
            if opened:
                opened[-1].children[token.name] += 1
                opened[-1].structured |= vocabulary.is_structure(shape.root, token.name)
            if not token.empty:
                opened.append(_Counted(token.name))
                names[token.name] += 1
        elif names[token.name]:
            while _count_last(shape, opened, names) != token.name:
                pass
    return shape


def _count_last(shape: Shape, opened: list[_Counted], names: Counter[str]) -> str:
    ended = opened.pop()
    ended.below += ended.own
    names[ended.name] -= 1
    if opened:
        opened[-1].below += ended.below
        opened[-1].structured |= ended.structured
    shape.count(ended)
    return ended.name
