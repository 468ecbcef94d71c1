"""Reads a document and the files within it, each as a document of its own: an archive, a mail with its attachments, an
Office file with what is embedded in it.

An archive is hostile until it is read: depth, number of files, their sizes and how much they inflate are bounded, and
the bounds are of the content alone, so that the same bytes always give the same documents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from headwater.document import member_path, path_to_text
from worker.extract import read, without_text
from worker.extracted import Extracted, Member, Refused, nothing
from worker.filetype import ARCHIVES

__all__ = ["Limits", "Piece", "Reading", "Unread", "read_deep"]

#: characters of a name within a document
_MOST_NAME = 300
#: what may be unpacked whatever the size of the document, and beyond that in all per byte of it
_FREE_BYTES = 16 * 1024 * 1024
_MOST_RATIO = 250
#: files that are left out are named up to this many
_MOST_NAMED = 100
#: files that nobody would expect to find by their words: to leave them out leaves no document in parts
_WORDLESS = frozenset(("unsupported", "binary", "empty"))
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be within one document. With a depth of 0 nothing within it is read."""

    depth: int = 8
    members: int = 10_000
    #: of one file within it, unpacked
    member_bytes: int = 64 * 1024 * 1024
    #: of all of them together
    total_bytes: int = 1024 * 1024 * 1024
    #: characters of all texts together
    chars: int = 20_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """The document itself, without a name, or a file within it: what it says."""

    name: str | None
    read: Extracted


@dataclass(frozen=True, slots=True)
class Unread:
    """A file within the document that is not for the index."""

    name: str
    code: str
    reason: str


@dataclass(slots=True)
class Reading:
    """What a document is, and what became of the files within it, once all its pieces are taken."""

    unread: list[Unread] = field(default_factory=list)
    kind: str = ""
    title: str | None = None
    library: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    #: why files are missing that were not even looked at
    cut: str | None = None
    partial: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """For people, each file that is not indexed."""
        return [f"{found.name}: {found.reason}" for found in self.unread[:_MOST_NAMED]]

    def why_partial(self) -> str | None:
        """Why the document is indexed in part; None if what has words is indexed."""
        missing = [found for found in self.unread if found.code not in _WORDLESS]
        told = list(self.partial)
        if missing:
            first = missing[0]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            told.insert(0, f"{first.name}{more} within it: {first.reason}")
        if self.cut and not any(found.reason == self.cut for found in missing):
            told.append(self.cut)
        return "; ".join(told[:3]) or None

    def refusal(self) -> Refused:
        """Why nothing of the document is indexed."""
        if self.kind not in ARCHIVES or not (self.unread or self.cut):
            return without_text(self.kind)
        if not self.unread:
            return Refused("too large", str(self.cut))
        worst = next((found for found in self.unread if found.code not in _WORDLESS), self.unread[0])
        if len(self.unread) == 1:
            return Refused(worst.code, f"{worst.name} within it: {worst.reason}")
        return Refused(worst.code, f"none of the {len(self.unread)} files within it can be read: {worst.reason}")


def read_deep(
    data: bytes,
    name: str,
    reading: Reading,
    *,
    limits: Limits = Limits(),
    passwords: Sequence[str] = (),
    ocr: str = "",
    skipped: Mapping[str, str] = MappingProxyType({}),
    on_member: Callable[[str], None] = lambda name: None,
    on_part: Callable[[], None] = nothing,
) -> Iterator[Piece]:
    """The document and the files within it that have a text, in the order in which they stand there, one at a time.

    ``skipped`` are files that are not looked into, with the reason. ``on_member`` hears the name of each file before it
    is read, and ``on_part`` is called before each part of one that takes long. Raises Refused if nothing in it is for
    the index, and what ``worker.extract.read`` raises.
    """
    means = partial(read, passwords=passwords, ocr=ocr, on_part=on_part)
    walk = _Walk(reading, limits, means, skipped, on_member)
    yield from walk.document(data, name)
    if not walk.found:
        raise reading.refusal()


class _Walk:
    def __init__(
        self,
        reading: Reading,
        limits: Limits,
        read: Callable[..., Extracted],
        skipped: Mapping[str, str],
        on_member: Callable[[str], None],
    ) -> None:
        self._reading = reading
        self._limits = limits
        self._read_one = read
        self._skipped = skipped
        self._on_member = on_member
        self._names: set[str] = set()
        self._members = 0
        self._bytes_left = 0
        self._chars_left = limits.chars
        self.found = 0

    def document(self, data: bytes, name: str) -> Iterator[Piece]:
        self._bytes_left = min(self._limits.total_bytes, _FREE_BYTES + _MOST_RATIO * len(data))
        whole = self._read_one(data, name, max_chars=self._chars_left)
        if whole.kind in ARCHIVES and not self._limits.depth:
            raise Refused("unsupported", "archives are not read (HEADWATER_ARCHIVE_DEPTH is 0)")
        self._reading.kind, self._reading.library = whole.kind, whole.library
        self._reading.title, self._reading.metadata = whole.title, whole.metadata
        if whole.partial:
            self._reading.partial.append(whole.partial)
        yield from self._pieces(whole, None, (_digest(data),))

    def _pieces(self, whole: Extracted, name: str | None, above: tuple[bytes, ...]) -> Iterator[Piece]:
        if whole.text.strip():
            self.found += 1
            self._chars_left = max(0, self._chars_left - len(whole.text))
            yield Piece(name, whole)
        try:
            for member in whole.members if self._limits.depth else ():
                if (why := self._spent(above)) is not None:
                    self._reading.cut = why
                    return
                yield from self._member(member, name, above)
        except Refused as refused:  # of the container, past what was given of it
            self._reading.partial.append(f"the files within it: {refused.reason}")

    def _spent(self, above: tuple[bytes, ...]) -> str | None:
        """Why nothing more of a document is read."""
        if len(above) > self._limits.depth:
            return f"files within files are read to a depth of {self._limits.depth}"
        if self._members >= self._limits.members:
            return f"only {self._limits.members} files within it are read"
        if self._bytes_left <= 0:
            return "it unpacks to more than is allowed"
        if self._chars_left <= 0:
            return f"only the first {self._limits.chars} characters are indexed"
        return None

    def _member(self, member: Member, within: str | None, above: tuple[bytes, ...]) -> Iterator[Piece]:
        self._members += 1
        name = self._name(member.name, within)
        try:
            whole, data = self._read(member, name, above)
        except Refused as refused:
            self._reading.unread.append(Unread(name, refused.code, refused.reason))
            return
        before = self.found
        if whole.partial:
            self._reading.partial.append(f"{name}: {whole.partial}")
        unread = len(self._reading.unread)
        yield from self._pieces(whole, name, (*above, _digest(data)))
        if self.found == before and len(self._reading.unread) == unread:
            nothing = Refused("too large", self._reading.cut) if self._reading.cut else without_text(whole.kind)
            self._reading.unread.append(Unread(name, nothing.code, nothing.reason))

    def _read(self, member: Member, name: str, above: tuple[bytes, ...]) -> tuple[Extracted, bytes]:
        if name in self._skipped:
            raise Refused("damaged", self._skipped[name])
        self._on_member(name)
        most = min(self._limits.member_bytes, self._bytes_left)
        data = member.read(most + 1)
        self._bytes_left -= len(data)
        if len(data) > most:
            raise Refused("too large", f"larger than the {most} bytes that are allowed there")
        if _digest(data) in above:
            raise Refused("too large", "it holds itself without an end")
        return self._read_one(data, member.name, max_chars=self._chars_left), data

    def _name(self, given: str, within: str | None) -> str:
        """A name that stands alone in the document, made of what its container calls it."""
        own = _tidy(given)
        name = own if within is None else member_path(within, own)
        number = 2
        while name in self._names:
            name = f"{own} ({number})" if within is None else member_path(within, f"{own} ({number})")
            number += 1
        self._names.add(name)
        return name


def _tidy(name: str) -> str:
    """A relative path without steps upwards and control characters, of bounded length."""
    text = path_to_text(name.encode("utf-8", "surrogateescape")) if name.isprintable() else _printable(name)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    tidy = "/".join(parts).strip()
    return tidy if len(tidy) <= _MOST_NAME else tidy[: _MOST_NAME - 41] + "~" + tidy[-40:]


def _printable(name: str) -> str:
    return _CONTROLS.sub("\ufffd", path_to_text(name.encode("utf-8", "surrogateescape")))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
