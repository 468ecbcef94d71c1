"""Asks the running service over its query API on loopback, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from headwater.client import LOST, TIMEOUT_S, error_from
from headwater.context import Context
from headwater.errors import ServiceUnavailable
from headwater.hit import DuplicatePair, Hits
from headwater.question import Question

__all__ = ["AsyncRemoteEngine"]

#: requests at once; more wait for one of them to be answered, however long that takes
_MOST_REQUESTS = 32


class AsyncRemoteEngine:
    """``RemoteEngine`` for the tasks of one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        limits = httpx.Limits(max_connections=_MOST_REQUESTS, max_keepalive_connections=_MOST_REQUESTS)
        self._http = httpx.AsyncClient(base_url=url, limits=limits, trust_env=False)

    async def search(self, question: Question) -> Hits:
        waits = question.timeout if question.wait_for is not None else 0.0
        return Hits.from_mapping(await self._post("/v1/search", question.to_dict(), waits))

    async def context(self, question: Question, max_tokens: int, tokenizer: str | None) -> Context:
        body = {"question": question.to_dict(), "max_tokens": max_tokens, "tokenizer": tokenizer}
        return Context.from_mapping(await self._post("/v1/context", body))

    async def similar(self, path: str | None, text: str | None, limit: int) -> Hits:
        return Hits.from_mapping(await self._post("/v1/similar", {"path": path, "text": text, "limit": limit}))

    async def near_duplicates(self, threshold: float, limit: int) -> list[DuplicatePair]:
        answer = await self._post("/v1/near_duplicates", {"threshold": threshold, "limit": limit})
        return [DuplicatePair(**raw) for raw in answer["pairs"]]

    async def similarity(self, a: str, b: str) -> float:
        return float((await self._post("/v1/similarity", {"a": a, "b": b}))["similarity"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _post(self, path: str, body: Mapping[str, Any], waits_s: float = 0.0) -> Any:
        """As ``RemoteEngine.post``."""
        given = {name: value for name, value in body.items() if value is not None}
        try:
            patience = httpx.Timeout(TIMEOUT_S + waits_s, pool=None)
            try:
                answer = await self._http.post(path, json=given, timeout=patience)
            except LOST:
                answer = await self._http.post(path, json=given, timeout=patience)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"the service at {self._url} does not answer ({error}): see 'headwater status'"
            ) from None
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        raise error_from(answer)
