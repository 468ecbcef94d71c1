"""NOT an index: a stand-in for a Qdrant server that acknowledges writes and remembers only who wrote what.

For "scaling": it takes the index out of the way, so that the workers show. It keeps, in memory, of each point the few
fields that fences and censuses ask for, and one vector of each text; it answers no search. Everything about collections
and their schema goes to the tests' server. ``python -m bench.counting_index --port PORT --path DIR``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from qdrant_server import make_server  # the path is set above
from qdrant_store import Store

_FIELDS = ("document_id", "seq", "content_hash", "chunks", "partial", "chunk")
_Answer = Callable[[dict[str, Any]], Any]


class CountingIndex:
    """Points by document, and answers to the requests that ingest makes of them."""

    def __init__(self, schema: ASGIApp) -> None:
        self._schema = schema
        self._points: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._vectors: dict[str, Any] = {}
        self._answers: dict[tuple[str, str], _Answer] = {
            ("PUT", "points"): self._upsert,
            ("POST", "points/delete"): self._delete,
            ("POST", "points/scroll"): self._scroll,
            ("POST", "points/count"): self._count,
            ("POST", "facet"): self._facet,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tail = "" if scope["type"] != "http" else "/".join(scope["path"].split("/")[3:])
        answer = self._answers.get((scope.get("method", ""), tail))
        if answer is None:
            await self._schema(scope, receive, send)
            return
        result = {"result": answer(json.loads(await _body(receive))), "status": "ok", "time": 0.0}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(result).encode()})

    def _upsert(self, given: dict[str, Any]) -> Any:
        for point in given["points"]:
            payload = point["payload"]
            held = self._points[payload["document_id"]]
            if "text_hash" in payload:
                self._vectors[payload["text_hash"]] = point["vector"]
            if point["id"] not in held or held[point["id"]]["seq"] <= payload["seq"]:
                held[point["id"]] = {name: payload.get(name) for name in _FIELDS}
        return {"operation_id": 1, "status": "completed"}

    def _delete(self, given: dict[str, Any]) -> Any:
        below = next((c["range"]["lt"] for c in given["filter"]["must"] if c["key"] == "seq" and "range" in c), None)
        for name in _named(given, "document_id") if below is not None else ():
            held = self._points[name]
            self._points[name] = {key: point for key, point in held.items() if point["seq"] >= below}
        return {"operation_id": 1, "status": "completed"}

    def _scroll(self, given: dict[str, Any]) -> Any:
        if hashes := _named(given, "text_hash"):
            texts = [(name, self._vectors[name]) for name in hashes if name in self._vectors]
            points = [{"id": at, "payload": {"text_hash": name}, "vector": v} for at, (name, v) in enumerate(texts)]
            return {"points": points, "next_page_offset": None}
        found = [
            (key, point) for name in _named(given, "document_id") for key, point in self._points.get(name, {}).items()
        ]
        return {"points": [{"id": key, "payload": point} for key, point in found], "next_page_offset": None}

    def _count(self, given: dict[str, Any]) -> Any:
        return {"count": sum(map(len, self._points.values()))}

    def _facet(self, given: dict[str, Any]) -> Any:
        seqs = Counter(point["seq"] for held in self._points.values() for point in held.values())
        hits = seqs if given["key"] == "seq" else {}
        return {"hits": [{"value": seq, "count": number} for seq, number in hits.items()]}


def _named(given: dict[str, Any], field: str) -> list[str]:
    """The documents or texts that a filter names; none if it is about something else."""
    conditions = (given.get("filter") or {}).get("must") or []
    return [name for c in conditions if c.get("key") == field for name in c["match"]["any"]]


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", type=Path, required=True, help="where the schema is kept")
    given = parser.parse_args()
    app = CountingIndex(make_server(Store(given.path, strict=False), None))
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
