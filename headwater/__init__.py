"""Headwater keeps a Qdrant collection in step with a folder of documents, and asks it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.aio import AsyncIndex
    from headwater.hit import Hit
    from headwater.query import Index
    from headwater.settings import Settings

__all__ = ["AsyncIndex", "HeadwaterError", "Hit", "Index", "Settings", "__version__"]

__version__ = "0.1.0"

#: what is imported when it is first used: a command that asks nothing needs neither numpy nor asyncio
_LATER = {
    "AsyncIndex": "headwater.aio",
    "Hit": "headwater.hit",
    "Index": "headwater.query",
    "Settings": "headwater.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_LATER[name]), name)
    globals()[name] = found
    return found
