"""``python -m bench.plot FILE.svg``: what a one-sentence edit costs each peer, from the last ``make bench-peers``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # its backend is chosen above
from matplotlib.axes import Axes

_RESULTS = Path(__file__).parent / "results" / "peers.json"
_OWN, _OTHER = "#1f77b4", "#b0b0b0"


def main() -> None:
    """Write the plot. Exits with one sentence if there are no results, or no file is named."""
    if len(sys.argv) != 2:
        raise SystemExit("name the file to write: python -m bench.plot docs/edits.svg")
    if not _RESULTS.exists():
        raise SystemExit(f"there is no {_RESULTS}: run 'make bench-peers' first")
    results = json.loads(_RESULTS.read_text())
    peers = {name: peer["rows"] for name, peer in results["peers"].items() if "rows" in peer}
    matplotlib.rcParams.update({"svg.hashsalt": "headwater", "svg.fonttype": "none", "font.size": 9})
    figure, (texts, seconds) = pyplot.subplots(1, 2, figsize=(8, 0.5 + 0.42 * len(peers)), sharey=True)
    _bars(texts, {name: rows["middle"]["texts"] for name, rows in peers.items()}, "{:.0f}")
    texts.set_title("texts embedded")
    _bars(seconds, {name: rows["middle"]["seconds"] for name, rows in peers.items()}, "{:.2f} s")
    seconds.set_title("from the save to a search that finds it")
    texts.invert_yaxis()  # the first on top; the axis is shared
    figure.text(0.01, 0.01, _caption(results), fontsize=7, color="#606060")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(sys.argv[1], metadata={"Date": None, "Creator": None})


def _bars(axes: Axes, values: dict[str, float], form: str) -> None:
    bars = axes.barh(list(values), list(values.values()), color=[_OWN if n == "headwater" else _OTHER for n in values])
    axes.bar_label(bars, [form.format(value) for value in values.values()], padding=3)
    axes.margins(x=0.2)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(bottom=False, labelbottom=False, left=False)


def _caption(results: dict[str, Any]) -> str:
    characters = next(rows["edited_characters"] for peer in results["peers"].values() if (rows := peer.get("rows")))
    return (
        f"One sentence edited in a file of {characters:,} characters ({results['corpus']}, {results['processor']}).\n"
        "LlamaIndex and LangChain do not follow a folder: the time of a rerun, loading included."
    )


if __name__ == "__main__":
    main()
