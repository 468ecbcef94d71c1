"""A flame graph of an ingest from py-spy's samples: ``python -m bench.flame SAMPLES.txt docs/ingest.svg``.

    headwater up FOLDER &          then, when it embeds, with the pid of 'headwater work':
    py-spy record --format raw --rate 20 --pid PID --output SAMPLES.txt

A thread that waits is no work, so samples whose innermost frame is a wait are left out. Width is share of the samples
that are left; a frame stands on the one that called it (Gregg 2016, "The Flame Graph").
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

#: innermost frames of a thread that waits for others
_WAITS = re.compile(
    r"wait|poll|select|accept|recv|read \(|sleep|futex|acquire|__lll_lock|sem_|nanosleep|clock_nanosleep|pthread_cond|"
    r"take \(|get \(queue|_worker \(concurrent|exception \(concurrent|result \(concurrent"
)
#: frames that tell nothing: those without a name, of the interpreter's start and of threads, which all stacks share
_FRAME = re.compile(
    r"^0x|libc\.so|libpython|_bootstrap|\(threading|^<module>|_run_code|_run_module|^main \(|^app \(|typer|click|"
    r"_call_impl|_wrapped_call|wrapper \(|_call_with_frames"
)
#: shares below which a frame is not drawn, or not named
_LEAST, _LEAST_NAMED = 0.002, 0.02
_COLOURS = {"torch": "#d9a441", "headwater": "#4f8fbf", "worker": "#4f8fbf", "celery": "#9a7fb8", "": "#b9b9b9"}


@dataclass
class Frame:
    """A place in the stacks, with the samples in it and in what it called."""

    name: str
    samples: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)

    def add(self, names: list[str], samples: int) -> None:
        self.samples += samples
        if names:
            self.callees.setdefault(names[0], Frame(names[0])).add(names[1:], samples)


def read(samples: Path) -> Frame:
    """The samples that are work, as a tree."""
    root = Frame("all")
    for line in samples.read_text("utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        stack_names = stack.split(";")
        names = [name for name in stack_names if not _FRAME.search(name)]
        if names and not any(_WAITS.search(name) for name in stack_names[-3:]):
            root.add([_short(name) for name in names], int(count))
    return root


def _short(name: str) -> str:
    """Function and module, without the directory where it is installed and without the line."""
    match = re.fullmatch(r"(.*) \(([^()]*?)(?::\d+)?\)", name)
    if match is None:
        return name
    place = re.sub(r".*site-packages/", "", match[2])
    return f"{match[1]} ({'/'.join(place.split('/')[-2:])})"


def draw(root: Frame, path: Path) -> None:
    """The tree as an SVG."""
    boxes = list(_boxes(root, root.samples, 0.0, 0))
    depth = max(level for *_, level in boxes) + 1
    figure, axes = plt.subplots(figsize=(12, 0.22 * depth + 0.6))
    for frame, left, width, level in boxes:
        axes.barh(level, width, left=left, height=0.95, color=_colour(frame.name), edgecolor="white", linewidth=0.4)
        if width >= _LEAST_NAMED:
            label = frame.name[: int(width * 170)]
            axes.text(left + 0.002, level, label, va="center", fontsize=6, clip_on=True)
    axes.set(xlim=(0, 1), ylim=(-0.6, depth), yticks=[], xlabel="share of the samples in which a thread worked")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _boxes(frame: Frame, total: int, left: float, level: int) -> Iterator[tuple[Frame, float, float, int]]:
    yield frame, left, frame.samples / total, level
    for callee in sorted(frame.callees.values(), key=lambda callee: callee.name):
        if callee.samples / total >= _LEAST:
            yield from _boxes(callee, total, left, level + 1)
        left += callee.samples / total


def _colour(name: str) -> str:
    return next(colour for part, colour in _COLOURS.items() if part in name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw py-spy's samples of an ingest as a flame graph.")
    parser.add_argument("samples", type=Path)
    parser.add_argument("svg", type=Path)
    given = parser.parse_args()
    draw(read(given.samples), given.svg)


if __name__ == "__main__":
    main()
