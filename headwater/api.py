"""The query API over HTTP: for callers in other processes while one process holds the index.

    POST /v1/search       {"text", ...}: the fields of ``headwater.question.Question``
                          -> {"hits": [...], "freshness": {"seq", "pending", "in_step", "generation"}}
    POST /v1/context      {"question": {as search}, "max_tokens", "tokenizer"}
                          -> {"passages": [...], "text", "prompt", "tokens", "max_tokens", "question"}
    POST /v1/similar      {"path" or "text", "limit"} -> as search
    POST /v1/similarity   {"a", "b"} -> {"similarity": number}
    POST /v1/near_duplicates  {"threshold", "limit"} -> {"pairs": [{"a", "b", "similarity", "shared"}, ...]}
    POST /v1/document     {"document_id"} -> {"record": {...} or null}, the model's name in it
    POST /v1/known        {"text_hashes": [...]} -> {"known": [...]}, those whose vectors the index has
    POST /v1/model        {} -> {"name", "dimension", "tokenizer"}
    POST /v1/embed        {"text"} -> {"vector": [...]}: for a query server without a model (HEADWATER_EMBED_URL)
    POST /v1/flush        makes everything written durable; changes state, so it needs the token
    POST /v1/points       {"offset", "document_id"} -> {"points": [...], "next"}: raw, a page at a time; needs the token
    POST /v1/discard      {"points": [[id, seq], ...]}: deletes those whose seq is still this one; needs the token
    GET  /healthz /readyz /status /metrics

Requests must name a loopback host (or one of ``allowed_hosts``), and an Origin, if there is one, must too: a web page
elsewhere cannot reach the index through a browser. Errors come as {"error": {"type", "message"}}.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.errors import HeadwaterError, PermanentError, QueryError
from headwater.index import VectorIndex
from headwater.listening import listen, url_of
from headwater.local import LocalEngine
from headwater.metrics import CONTENT_TYPE, exposition
from headwater.points import answer_discard, answer_points
from headwater.question import Question
from headwater.settings import Settings

__all__ = ["ApiServer", "make_api"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_MOST_BODY_BYTES = 1 << 20
_READY_TIMEOUT_S = 110.0

Handler = Callable[[dict[str, Any]], Any]


def make_api(
    engine: Future[LocalEngine],
    *,
    status: Callable[[], dict[str, Any]],
    flush: Callable[[], None],
    token: str,
    allowed_hosts: Iterable[str] = (),
    index: VectorIndex | None = None,
    numbers: CollectorRegistry | None = None,
) -> ASGIApp:
    """The API as an ASGI app. Questions wait for ``engine``, which may still be loading its model. With ``index`` its
    raw points can be read and discarded, with ``numbers`` they are told as metrics."""
    routes = [
        *([] if index is None else _raw_points(index, token)),
        *([] if numbers is None else [Route("/metrics", partial(_metrics, numbers))]),
        Route("/v1/search", _posted(lambda body: _search(_ready(engine), body)), methods=["POST"]),
        Route("/v1/context", _posted(lambda body: _context(_ready(engine), body)), methods=["POST"]),
        Route("/v1/similar", _posted(lambda body: _similar(_ready(engine), body)), methods=["POST"]),
        Route("/v1/similarity", _posted(lambda body: _similarity(_ready(engine), body)), methods=["POST"]),
        Route("/v1/near_duplicates", _posted(lambda body: _near_duplicates(_ready(engine), body)), methods=["POST"]),
        Route("/v1/document", _posted(lambda body: _document(_ready(engine), body)), methods=["POST"]),
        Route("/v1/known", _posted(lambda body: _known(_ready(engine), body)), methods=["POST"]),
        Route("/v1/model", _posted(lambda body: _model(_ready(engine), body)), methods=["POST"]),
        Route("/v1/embed", _posted(lambda body: _embed(_ready(engine), body)), methods=["POST"]),
        Route("/v1/flush", _with_token(token, flush), methods=["POST"]),
        Route("/healthz", lambda request: JSONResponse({"ok": True})),
        Route("/readyz", lambda request: _readiness(engine)),
        Route("/status", _asked(status)),
    ]
    return _LocalOnly(Starlette(routes=routes), _LOOPBACK | set(allowed_hosts))


async def _metrics(numbers: CollectorRegistry, request: Request) -> Response:
    return Response(await run_in_threadpool(exposition, numbers), media_type=CONTENT_TYPE)


def _raw_points(index: VectorIndex, token: str) -> list[Route]:
    actions = {"/v1/points": partial(answer_points, index), "/v1/discard": partial(answer_discard, index)}
    return [Route(path, _trusted(token, action), methods=["POST"]) for path, action in actions.items()]


def _ready(engine: Future[LocalEngine]) -> LocalEngine:
    return engine.result(timeout=_READY_TIMEOUT_S)


def _readiness(engine: Future[LocalEngine]) -> Response:
    ready = engine.done() and engine.exception() is None
    return JSONResponse({"ready": ready}, status_code=200 if ready else 503)


def _search(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    return engine.search(Question.from_mapping(body)).to_dict()


def _context(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("question", "max_tokens", "tokenizer"))
    asked = body.get("question")
    if not isinstance(asked, dict):
        raise QueryError("the request needs a question: an object with a text, as for a search")
    question = Question.from_mapping({"limit": 30, **asked})
    return engine.context(question, body.get("max_tokens", 2000), body.get("tokenizer")).to_dict()


def _similar(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("path", "text", "limit"))
    return engine.similar(body.get("path"), body.get("text"), body.get("limit", 10)).to_dict()


def _near_duplicates(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("threshold", "limit"))
    pairs = engine.near_duplicates(body.get("threshold", 0.95), body.get("limit", 100))
    return {"pairs": [asdict(pair) for pair in pairs]}


def _similarity(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("a", "b"))
    return {"similarity": engine.similarity(body.get("a", ""), body.get("b", ""))}


def _document(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("document_id",))
    return {"record": engine.record(_texts([body.get("document_id")], "document_id")[0])}


def _known(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("text_hashes",))
    return {"known": sorted(engine.known(_texts(body.get("text_hashes"), "text_hashes")))}


def _model(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ())
    return engine.model()


def _embed(engine: LocalEngine, body: dict[str, Any]) -> dict[str, Any]:
    _only(body, ("text",))
    return {"vector": engine.embed(body.get("text", ""))}


def _texts(values: object, name: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.isascii() for value in values):
        raise QueryError(f"the request needs {name} in hexadecimal")
    return values


def _only(body: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(body) - set(known)):
        named = ", ".join(ascii(name)[1:-1] for name in unknown)  # a key may be half a character, or two lines
        raise QueryError(f"the request has {named}: it may have {', '.join(known)}")


def _posted(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await _answer(lambda body: run_in_threadpool(handler, body), await _body(request))

    return endpoint


def _asked(handler: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await _answer(lambda _: run_in_threadpool(handler), {})

    return endpoint


def _with_token(token: str, action: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if not _shows(request, token):
            return _no_token()
        await run_in_threadpool(action)
        return JSONResponse({"ok": True})

    return endpoint


def _trusted(token: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    posted = _posted(handler)

    async def endpoint(request: Request) -> Response:
        return await posted(request) if _shows(request, token) else _no_token()

    return endpoint


def _shows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), token.encode())


def _no_token() -> Response:
    message = "this changes state and needs the token of the state directory as 'Authorization: Bearer ...'"
    return _problem("PermanentError", message, 401)


async def _body(request: Request) -> dict[str, Any] | None:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > _MOST_BODY_BYTES:
            return None
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


async def _answer(handler: Callable[[dict[str, Any]], Awaitable[Any]], body: dict[str, Any] | None) -> Response:
    if body is None:
        return _problem("QueryError", f"the body must be a JSON object of at most {_MOST_BODY_BYTES} bytes", 400)
    try:
        return JSONResponse(await handler(body))
    except HeadwaterError as error:
        return _problem(type(error).__name__, str(error), 400 if isinstance(error, PermanentError) else 503)
    except (TypeError, ValueError) as error:
        return _problem("QueryError", f"the request cannot be understood: {error}", 400)
    except TimeoutError:
        return _problem("ServiceUnavailable", "the service is still loading its model: ask again in a moment", 503)


def _problem(kind: str, message: str, status: int) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message}}, status_code=status)


class _LocalOnly:
    """Refuses requests whose Host or Origin names another place (DNS rebinding, foreign pages)."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (name := self._foreign(dict(scope["headers"]))):
            problem = _problem("PermanentError", f"{name} is not one that this API serves", 403)
            await problem(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _foreign(self, headers: dict[bytes, bytes]) -> str | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if _hostname(f"//{host}") not in self._hosts:
            return f"the host {host!r}"
        origin = headers.get(b"origin", b"").decode("latin-1")
        return f"the origin {origin!r}" if origin and _hostname(origin) not in self._hosts else None


def _hostname(url: str) -> str | None:
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname
    return None


class ApiServer:
    """uvicorn in a thread of this process, on a socket that is bound at once, so that a taken port is known early."""

    def __init__(self, settings: Settings, listener: socket.socket | None = None) -> None:
        """With ``listener``, on that socket, which others may share."""
        self._socket = listener or listen(settings.host, settings.port)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = url_of(self._socket, settings)

    def start(self, app: ASGIApp) -> None:
        """Serve from a thread."""
        config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="api", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered, and end."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=5)
        self._socket.close()
