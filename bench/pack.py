"""The data pack that HEADWATER_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["NoData", "retrieval_set"]


class NoData(Exception):
    """A row that needs the pack is left out."""


def retrieval_set(name: str) -> Path:
    """The directory of one of its labelled sets. Raises NoData."""
    data = os.environ.get("HEADWATER_DATA")
    place = Path(data or "") / "retrieval" / name
    if not data or not place.is_dir():
        raise NoData(f"HEADWATER_DATA names no data pack with retrieval/{name}")
    return place
