"""Why a path is found in the index, or is not: evidence to one answer. Pure but for formatting times of day.

The order in which the questions are asked is that in which the service would decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headwater.document import path_to_text
from producer.diff import Seen
from producer.entries import Entry, local_time
from producer.rules import Verdict

__all__ = ["Answer", "Evidence", "answer", "answer_directory"]

#: states in which a document is found
FOUND = ("indexed", "partial")
_PAST = {"indexed": "indexed", "partial": "indexed", "refused": "refused", "failed": "tried", "waiting": "noticed"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one path. ``now`` in seconds since the epoch."""

    path: bytes
    verdict: Verdict
    #: what lies at the path, if the rules admit it
    seen: Seen | None
    #: the ledger's row
    entry: Entry | None
    #: whether a service follows the folder, and what ails it
    running: bool
    now: float
    reasons: tuple[str, ...] = ()
    #: tries that one content has
    attempts: int = 3
    #: a symbolic link above the path
    link: bytes | None = None
    #: the directory cannot be looked into just now
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """``state``: indexed, partial, refused, failed, waiting, new, excluded, deleted or absent; of a directory that of
    all documents below it, or "mixed"."""

    path: str
    state: str
    sentence: str
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        return self.state in FOUND


def answer(evidence: Evidence) -> Answer:
    """The answer for a path that is not a directory."""
    state, sentence = _decide(evidence)
    entry = evidence.entry
    facts = {"rule": evidence.verdict.rule, **({} if entry is None else _facts(entry, evidence.now))}
    return Answer(path_to_text(evidence.path), state, sentence, tuple(_notes(evidence, state)), facts)


def _decide(evidence: Evidence) -> tuple[str, str]:
    entry, verdict = evidence.entry, evidence.verdict
    if not verdict.admitted:
        where = "" if verdict.at == evidence.path else f"below the directory {path_to_text(verdict.at)}/, which is "
        return "excluded", f"{where}excluded by {verdict.rule}"
    if evidence.link is not None:
        return "excluded", f"below the symbolic link {path_to_text(evidence.link)}: links are not followed"
    if entry is not None and entry.waiting:
        return "waiting", _waiting(entry, evidence)
    if entry is None or entry.state == "deleted":
        return _unknown(entry, evidence)
    if not evidence.closed and evidence.seen is None:
        return "waiting", "gone from the folder, and to be removed from the index"
    if evidence.seen is not None and _has_changed(entry, evidence.seen):
        return "waiting", f"changed or touched since it was {_PAST[entry.state]} at {local_time(entry.settled_at)}"
    return entry.state, _settled(entry)


def _has_changed(entry: Entry, seen: Seen) -> bool:
    """Whether the file is another than the one that was settled."""
    return seen.fingerprint != entry.fingerprint and not _is_unread(entry)


def _is_unread(entry: Entry) -> bool:
    """Whether it failed with no byte seen, so that any scan finds it changed."""
    return entry.state == "failed" and entry.fingerprint is None


def _unknown(entry: Entry | None, evidence: Evidence) -> tuple[str, str]:
    """No live row: a new file, one that is gone, or nothing at all."""
    if evidence.seen is not None:
        refusal = evidence.seen.refusal
        return "new", "not noticed yet" if refusal is None else f"not noticed yet, and will be refused: {refusal}"
    if evidence.closed:
        return "absent", "the directory above it cannot be looked into, and nothing is known of it"
    if entry is not None:
        return "deleted", f"deleted from the folder, and from the index at {local_time(entry.settled_at)}"
    return "absent", "there is no such file, and the index never had one"


def _waiting(entry: Entry, evidence: Evidence) -> str:
    since = entry.wanted_at(evidence.now)
    wanted = f"since {local_time(since)}" if since is not None else "since a time that is not known"
    if entry.operation == "delete":
        return f"waiting {wanted} to be removed from the index"
    if entry.attempts == 0 and entry.due_at <= evidence.now:
        return f"waiting {wanted}"
    at = local_time(entry.due_at) if entry.due_at > evidence.now else "now"
    if entry.attempts >= evidence.attempts:
        return f"waiting {wanted} to be looked at; its content failed {entry.attempts} times: {entry.reason}"
    if entry.attempts:
        number = entry.attempts + 1
        return f"waiting: try {number} of {evidence.attempts} at {at}, after failure {entry.attempts}: {entry.reason}"
    return f"waiting {wanted}, next at {at}: {entry.reason}"


def _settled(entry: Entry) -> str:
    at = local_time(entry.settled_at)
    if entry.state == "failed":
        times = "once" if entry.attempts == 1 else f"{entry.attempts} times"
        return f"failed at {at}, tried {times}: {entry.reason}"
    if entry.state == "refused":
        return f"refused at {at}: {entry.reason}"
    return f"indexed at {at} in {_chunks(entry)}" + (
        f", in part only: {entry.reason}" if entry.state == "partial" else ""
    )


def _chunks(entry: Entry) -> str:
    return f"{entry.chunks} chunk{'s'[: entry.chunks != 1]}"


def _notes(evidence: Evidence, state: str) -> Iterable[str]:
    entry = evidence.entry
    held = entry is not None and entry.state in FOUND
    if state == "excluded" and held and entry is not None and entry.operation == "index":
        yield "an earlier version is still in the index: it goes with the next look at the folder"
    if state == "waiting" and held and entry is not None and entry.chunks:
        yield f"until then the version of {local_time(entry.settled_at)} is found, in {_chunks(entry)}"
    if state == "failed":
        when = "at each scan of the folder" if entry is not None and _is_unread(entry) else "when its content changes"
        yield f"tried again {when}, or with: headwater failures --retry"
    if state in ("waiting", "new"):
        yield from evidence.reasons
        if not evidence.running:
            yield "no service runs: start it with 'headwater up'"
    if evidence.closed:
        yield "the directory above it cannot be looked into: what was known is kept"


def _facts(entry: Entry, now: float) -> dict[str, Any]:
    since = entry.wanted_at(now)
    return {
        "seq": entry.applied_seq or None,
        "wanted_seq": entry.wanted_seq,
        "wanted_at": since if entry.waiting else None,
        "settled_at": entry.settled_at or None,
        "content_hash": entry.content_hash,
        "chunks": entry.chunks,
        "attempts": entry.attempts,
        "reason": entry.reason,
        "retry_at": entry.due_at if entry.waiting and entry.due_at > now else None,
    }


def answer_directory(
    path: bytes, verdict: Verdict, link: bytes | None, seen: Mapping[bytes, Seen], entries: Iterable[Entry]
) -> Answer:
    """The answer for a directory: its documents by state, those included that no run has noticed."""
    name = f"{path_to_text(path)}/" if path else "./"
    if not verdict.admitted:
        where = "" if verdict.at == path else f"below the directory {path_to_text(verdict.at)}/, which is "
        return Answer(name, "excluded", f"{where}excluded by {verdict.rule}", facts={"rule": verdict.rule})
    if link is not None:
        return Answer(name, "excluded", f"below the symbolic link {path_to_text(link)}: links are not followed")
    rows = {entry.path: entry for entry in entries if entry.current != "deleted"}
    counts = Counter(_current(rows[path], seen.get(path)) for path in rows)
    counts["new"] = sum(path not in rows for path in seen)
    counts = +counts
    number = counts.total()
    listed = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    sentence = f"a directory with {number} document{'s'[: number != 1]}" + (f": {listed}" if number else "")
    state = next(iter(counts)) if len(counts) == 1 else "mixed" if counts else "absent"
    if set(counts) <= set(FOUND) and counts:
        state = "indexed"
    return Answer(name, state, sentence, facts={"documents": dict(counts)})


def _current(entry: Entry, seen: Seen | None) -> str:
    """A settled document whose file changed or went away waits for a run to notice."""
    stale = seen is None or _has_changed(entry, seen)
    return "waiting" if stale else entry.current
