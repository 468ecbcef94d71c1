"""Asks the running service over its query API on loopback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from headwater import errors
from headwater.context import Context
from headwater.errors import HeadwaterError, QueryError, ServiceUnavailable
from headwater.hit import DuplicatePair, Hits
from headwater.question import Question

__all__ = ["LOST", "TIMEOUT_S", "RemoteEngine", "error_from", "service_status"]

#: a connection that ended before an answer came
LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
#: a service that is starting loads its model first
TIMEOUT_S = 120.0
#: for its status, which looks at the index for some seconds
_STATUS_TIMEOUT_S = 20.0


class RemoteEngine:
    """The query module's engine on the other side of HTTP."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False, headers=shown)

    def search(self, question: Question) -> Hits:
        waits = question.timeout if question.wait_for is not None else 0.0
        return Hits.from_mapping(self.post("/v1/search", question.to_dict(), waits))

    def context(self, question: Question, max_tokens: int, tokenizer: str | None) -> Context:
        body = {"question": question.to_dict(), "max_tokens": max_tokens, "tokenizer": tokenizer}
        return Context.from_mapping(self.post("/v1/context", body))

    def similar(self, path: str | None, text: str | None, limit: int) -> Hits:
        return Hits.from_mapping(self.post("/v1/similar", {"path": path, "text": text, "limit": limit}))

    def near_duplicates(self, threshold: float, limit: int) -> list[DuplicatePair]:
        answer = self.post("/v1/near_duplicates", {"threshold": threshold, "limit": limit})
        return [DuplicatePair(**raw) for raw in answer["pairs"]]

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

    def post(self, path: str, body: Mapping[str, Any], waits_s: float = 0.0) -> Any:
        """The answer to one request, which may wait on purpose for ``waits_s`` seconds. Raises the error that the
        service raised, or ServiceUnavailable."""
        try:
            answer = self._answer(path, body, TIMEOUT_S + waits_s)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"the service at {self._url} does not answer ({error}): see 'headwater status'"
            ) from None
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        raise error_from(answer)

    def _answer(self, path: str, body: Mapping[str, Any], timeout_s: float) -> httpx.Response:
        """Asked once more where the connection ended before an answer came, for the worker that had it was replaced:
        no request does more when it comes twice."""
        given = {name: value for name, value in body.items() if value is not None}
        try:
            return self._http.post(path, json=given, timeout=timeout_s)
        except LOST:
            return self._http.post(path, json=given, timeout=timeout_s)


def service_status(url: str) -> dict[str, Any]:
    """What a service says of itself. Raises ServiceUnavailable, or the error that it raised."""
    try:
        answer = httpx.get(f"{url}/status", timeout=_STATUS_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        raise ServiceUnavailable(f"the service at {url} does not answer ({error}): read its log") from None
    if answer.status_code != httpx.codes.OK:
        raise error_from(answer)
    found: dict[str, Any] = answer.json()
    return found


def error_from(answer: httpx.Response) -> HeadwaterError:
    """The error that the service raised, as the same type here."""
    try:
        raw = answer.json()["error"]
        kind = getattr(errors, raw["type"], HeadwaterError)
        return kind(raw["message"]) if issubclass(kind, HeadwaterError) else HeadwaterError(raw["message"])
    except (ValueError, KeyError, TypeError):
        return QueryError(f"the service answered {answer.status_code}: {answer.text[:200]}")
