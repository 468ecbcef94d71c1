"""Runs the faults of processes, broker and network on six hosts of one machine: ``python tests/netns/run.py``.

Each run is one JSON line, as of ``tests/faults/run.py``, whose options it takes.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_TESTS = _HERE.parent
sys.path[:0] = [str(_HERE), str(_TESTS / "faults"), str(_TESTS / "support"), str(_TESTS.parent)]

from harness import Harness, to_json  # the path is set above
from network_faults import MEANINGLESS
from network_session import NetworkSession
from registry import Fault, load
from topology import reason_against

__all__ = ["UNUSED_MODEL", "chosen", "main"]

_GROUPS = ("network", "processes", "broker")
#: parts here take an embedder without a network of their own
UNUSED_MODEL = Path("unused")


def chosen() -> list[Fault]:
    """All faults that can happen on many machines."""
    return [one for one in load().values() if one.group in _GROUPS and one.name not in MEANINGLESS]


def main() -> int:
    """0 if no run was anything but ok."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=_GROUPS, help="only this group")
    parser.add_argument("--fault", help="only faults whose name contains this")
    parser.add_argument("--runs", type=int, help="runs of each fault (default: those of the full form)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after so long")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run; the next ones count up")
    parser.add_argument("--short", action="store_true", help="the short form of each fault")
    parser.add_argument("--out", type=Path, default=Path("build/netns.jsonl"), help="results, appended to")
    given = parser.parse_args()
    if (reason := reason_against()) is not None:
        print(f"not here: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the hosts are ended on the way out
    faults = [one for one in chosen() if given.group in (None, one.group) and (given.fault or "") in one.name]
    ends_at = time.monotonic() + 60 * given.minutes
    plan = (
        (one, given.seed + number)
        for one in faults
        for number in range(one.runs if given.runs is None else given.runs)
        if time.monotonic() < ends_at
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    verdicts: Counter[tuple[str, str]] = Counter()
    with Harness(full=not given.short, model=UNUSED_MODEL, kind=NetworkSession) as harness:
        for line in harness.lines(plan):
            print(to_json(line), flush=True)
            print(line.get("logs", ""), file=sys.stderr, end="", flush=True)
            verdicts[line["group"], line["verdict"]] += 1
            with open(given.out, "a", encoding="utf-8") as out:
                out.write(to_json(line) + "\n")
    print(json.dumps({f"{group} {verdict}": number for (group, verdict), number in sorted(verdicts.items())}))
    return 0 if all(verdict == "ok" for _, verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
