"""Asks the running service over its query API on loopback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from headwater import errors
from headwater.errors import HeadwaterError, QueryError, ServiceUnavailable
from headwater.index import Mode
from headwater.query import FilterValue, Hit

__all__ = ["RemoteEngine"]

#: a service that is starting loads its model first
_TIMEOUT_S = 120.0


class RemoteEngine:
    """The query module's engine on the other side of HTTP."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, headers=shown)

    def search(
        self,
        text: str,
        limit: int,
        mode: Mode,
        path_glob: str | None,
        filters: Mapping[str, FilterValue] | None,
        score_threshold: float | None,
    ) -> list[Hit]:
        asked = {
            "text": text,
            "limit": limit,
            "mode": mode,
            "path_glob": path_glob,
            "filters": filters,
            "score_threshold": score_threshold,
        }
        return [Hit.from_mapping(raw) for raw in self.post("/v1/search", asked)["hits"]]

    def similar(self, path: str, limit: int) -> list[Hit]:
        answer = self.post("/v1/similar", {"path": path, "limit": limit})
        return [Hit.from_mapping(raw) for raw in answer["hits"]]

    def similarity(self, a: str, b: str) -> float:
        return float(self.post("/v1/similarity", {"a": a, "b": b})["similarity"])

    def record(self, document_id: str) -> dict[str, Any] | None:
        """As for LocalEngine."""
        found: dict[str, Any] | None = self.post("/v1/document", {"document_id": document_id})["record"]
        return found

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """As for LocalEngine."""
        return set(self.post("/v1/known", {"text_hashes": list(text_hashes)})["known"])

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to one request. Raises the error that the service raised, or ServiceUnavailable."""
        try:
            answer = self._http.post(path, json={name: value for name, value in body.items() if value is not None})
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"the service at {self._url} does not answer ({error}): see 'headwater status'"
            ) from None
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        raise _error(answer)


def _error(answer: httpx.Response) -> HeadwaterError:
    """The error that the service raised, as the same type here."""
    try:
        raw = answer.json()["error"]
        kind = getattr(errors, raw["type"], HeadwaterError)
        return kind(raw["message"]) if issubclass(kind, HeadwaterError) else HeadwaterError(raw["message"])
    except (ValueError, KeyError, TypeError):
        return QueryError(f"the service answered {answer.status_code}: {answer.text[:200]}")
