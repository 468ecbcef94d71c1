"""A Qdrant server for tests: the REST protocol that the official client speaks, over the real engine (Qdrant Edge).

``python tests/support/qdrant_server.py --port 6333 --path DIR``. Requests and answers are the client's own models, so
the format on the wire is the official one. One event loop does all, one request after the other. What is written is in
the engine's log when it is acknowledged, so kill -9 loses nothing of it. No cluster, no snapshots, no gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent))

import qdrant_edge as edge
import qdrant_wire as w  # the path is set above
import uvicorn
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client.http import models as m
from qdrant_store import FLUSH_S, Collection, Store
from qdrant_wire import Refusal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["make_server"]

#: what the client that speaks to it expects
_VERSION = "1.20.0"
#: bodies above are refused, as a server does by default
_MOST_BYTES = 32 * 1024 * 1024
_ORDERED = frozenset(("integer", "float", "datetime"))
_FACETED = frozenset(("keyword", "integer", "bool", "uuid"))

_Model = TypeVar("_Model", bound=BaseModel)
_INSERT: TypeAdapter[Any] = TypeAdapter(m.PointInsertOperations)
_SELECTOR: TypeAdapter[Any] = TypeAdapter(m.PointsSelector)


# -- requests ------------------------------------------------------------------------------------------------


async def _read(request: Request, model: type[_Model]) -> _Model:
    return model.model_validate_json(await _body(request))


async def _body(request: Request) -> bytes:
    if int(request.headers.get("content-length", 0)) > _MOST_BYTES:
        raise Refusal(413, f"Payload error: JSON payload is larger than allowed (limit: {_MOST_BYTES} bytes).")
    return await request.body()


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise Refusal(422, f"Validation error in JSON body: [{name}: value {value} invalid, must be 1 or larger]")


class Api:
    """One method for each route: it answers with what stands under ``result``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _collection(self, request: Request) -> Collection:
        return self._store.collection(request.path_params["name"])

    # -- collections and aliases -----------------------------------------------------------------------------

    async def list_collections(self, request: Request) -> Any:
        found = [m.CollectionDescription(name=name) for name in self._store.collections]
        return m.CollectionsResponse(collections=found)

    async def exists(self, request: Request) -> Any:
        with contextlib.suppress(Refusal):
            self._collection(request)
            return m.CollectionExistence(exists=True)
        return m.CollectionExistence(exists=False)

    async def get_collection(self, request: Request) -> Any:
        return self._collection(request).info()

    async def create_collection(self, request: Request) -> Any:
        return self._store.create(request.path_params["name"], await _read(request, m.CreateCollection))

    async def update_collection(self, request: Request) -> Any:
        changes, collection = await _read(request, m.UpdateCollection), self._collection(request)
        update: dict[str, Any] = {}
        if changes.metadata is not None:
            update["metadata"] = {**(collection.config.metadata or {}), **changes.metadata}
        if changes.strict_mode_config is not None:
            update["strict_mode_config"] = changes.strict_mode_config
        if changes.quantization_config is not None:
            off = changes.quantization_config == m.Disabled.DISABLED
            update["quantization_config"] = None if off else changes.quantization_config
        if changes.params is not None:
            update |= {name: value for name, value in changes.params if value is not None}
        collection.config = collection.config.model_copy(update=update)
        collection.save()
        return True

    async def delete_collection(self, request: Request) -> Any:
        return self._store.drop(request.path_params["name"])

    async def create_index(self, request: Request) -> Any:
        asked, collection = await _read(request, m.CreateFieldIndex), self._collection(request)
        schema = asked.field_schema
        kind = getattr(schema, "value", None) or str(getattr(getattr(schema, "type", None), "value", schema))
        if kind not in w.FIELD_TYPES:
            raise Refusal(400, f"this server makes no payload index of the kind {kind}")
        return collection.update(edge.UpdateOperation.create_field_index(asked.field_name, w.FIELD_TYPES[kind]))

    async def delete_index(self, request: Request) -> Any:
        return self._collection(request).update(edge.UpdateOperation.delete_field_index(request.path_params["field"]))

    async def change_aliases(self, request: Request) -> Any:
        return self._store.change_aliases(await _read(request, m.ChangeAliasesOperation))

    async def aliases(self, request: Request) -> Any:
        only = request.path_params.get("name")
        found = [
            m.AliasDescription(alias_name=alias, collection_name=target)
            for alias, target in sorted(self._store.aliases.items())
            if only in (None, target)
        ]
        return m.CollectionsAliasesResponse(aliases=found)

    # -- points ----------------------------------------------------------------------------------------------

    async def upsert(self, request: Request) -> Any:
        given = _INSERT.validate_json(await _body(request))
        collection = self._collection(request)
        self._store.check(collection, [given.update_filter], update=True)
        return collection.update(
            edge.UpdateOperation.upsert_points(
                w.edge_points(given),
                condition=w.edge_filter(given.update_filter),
                update_mode=w.update_mode(given.update_mode),
            )
        )

    async def delete(self, request: Request) -> Any:
        given = _SELECTOR.validate_json(await _body(request))
        collection = self._collection(request)
        if isinstance(given, m.PointIdsList):
            return collection.update(edge.UpdateOperation.delete_points([w.edge_id(one) for one in given.points]))
        self._store.check(collection, [given.filter], update=True)
        found = w.edge_filter(given.filter) or edge.Filter()
        return collection.update(edge.UpdateOperation.delete_points_by_filter(found))

    async def set_payload(self, request: Request) -> Any:
        given, collection = await _read(request, m.SetPayload), self._collection(request)
        if given.points is not None:
            ids = [w.edge_id(one) for one in given.points]
            return collection.update(edge.UpdateOperation.set_payload(ids, given.payload, given.key))
        self._store.check(collection, [given.filter], update=True)
        found = w.edge_filter(given.filter) or edge.Filter()
        return collection.update(edge.UpdateOperation.set_payload_by_filter(found, given.payload, given.key))

    async def retrieve(self, request: Request) -> Any:
        given = await _read(request, m.PointRequest)
        ids = [w.edge_id(one) for one in given.ids]
        payload, vector = w.with_payload(given.with_payload, default=True), given.with_vector or False
        return [w.record(found) for found in self._collection(request).shard.retrieve(ids, payload, vector)]

    async def scroll(self, request: Request) -> Any:
        given, collection = await _read(request, m.ScrollRequest), self._collection(request)
        _at_least_one("limit", given.limit)
        self._store.check(collection, [given.filter])
        if given.order_by is not None:
            key = given.order_by if isinstance(given.order_by, str) else given.order_by.key
            if collection.indexes().get(key) not in _ORDERED:
                raise Refusal(400, f"Bad request: No range index for `order_by` key: `{key}`. Please create one.")
        found, following = collection.shard.scroll(
            edge.ScrollRequest(
                offset=None if given.offset is None else w.edge_id(given.offset),
                limit=10 if given.limit is None else given.limit,
                filter=w.edge_filter(given.filter),
                with_payload=w.with_payload(given.with_payload, default=True),
                with_vector=given.with_vector or False,
                order_by=None if given.order_by is None else w.edge_order(given.order_by),
            )
        )
        offset = following if following is None or isinstance(following, int) else str(following)
        return m.ScrollResult(points=[w.record(one) for one in found], next_page_offset=offset)

    async def query(self, request: Request) -> Any:
        given, collection = await _read(request, m.QueryRequest), self._collection(request)
        return m.QueryResponse(points=self._query(collection, given))

    async def query_batch(self, request: Request) -> Any:
        given, collection = await _read(request, m.QueryRequestBatch), self._collection(request)
        return [m.QueryResponse(points=self._query(collection, one)) for one in given.searches]

    def _query(self, collection: Collection, given: m.QueryRequest) -> list[m.ScoredPoint]:
        _at_least_one("limit", given.limit)
        self._store.check(collection, w.query_filters(given))
        return [w.scored(found) for found in collection.shard.query(w.edge_query(given))]

    async def count(self, request: Request) -> Any:
        given, collection = await _read(request, m.CountRequest), self._collection(request)
        self._store.check(collection, [given.filter])
        exact = given.exact is not False
        counted = collection.shard.count(edge.CountRequest(exact=exact, filter=w.edge_filter(given.filter)))
        return m.CountResult(count=counted)

    async def facet(self, request: Request) -> Any:
        given, collection = await _read(request, m.FacetRequest), self._collection(request)
        _at_least_one("limit", given.limit)
        self._store.check(collection, [given.filter])
        if collection.indexes().get(given.key) not in _FACETED:
            raise Refusal(400, f"Bad request: No appropriate index for faceting: `{given.key}`. Please create one.")
        limit = 10 if given.limit is None else given.limit
        asked = edge.FacetRequest(given.key, limit, exact=bool(given.exact), filter=w.edge_filter(given.filter))
        hits = [m.FacetValueHit(value=hit.value, count=hit.count) for hit in collection.shard.facet(asked).hits]
        return m.FacetResponse(hits=hits)


# -- the server ----------------------------------------------------------------------------------------------

_Endpoint = Callable[[Request], Awaitable[Any]]


#: what a key that may only read is not let to, besides PUT, PATCH and DELETE
_WRITES = ("/points/delete", "/points/payload", "/collections/aliases")


def _route(path: str, method: str, answer: _Endpoint, api_key: str | None, read_key: str | None) -> Route:
    writes = method in ("PUT", "PATCH", "DELETE") or path.endswith(_WRITES)

    async def endpoint(request: Request) -> Response:
        began = time.perf_counter()
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if api_key is not None and not given:
            return Response("Must provide an API key or an Authorization bearer token", 401)
        if read_key is not None and given == read_key:
            if writes:
                return Response("Forbidden: Global write access is required", 403)
        elif api_key is not None and given != api_key:
            return Response("Invalid API key or JWT", 403)
        try:
            result = await answer(request)
        except Refusal as refusal:
            return _error(refusal.status, str(refusal))
        except ValidationError as error:
            return _error(400, f"Format error in JSON body: {error.errors(include_url=False)[0]}")
        except Exception as error:  # the engine has no error type of its own
            return _error(500, f"Service internal error: {error}")
        return JSONResponse({"result": w.wire(result), "status": "ok", "time": time.perf_counter() - began})

    return Route(path, endpoint, methods=[method])


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"status": {"error": sentence}, "time": 0.0}, status)


def make_server(store: Store, api_key: str | None, read_key: str | None = None, version: str = _VERSION) -> Starlette:
    api = Api(store)
    one = "/collections/{name}"

    async def root(request: Request) -> Response:
        return JSONResponse({"title": "qdrant - vector search engine", "version": version})

    async def healthy(request: Request) -> Response:
        return Response("healthz check passed")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        flusher = asyncio.create_task(_flush_often(store))
        yield
        flusher.cancel()
        store.close()

    answers: list[tuple[str, str, _Endpoint]] = [
        ("GET", "/collections", api.list_collections),
        ("POST", "/collections/aliases", api.change_aliases),
        ("GET", "/aliases", api.aliases),
        ("GET", f"{one}/exists", api.exists),
        ("GET", f"{one}/aliases", api.aliases),
        ("PUT", f"{one}/index", api.create_index),
        ("DELETE", f"{one}/index/{{field:path}}", api.delete_index),
        ("PUT", f"{one}/points", api.upsert),
        ("POST", f"{one}/points", api.retrieve),
        ("POST", f"{one}/points/delete", api.delete),
        ("POST", f"{one}/points/payload", api.set_payload),
        ("POST", f"{one}/points/scroll", api.scroll),
        ("POST", f"{one}/points/query", api.query),
        ("POST", f"{one}/points/query/batch", api.query_batch),
        ("POST", f"{one}/points/count", api.count),
        ("POST", f"{one}/facet", api.facet),
        ("GET", one, api.get_collection),
        ("PUT", one, api.create_collection),
        ("PATCH", one, api.update_collection),
        ("DELETE", one, api.delete_collection),
    ]
    open_to_all = [Route("/", root), *(Route(path, healthy) for path in ("/healthz", "/livez", "/readyz"))]
    keyed = [_route(path, method, answer, api_key, read_key) for method, path, answer in answers]
    return Starlette(routes=[*open_to_all, *keyed], lifespan=lifespan)


async def _flush_often(store: Store) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        for collection in list(store.collections.values()):
            collection.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--path", type=Path, help="where collections are kept (default: until it ends)")
    parser.add_argument("--api-key")
    parser.add_argument("--read-only-api-key")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--strict", action="store_true", help="refuse filters on fields without a payload index")
    parser.add_argument("--version", default=_VERSION, help="what it says of itself (default: %(default)s)")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = given.path or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qdrant-test-")))
        uvicorn.run(
            make_server(Store(root, strict=given.strict), given.api_key, given.read_only_api_key, given.version),
            host=given.host,
            port=given.port,
            ssl_certfile=given.tls_cert,
            ssl_keyfile=given.tls_key,
            log_level="warning",
            timeout_keep_alive=75,
        )


if __name__ == "__main__":
    main()
