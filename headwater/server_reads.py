"""What a Qdrant server says of collections and aliases, asked by HTTP itself: for processes that follow the current
generation and otherwise speak to no server. The official client costs them 0.8 s of processor and 50 MB, and a producer
need not have it installed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from headwater.errors import IndexUnavailable, SettingsError
from headwater.settings import Settings, shown_url

__all__ = ["ServerReads", "plain_errors"]

#: where a server listens if its URL does not say, also behind https (as the official client has it)
_PORT = 6333


@contextmanager
def plain_errors(where: str, ca_file: Path | None) -> Iterator[None]:
    """Around the making of a client: IndexUnavailable if the URL, shown as ``where``, is none; SettingsError if there
    are no certificates."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{ca_file} (HEADWATER_QDRANT_CA_FILE) is no file of certificates ({error.strerror or error})"
        ) from None
    except (ValueError, httpx.InvalidURL) as error:
        raise IndexUnavailable(f"QDRANT_URL={where!r} is no address of a Qdrant server ({error})") from None


@dataclass(frozen=True)
class ServerReads:
    """The methods of ``qdrant_client.QdrantClient`` that ``headwater.aliases`` reads with, and ``ask`` for it. The
    connection is kept between two questions."""

    client: httpx.Client
    where: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises IndexUnavailable if the URL is none, SettingsError if there are no certificates."""
        assert settings.qdrant_url is not None, "there is a server"
        where = shown_url(settings.qdrant_url)
        with plain_errors(where, settings.qdrant_ca_file):
            url = httpx.URL(settings.qdrant_url)
            if url.scheme not in ("http", "https") or not url.host:
                raise httpx.InvalidURL("it needs a scheme and a host")
            verify = ssl.create_default_context(cafile=settings.qdrant_ca_file) if url.scheme == "https" else False
            client = httpx.Client(
                base_url=url.copy_with(port=_port(settings.qdrant_url)),
                headers={"api-key": settings.qdrant_api_key} if settings.qdrant_api_key else {},
                timeout=settings.qdrant_timeout_s,
                verify=verify,
            )
        return cls(client, where)

    def ask(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """The answer to a request. Raises IndexUnavailable; whoever follows asks again later."""
        try:
            return request(*arguments, **options)
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise IndexUnavailable(f"Qdrant at {self.where} does not answer as it should: {error}") from error

    def get_aliases(self) -> SimpleNamespace:
        found = self._get("aliases")["aliases"]
        return SimpleNamespace(aliases=[SimpleNamespace(**one) for one in found])

    def collection_exists(self, name: str) -> bool:
        return bool(self._get(f"collections/{quote(name, safe='')}/exists")["exists"])

    def get_collection(self, name: str) -> SimpleNamespace:
        config = self._get(f"collections/{quote(name, safe='')}")["config"]
        return SimpleNamespace(config=SimpleNamespace(metadata=config.get("metadata")))

    def close(self) -> None:
        self.client.close()

    def _get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()["result"]


def _port(url: str) -> int:
    """That of the URL, also where it is its scheme's own, which ``httpx.URL`` leaves out."""
    return urlsplit(url).port or _PORT
