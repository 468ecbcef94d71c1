"""``python -m bench [ROW...]``: bench/README.md says what each row means."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    borders,
    citations,
    documents,
    edits,
    ingest,
    latency,
    memory,
    moves,
    places,
    quantization,
    restart,
    retrieval,
    scaling,
    search,
    small,
    storm,
)
from bench.pack import NoData

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the rows that are named, or all, and write bench/results/ROW.json for each."""
    parser = argparse.ArgumentParser(description="Benchmarks of Headwater.")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(_ROWS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the ingest")
    parser.add_argument("--documents", type=int, default=10_000, help="small files")
    parser.add_argument("--edits", type=int, default=200, help="edits whose latency is measured")
    parser.add_argument(
        "--points", type=int, nargs="*", default=[10_000, 200_000, 1_000_000], help="sizes of the searched index"
    )
    parser.add_argument("--files", type=int, default=50_000, help="new files of the storm")
    parser.add_argument("--chunks", type=int, default=200_000, help="chunks in the index whose worker's memory is read")
    parser.add_argument("--large", type=Path, help="a folder of very many files, for the restart")
    parser.add_argument("--folder", type=Path, help="the folder of documents of all kinds, for 'documents'")
    parser.add_argument("--hits", type=int, default=200, help="hits whose places are looked up")
    parser.add_argument("--questions", type=int, default=1000, help="questions whose citations are looked up")
    parser.add_argument("--work", type=Path, help="where the indexes of 'retrieval' stay for the next time")
    parser.add_argument("--notes", type=int, default=1200, help="documents that fleets of workers share, for 'scaling'")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(_ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}: rows are {', '.join(_ROWS)}")
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "120")  # of the tables: in a file nothing says how wide they may be
    _RESULTS.mkdir(exist_ok=True)
    for name in given.rows or _ROWS:
        with tempfile.TemporaryDirectory(prefix="hwbench-") as work:
            try:
                results = _ROWS[name](Path(work), given)
            except NoData as why:
                print(f"{name}: left out, since {why}")
                continue
        (_RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1))


_ROWS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "ingest": lambda work, given: ingest.run(work, given.rounds),
    "small": lambda work, given: small.run(work, given.documents),
    "edits": lambda work, given: edits.run(work),
    "borders": lambda work, given: borders.run(work),
    "restart": lambda work, given: restart.run(work, given.documents, given.large),
    "moves": lambda work, given: moves.run(work),
    "latency": lambda work, given: latency.run(work, given.edits),
    "storm": lambda work, given: storm.run(work, given.files),
    "memory": lambda work, given: memory.run(work, given.chunks),
    "search": lambda work, given: search.run(work, given.points),
    "retrieval": lambda work, given: retrieval.run(work, given.work),
    "quantization": lambda work, given: quantization.run(work, given.work),
    "citations": lambda work, given: citations.run(work, given.questions),
    "documents": lambda work, given: documents.run(work, given.folder),
    "scaling": lambda work, given: scaling.run(work, given.notes),
    "places": lambda work, given: places.run(work, given.folder, given.hits),
}

if __name__ == "__main__":
    main()
