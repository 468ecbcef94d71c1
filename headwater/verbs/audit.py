"""The comparison of folder, ledger and index behind ``headwater verify``.

Reads top to bottom: list the folder, compare document by document, scan all points for those of no document, look for
ledger rows of no document, and, while a service runs, look again at whatever was wrong or on its way.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from headwater.document import document_id, file_path, in_collection, path_to_text
from headwater.index import Point, SeenPoint
from headwater.points import Points, pages
from headwater.verbs.rereading import Rereader, Unreadable, Vanished
from headwater.verbs.scratch import Scratch, Stray, Target
from headwater.verification import Finding, PointCheck, Reading, Verdict, compare, judge, seen_point

__all__ = ["Audit", "Totals"]

#: documents in hand at once
_BATCH = 64
#: the rules keep what they read in each directory: they forget it after so many entries
_FORGET_EVERY = 5000
#: a running service gets this long to bring a change into the index before it is accused, and so many times
_SETTLE_S = 2.5
_LOOKS = 3
#: a version of a file that the ledger does not know gets this long to be noticed: what is not watched is only polled
_UNSEEN_S = 15.0
_MOST_LOOKS = 7


class Progress(Protocol):
    """What a person sees of it."""

    def stage(self, name: str, total: int | None = None) -> None: ...
    def advance(self, steps: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Totals:
    """What was compared."""

    documents: int
    chunks: int
    waiting: int


@dataclass(frozen=True, slots=True)
class _Examined:
    """One document: its verdict, or None if it is not at rest. ``version`` names what was compared."""

    target: Target
    version: str
    verdict: Verdict | None
    #: its points were all read
    counted: bool = False


@dataclass
class Audit:
    """One comparison. ``live``: a service runs, and what looks wrong may be on its way. ``ledger`` is a
    ``producer.ledger.Ledger``, ``scanner`` a ``producer.scanner.Scanner`` of the folder."""

    ledger: Any
    scanner: Any
    points: Points
    rereader: Rereader
    check: PointCheck
    scratch: Scratch
    threads: int
    live: bool
    progress: Progress
    #: name of the folder in the collection
    source: str = ""
    _chunks: int = 0
    _compared_at: float = 0.0
    _closed: tuple[bytes, ...] = field(default=())

    def run(self) -> Totals:
        """Raises HeadwaterError if folder, ledger or index cannot be read at all."""
        self._list_folder()
        self._compare_documents()
        self._scan_points()
        self._judge_miscounted()
        self._judge_strays()
        self._read_ledger()
        self._look_again()
        return Totals(self.scratch.targets(), self._chunks, self.scratch.waiting())

    # -- folder ----------------------------------------------------------------------------------------------

    def _list_folder(self) -> None:
        self.progress.stage("listing the folder")
        for number, (path, seen) in enumerate(self.scanner.walk(), start=1):
            self.scratch.add_target(Target(path, seen.fingerprint, seen.refusal), self._document_id(path))
            self.progress.advance(1)
            if number % _FORGET_EVERY == 0:
                self.scanner.rules.forget()
        self._closed = tuple(path + b"/" for path in self.scanner.closed)

    def _is_closed(self, path: bytes) -> bool:
        """Whether it lies where we may not look: then it is not gone."""
        return path.startswith(self._closed)

    # -- documents -------------------------------------------------------------------------------------------

    def _compare_documents(self) -> None:
        self.progress.stage("comparing documents", self.scratch.targets())
        with ThreadPoolExecutor(self.threads) as pool:
            for batch in self.scratch.target_batches(_BATCH):
                entries = [self.ledger.entry(target.path) for target in batch]
                for examined in pool.map(self._examine, batch, entries):
                    self._note(examined)
                    self.progress.advance(1)
        self._compared_at = time.monotonic()

    def _examine(self, target: Target, entry: Any) -> _Examined:
        """Compare one document. Called from the pool's threads: touches neither ledger nor scratch."""
        version = _version(target, entry)
        if entry is not None and entry.waiting:
            return _Examined(target, version, None)
        try:
            reading = self._read(target, entry)
        except Vanished:
            return _Examined(target, version, None)
        except Unreadable as trouble:
            return self._unreadable(target, entry, version, str(trouble))
        verdict = judge(path_to_text(target.path), reading, entry, self._points_of(target.path), self.check)
        return _Examined(target, version, verdict, counted=True)

    def _read(self, target: Target, entry: Any) -> Reading:
        if target.path in self.scanner.closed:
            raise Unreadable(target.refusal)
        if target.refusal is not None:
            return Reading("refused", target.refusal)
        seq = 0 if entry is None else entry.applied_seq
        return self.rereader.read(target.path, seq, failed_before=entry is not None and entry.state == "failed")

    def _unreadable(self, target: Target, entry: Any, version: str, reason: str) -> _Examined:
        """No defect if the ledger has given the document up too, and nothing of it is in the index."""
        path = path_to_text(target.path)
        known = entry is not None and entry.state in ("failed", "refused")
        finding = Finding("unreadable", path, reason, known=known)
        if not known:
            return _Examined(target, version, Verdict((finding,)))
        rest = compare(path, Reading(entry.state, entry.reason), self._points_of(target.path), self.check)
        return _Examined(target, version, Verdict((*rest.findings, finding), rest.discards, rest.points), counted=True)

    def _points_of(self, path: bytes) -> Iterator[Point]:
        for page in pages(self.points, self._document_id(path)):
            yield from page

    def _document_id(self, path: bytes) -> str:
        return document_id(in_collection(path, self.source))

    def _note(self, examined: _Examined) -> None:
        verdict, path = examined.verdict, examined.target.path
        if verdict is not None and examined.counted:
            self.scratch.compared(path, verdict.points, examined.version)
        if verdict is None or (self.live and _is_wrong(verdict)):
            self._suspect(path, examined.version)
        else:
            self._accuse(examined.target, verdict)

    def _suspect(self, path: bytes, version: str) -> None:
        """While a service runs it is looked at again; otherwise it waits for one."""
        if self.live:
            self.scratch.suspect(path, version, time.monotonic())
        else:
            self.scratch.wait(path)

    def _accuse(self, target: Target, verdict: Verdict) -> None:
        self.scratch.add_findings(verdict.findings)
        self.scratch.discard(verdict.discards)
        if _is_wrong(verdict):
            self.scratch.want_again(target.path, target.fingerprint)

    # -- points ----------------------------------------------------------------------------------------------

    def _scan_points(self) -> None:
        self.progress.stage("scanning points")
        for page in pages(self.points):
            named = {_document_of(point) for point in page} - {None}
            known = self.scratch.known_documents(sorted(name for name in named if name is not None))
            self.scratch.scanned(Counter(name for p in page if (name := _document_of(p)) in known).items())
            strays = [point for point in page if _document_of(point) not in known]
            self.scratch.add_strays((_document_of(p), _path_of(p), seen_point(p)) for p in strays)
            self._chunks += sum("chunk" in point.payload for point in page)
            self.progress.advance(len(page))

    def _judge_miscounted(self) -> None:
        """A filter that does not find all of a document's points will not find them for a search either."""
        for path, version, found, scanned in self.scratch.miscounted():
            entry = self.ledger.entry(path)
            target = self._look(path) if self.live else None
            if self.live and (target is None or _version(target, entry) != version):
                continue  # it changed between the two
            detail = f"the index holds {scanned} points of it and finds {found} of them by its id"
            self.scratch.add_findings([Finding("unsearchable", path_to_text(path), detail)])
            self.scratch.want_again(path, None if target is None else target.fingerprint)

    def _judge_strays(self) -> None:
        for stray in self.scratch.strays():
            path = _path_from(stray, self.source)
            if path is None:
                nameless = f"a point that names no document of any folder (id {stray.example})"
                self._accuse_stray(stray, Finding("orphan", stray.path, nameless))
            elif not self._is_closed(path):
                self._judge_stray(stray, path)

    def _judge_stray(self, stray: Stray, path: bytes) -> None:
        entry = self.ledger.entry(path)
        if self.live:  # the service may have yet to take the points away, or have done so by now
            self.scratch.suspect(path, _version(self._look(path), entry), time.monotonic())
        elif entry is not None and entry.waiting:
            self.scratch.wait(path)
        else:
            self._accuse_stray(stray, _orphan(stray.path, stray.points))

    def _accuse_stray(self, stray: Stray, finding: Finding) -> None:
        self.scratch.add_findings([finding])
        self.scratch.discard_stray(stray)

    # -- ledger ----------------------------------------------------------------------------------------------

    def _read_ledger(self) -> None:
        """Rows of documents that the folder does not have."""
        after = b""
        while entries := self.ledger.entries(after, _BATCH):
            for entry in entries:
                if not self.scratch.has_path(entry.path) and not self._is_closed(entry.path):
                    self._judge_row(entry)
            after = entries[-1].path

    def _judge_row(self, entry: Any) -> None:
        if self.live:
            entry = self.ledger.entry(entry.path)
        if entry is None or self._look(entry.path) is not None:
            return
        if entry.waiting:
            self.scratch.wait(entry.path)
        elif entry.operation == "index" and self.live:
            self.scratch.suspect(entry.path, _version(None, entry), time.monotonic())
        elif entry.operation == "index":
            self._accuse_row(entry, has_points=self.scratch.is_stray(self._document_id(entry.path)))

    def _accuse_row(self, entry: Any, *, has_points: bool) -> None:
        self.scratch.want_again(entry.path, None)
        if not has_points:  # they are accused themselves
            detail = f"the ledger has it as {entry.state}, and it is not in the folder"
            self.scratch.add_findings([Finding("stale", path_to_text(entry.path), detail)])

    # -- again -----------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """What is wrong twice with the same versions of file and row is wrong; what has changed is on its way."""
        self.scanner.rules.forget()
        for look in range(_MOST_LOOKS):
            waited = False
            for path, version, since in self.scratch.suspects(
                math.inf if look < _LOOKS else self._compared_at - _SETTLE_S
            ):
                if not waited:
                    time.sleep(max(0.0, self._compared_at + _SETTLE_S - time.monotonic()))
                    self.progress.stage("looking again")
                    waited = True
                self._look_at(path, version, since)
                self.progress.advance(1)
            self._compared_at = time.monotonic()
        for path, *_ in self.scratch.suspects():
            self.scratch.wait(path)

    def _look_at(self, path: bytes, version: str, since: float) -> None:
        entry, target = self.ledger.entry(path), self._look(path)
        if target is None:
            self._judge_gone(path, entry, version, since)
            return
        examined = self._examine(target, entry)
        verdict, now = examined.verdict, time.monotonic()
        early = examined.version != version or (_is_unseen(target, entry) and now - since < _UNSEEN_S)
        if verdict is None or (_is_wrong(verdict) and early):
            self.scratch.suspect(path, examined.version, now)
            return
        self.scratch.acquit(path)
        self._accuse(target, verdict)

    def _judge_gone(self, path: bytes, entry: Any, version: str, since: float) -> None:
        """There is no file now: all is well when ledger and index have let go of it, and the service gets its time."""
        points = [seen_point(point) for point in self._points_of(path)]
        due = entry is not None and entry.waiting
        let_go = not due and (entry is None or entry.operation == "delete")
        now, version_now = time.monotonic(), _version(None, entry)
        if let_go and not points:
            self.scratch.acquit(path)
        elif due or version_now != version or now - since < (_SETTLE_S if let_go else _UNSEEN_S):
            self.scratch.suspect(path, version_now, now)
        else:
            self.scratch.acquit(path)
            self._accuse_gone(path, entry, points)

    def _accuse_gone(self, path: bytes, entry: Any, points: list[SeenPoint]) -> None:
        if points:
            self.scratch.add_findings([_orphan(path_to_text(path), len(points))])
            self.scratch.discard(points)
        if entry is not None and entry.operation == "index":
            self._accuse_row(entry, has_points=bool(points))

    def _look(self, path: bytes) -> Target | None:
        """What is at a path now."""
        seen = self.scanner.look(path).get(path)
        return None if seen is None else Target(path, seen.fingerprint, seen.refusal)


def _is_wrong(verdict: Verdict) -> bool:
    return any(not finding.known for finding in verdict.findings)


def _is_unseen(target: Target, entry: Any) -> bool:
    """Whether the service has not noticed this version of the file yet."""
    return entry is None or entry.operation != "index" or entry.fingerprint != target.fingerprint


def _orphan(path: str, points: int) -> Finding:
    return Finding("orphan", path, f"{points} points of a document that is not in the folder")


def _version(target: Target | None, entry: Any) -> str:
    """Which versions of file, if there is one, and ledger row are compared."""
    row = None if entry is None else (entry.operation, entry.wanted_seq, entry.applied_seq, entry.state)
    return repr((None if target is None else target.fingerprint, row))


def _document_of(point: Point) -> str | None:
    document = point.payload.get("document_id")
    return document if isinstance(document, str) else None


def _path_of(point: Point) -> str:
    path, member = point.payload.get("path"), point.payload.get("member")
    return file_path(path, member if isinstance(member, str) else None) if isinstance(path, str) else ""


def _path_from(stray: Stray, source: str) -> bytes | None:
    """The path in the folder that gives the points' document id, by its text or by the form of a name that is not
    UTF-8."""
    text = file_path(stray.path, None, source)
    names = (text.encode("utf-8", "surrogatepass"), unquote_to_bytes(text))
    return next((name for name in names if document_id(in_collection(name, source)) == stray.document), None)
