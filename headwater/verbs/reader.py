"""Reads single things in the index, with no model: through the running service, else from the index itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

from headwater.errors import IndexUnavailable
from headwater.index import VectorIndex, open_index
from headwater.state import Lock, Service
from headwater.verbs.place import Place

__all__ = ["IndexReader", "open_reader"]


class IndexReader(Protocol):
    """Reads by key. Both raise HeadwaterError if the index does not answer."""

    def record(self, document_id: str) -> Mapping[str, Any] | None:
        """A document's record, with the name of the index's ``model``; None if the index has no such document."""
        ...

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Those of the texts whose vectors the index has."""
        ...


class _Direct:
    """The index, opened here."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._model = index.open_existing().model

    def record(self, document_id: str) -> Mapping[str, Any] | None:
        found = self._index.record(document_id)
        return None if found is None else {**found, "model": self._model}

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        return set(self._index.vectors(text_hashes))


@contextmanager
def open_reader(place: Place) -> Iterator[IndexReader]:
    """Raises IndexUnavailable if there is no index, or if a service that is just starting holds it."""
    service = None if place.settings.qdrant_url else Service.read(place.layout)
    if service is not None:
        from headwater.client import RemoteEngine

        with closing(RemoteEngine(service.url)) as engine:
            yield engine
        return
    if not place.settings.qdrant_url and Lock.is_held(place.layout, "worker"):
        raise IndexUnavailable("the worker that holds it has no query API (yet)")
    with closing(open_index(place.settings, place.layout)) as index:
        yield _Direct(index)
