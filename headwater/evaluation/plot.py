"""Quality against speed, one point per configuration, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from headwater.errors import SettingsError
from headwater.evaluation.measures import Interval
from headwater.evaluation.report import TITLES, labels
from headwater.evaluation.runs import Result
from headwater.evaluation.scoring import headline

__all__ = ["check_plot", "draw"]

_INCHES = (7.0, 3.2)


def check_plot(file: Path) -> None:
    """Raises SettingsError if the plot cannot be made, before anything is measured for it."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        raise SettingsError("--plot needs matplotlib, which is not installed: pip install 'headwater[plot]'") from None
    if file.suffix != ".svg":
        raise SettingsError(f"--plot writes SVG: name a file that ends in .svg, not {file.name!r}")
    if not file.resolve().parent.is_dir():
        raise SettingsError(f"there is no directory {file.parent} for the plot: make it, or name another")


def draw(results: Sequence[Result], file: Path) -> None:
    """Write the plot: texts embedded per second to the right, the main measure with its interval upwards; a panel for
    each data set. A configuration whose speed was not measured is left out. Raises SettingsError."""
    sets = [(name, [row for row in rows if row.texts_per_s]) for name, rows in groupby(results, lambda r: r.dataset)]
    sets = [(name, rows) for name, rows in sets if rows]
    if not sets:
        raise SettingsError("there is no speed to draw: the indexes were there before; name a fresh --work directory")
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "headwater", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(sets), 1, figsize=(_INCHES[0], _INCHES[1] * len(sets)), squeeze=False)
    for axes, (name, rows) in zip(panels[:, 0], sets, strict=True):
        _panel(axes, name, rows)
    figure.tight_layout()
    try:
        figure.savefig(file, metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise SettingsError(f"the plot {file} cannot be written ({error.strerror}): name another file") from None
    finally:
        pyplot.close(figure)


def _panel(axes: Any, name: str, results: Sequence[Result]) -> None:
    measure = headline(results[0].measures)
    for text, result in zip(labels(results), results, strict=True):
        value = result.measures[measure]
        mean = value.mean if isinstance(value, Interval) else value
        ends = [[mean - value.low], [value.high - mean]] if isinstance(value, Interval) else None
        axes.errorbar([result.texts_per_s], [mean], yerr=ends, fmt="o", capsize=3)
        axes.annotate(text, (result.texts_per_s, mean), xytext=(6, 4), textcoords="offset points")
    axes.set_title(name)
    axes.set_xlabel("texts embedded per second")
    axes.set_ylabel(TITLES[measure])
    axes.margins(x=0.25, y=0.25)
    axes.spines[["top", "right"]].set_visible(False)
