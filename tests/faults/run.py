"""Runs faults and tells of each run in one JSON line: ``python tests/faults/run.py --group processes --runs 3``."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "support"), str(_HERE.parents[1])]

from harness import Harness, Line, to_json  # the path is set above
from registry import GROUPS, Fault, load
from summary import write_summary

__all__ = ["at_random", "main"]

_DEFAULT_OUT = Path("build/faults.jsonl")


def main() -> int:
    """0 if no run was anything but ok."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the services that run are ended on the way out
    faults = _chosen(arguments)
    if arguments.list:
        print("\n".join(f"{fault.group:10} {fault.runs:5}  {fault.name}" for fault in faults))
        return 0
    if arguments.summary:
        write_summary(arguments.out, faults, arguments.summary)
        return 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    bad = 0
    with Harness(full=not arguments.short and not arguments.soak, model=arguments.model) as harness:
        for line in _lines(harness, faults, arguments):
            print(to_json(line), flush=True)
            print(line.get("logs", ""), file=sys.stderr, end="")
            bad += line["verdict"] != "ok"
            with open(arguments.out, "a", encoding="utf-8") as out:
                out.write(to_json(line) + "\n")
    return 1 if bad else 0


def _lines(harness: Harness, faults: list[Fault], arguments: argparse.Namespace) -> Iterator[Line]:
    """A soak has a service beside the faults whose memory is looked at."""
    if not arguments.soak:
        yield from harness.lines(_plan(faults, arguments))
        return
    steady = harness.steady(arguments.seed, arguments.soak)
    yield from harness.lines(at_random(faults, arguments.seed, arguments.soak))
    yield steady.line()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=GROUPS, help="only this group")
    parser.add_argument("--fault", help="only faults whose name contains this")
    parser.add_argument("--runs", type=int, help="runs of each fault (default: those of the full form)")
    parser.add_argument("--minutes", type=float, help="stop after so long; faults are then drawn at random")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="short faults at random for so long, and memory")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run; the next ones count up")
    parser.add_argument("--short", action="store_true", help="the short form of each fault, as in make test")
    parser.add_argument("--again", action="store_true", help="also run what the results file has already")
    parser.add_argument("--out", type=Path, default=_DEFAULT_OUT, help=f"results, appended to (default {_DEFAULT_OUT})")
    parser.add_argument("--model", type=Path, help="a model directory (default: a tiny one is made)")
    parser.add_argument("--list", action="store_true", help="show the faults with their counts of runs")
    parser.add_argument("--summary", type=Path, metavar="PAGE", help="write the table of results into a page")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> list[Fault]:
    faults = [fault for fault in load().values() if arguments.group in (None, fault.group)]
    return [fault for fault in faults if arguments.fault is None or arguments.fault in fault.name]


def _plan(faults: list[Fault], arguments: argparse.Namespace) -> Iterator[tuple[Fault, int]]:
    if arguments.minutes is not None and arguments.runs is None:
        return at_random(faults, arguments.seed, arguments.minutes)
    return _in_order(faults, arguments)


def _in_order(faults: list[Fault], arguments: argparse.Namespace) -> Iterator[tuple[Fault, int]]:
    """Each fault as often as asked for, less what the results file has."""
    done = Counter() if arguments.again else _done(arguments.out)
    ends_at = time.monotonic() + 60 * (arguments.minutes or 1e6)
    for fault in faults:
        wanted = fault.runs if arguments.runs is None else arguments.runs
        for number in range(done[fault.group, fault.name], wanted):
            if time.monotonic() > ends_at:
                return
            yield fault, arguments.seed + number


def _done(results: Path) -> Counter[tuple[str, str]]:
    """Good runs of each fault so far: a bad one is to be run again."""
    done: Counter[tuple[str, str]] = Counter()
    if results.exists():
        for line in map(json.loads, results.read_text("utf-8").splitlines()):
            if line["verdict"] == "ok":
                done[line["group"], line["fault"]] += line["runs"]
    return done


def at_random(faults: list[Fault], seed: int, minutes: float) -> Iterator[tuple[Fault, int]]:
    """Faults that share a service are drawn a few at a time, so that most of the time goes into faults, not starts."""
    drawn = random.Random(seed)
    ends_at = time.monotonic() + 60 * minutes
    while time.monotonic() < ends_at:
        fault = drawn.choice(faults)
        like = [other for other in faults if other.profile == fault.profile and other.alone == fault.alone]
        for other in [fault, *drawn.choices(like, k=3)]:
            seed += 1
            yield other, seed


if __name__ == "__main__":
    sys.exit(main())
