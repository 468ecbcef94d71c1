"""Runs on servers: which ones, a collection for each state directory, and nothing of it left behind.

The whole acceptance suite runs on those that the environment names, one or both: ``QDRANT_URL`` (``QDRANT_API_KEY``,
``SSL_CERT_FILE``) and ``CELERY_BROKER_URL``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["SERVER_SETTINGS", "Servers", "collection_of", "embedded_only", "raw_points", "servers_named"]

#: what names servers in an environment
SERVER_SETTINGS = frozenset({"CELERY_BROKER_URL", "QDRANT_URL", "QDRANT_API_KEY"})


@dataclass(frozen=True)
class Servers:
    """A part without a URL is the embedded one. ``authority`` is the certificate that both are trusted by, if they have
    one of their own."""

    broker_url: str | None
    qdrant_url: str | None
    api_key: str | None = None
    authority: Path | None = None

    def environment(self, collection: str) -> dict[str, str]:
        """Of a process that is to use them."""
        key = {} if self.api_key is None else {"QDRANT_API_KEY": self.api_key}
        trusted = {} if self.authority is None else {"SSL_CERT_FILE": str(self.authority)}
        urls = {"CELERY_BROKER_URL": self.broker_url, "QDRANT_URL": self.qdrant_url}
        named = {name: url for name, url in urls.items() if url is not None}
        return {**named, **key, **trusted, "HEADWATER_COLLECTION": collection}

    @contextlib.contextmanager
    def qdrant(self) -> Iterator[QdrantClient]:
        from qdrant_client import QdrantClient  # half a second, which most runs need not spend

        verify = True if self.authority is None else ssl.create_default_context(cafile=str(self.authority))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")  # on loopback
            client = QdrantClient(
                url=self.qdrant_url, api_key=self.api_key, timeout=30, check_compatibility=False, verify=verify
            )
        try:
            yield client
        finally:
            client.close()

    def broker(self) -> redis.Redis:
        assert self.broker_url is not None
        made: redis.Redis = redis.Redis.from_url(self.broker_url, socket_timeout=10)
        return made

    def drop(self, collection: str) -> None:
        """Leave neither the collection nor its keys at the broker."""
        if self.qdrant_url is not None:
            with self.qdrant() as client:
                for name in (collection, f"{collection}.g1", f"{collection}.g2"):
                    client.delete_collection(name)
        if self.broker_url is not None:
            with self.broker() as broker:
                for key in [*broker.scan_iter(f"{collection}.*"), *broker.scan_iter(f"_kombu.binding.{collection}.*")]:
                    broker.delete(key)


def servers_named() -> Servers | None:
    """Those that the environment names."""
    broker, qdrant = os.environ.get("CELERY_BROKER_URL"), os.environ.get("QDRANT_URL")
    return Servers(broker, qdrant, os.environ.get("QDRANT_API_KEY")) if broker or qdrant else None


def embedded_only(reason: str) -> pytest.MarkDecorator:
    """For a test that means nothing on servers, with the reason."""
    return pytest.mark.skipif("QDRANT_URL" in os.environ, reason=f"on servers: {reason}")


def collection_of(state: Path) -> str:
    """The collection of a run: by its state directory, which no other run has."""
    return f"test-{hashlib.sha256(os.fsencode(state)).hexdigest()[:24]}"


def raw_points(servers: Servers, collection: str) -> list[dict[str, Any]]:
    """Every point as it is."""
    found: list[dict[str, Any]] = []
    offset: Any = None
    with servers.qdrant() as client:
        while True:
            page, offset = client.scroll(collection, limit=500, offset=offset, with_payload=True, with_vectors=True)
            found += [{"id": str(p.id), "payload": p.payload or {}, "vector": p.vector or {}} for p in page]
            if offset is None:
                return found
