"""Headwater keeps a Qdrant collection in step with a folder of documents, and asks it."""

from headwater.aio import AsyncIndex
from headwater.errors import HeadwaterError
from headwater.query import Hit, Index
from headwater.settings import Settings

__all__ = ["AsyncIndex", "HeadwaterError", "Hit", "Index", "Settings", "__version__"]

__version__ = "0.1.0"
