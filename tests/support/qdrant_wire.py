"""Requests of Qdrant's REST protocol, as its official client writes them, in the words of the Edge engine, and the
engine's answers on the wire."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models as m

__all__ = [
    "Refusal",
    "config_of",
    "edge_filter",
    "edge_id",
    "edge_points",
    "edge_query",
    "fields_of",
    "query_filters",
    "record",
    "scored",
]

#: by payload index: what it is for the engine
FIELD_TYPES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "uuid": edge.PayloadSchemaType.Uuid,
    "text": edge.PayloadSchemaType.Text,
}
_DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
_UPDATE_MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}
#: the server's own, where a query names none
_RRF_K = 2
_LIMIT = 10


class Refusal(Exception):
    """What the server answers instead, by its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def config_of(collection: m.CreateCollection) -> edge.EdgeConfig:
    """Vectors alone: quantization and graphs change how fast an answer is, not which one."""
    dense = collection.vectors if isinstance(collection.vectors, dict) else {"": collection.vectors}
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(size=params.size, distance=_DISTANCES[params.distance.value])
            for name, params in dense.items()
            if params is not None
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier == m.Modifier.IDF else None)
            for name, params in (collection.sparse_vectors or {}).items()
        },
    )


# -- ids, vectors, points ------------------------------------------------------------------------------------


def edge_id(given: int | str | uuid.UUID) -> edge.PointId:
    """Raises Refusal for what is neither a number nor a UUID."""
    if isinstance(given, int | uuid.UUID):
        return given
    try:
        return uuid.UUID(given)
    except ValueError:
        raise Refusal(400, f"Format error in JSON body: value {given} is not a valid point ID") from None


def _edge_vector(vector: Any) -> Any:
    if isinstance(vector, m.SparseVector):
        return edge.SparseVector(vector.indices, vector.values)
    if isinstance(vector, list):
        return vector
    raise Refusal(400, "this server makes no vectors of texts or pictures")


def edge_points(request: m.PointsList | m.PointsBatch) -> list[edge.Point]:
    if isinstance(request, m.PointsBatch):
        raise Refusal(400, "this server takes points one by one (PointsList)")
    return [edge.Point(edge_id(point.id), _vectors(point.vector), point.payload or {}) for point in request.points]


def _vectors(given: Any) -> Any:
    return {n: _edge_vector(v) for n, v in given.items()} if isinstance(given, dict) else _edge_vector(given)


def update_mode(mode: m.UpdateMode | None) -> edge.UpdateMode | None:
    return None if mode is None else _UPDATE_MODES[mode.value]


def _wire_vector(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: _wire_vector(one) for name, one in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return m.SparseVector(indices=vector.indices, values=vector.values)
    return vector


def record(found: edge.Record) -> m.Record:
    return m.Record(
        id=_wire_id(found.id), payload=found.payload, vector=_wire_vector(found.vector), order_value=found.order_value
    )


def scored(found: edge.ScoredPoint) -> m.ScoredPoint:
    return m.ScoredPoint(
        id=_wire_id(found.id),
        version=found.version,
        score=found.score,
        payload=found.payload,
        vector=_wire_vector(found.vector),
        order_value=found.order_value,
    )


def _wire_id(found: Any) -> int | str:
    return found if isinstance(found, int) else str(found)


def with_payload(given: Any, default: bool) -> Any:
    if isinstance(given, m.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(given.include)
    if isinstance(given, m.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(given.exclude)
    return default if given is None else given


# -- filters -------------------------------------------------------------------------------------------------


def _listed(given: Any) -> list[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]


def edge_filter(given: m.Filter | None) -> edge.Filter | None:
    if given is None:
        return None
    at_least = given.min_should
    return edge.Filter(
        must=[_condition(one) for one in _listed(given.must)] or None,
        should=[_condition(one) for one in _listed(given.should)] or None,
        must_not=[_condition(one) for one in _listed(given.must_not)] or None,
        min_should=None
        if at_least is None
        else edge.MinShould([_condition(one) for one in at_least.conditions], at_least.min_count),
    )


def _condition(given: Any) -> Any:
    match given:
        case m.Filter():
            return edge_filter(given)
        case m.FieldCondition():
            return edge.FieldCondition(
                given.key,
                match=_match(given.match),
                range=_range(given.range),
                is_empty=given.is_empty,
                is_null=given.is_null,
            )
        case m.HasIdCondition():
            return edge.HasIdCondition({edge_id(one) for one in given.has_id})
        case m.IsEmptyCondition():
            return edge.IsEmptyCondition(given.is_empty.key)
        case m.IsNullCondition():
            return edge.IsNullCondition(given.is_null.key)
        case m.HasVectorCondition():
            return edge.HasVectorCondition(given.has_vector)
    raise Refusal(400, f"this server does not know conditions of the kind {type(given).__name__}")


def _match(given: Any) -> Any:
    match given:
        case None:
            return None
        case m.MatchValue():
            return edge.MatchValue(given.value)
        case m.MatchAny():
            return edge.MatchAny(given.any)
        case m.MatchExcept():
            return edge.MatchExcept(given.except_)
    raise Refusal(400, f"this server does not know {type(given).__name__}")


def _range(given: m.Range | m.DatetimeRange | None) -> Any:
    if given is None:
        return None
    bounds: dict[str, Any] = {name: getattr(given, name) for name in ("gte", "gt", "lte", "lt")}
    if isinstance(given, m.Range):
        return edge.RangeFloat(**bounds)
    texts = {name: bound.isoformat() if isinstance(bound, date) else bound for name, bound in bounds.items()}
    return edge.RangeDateTime(**texts)


def fields_of(given: m.Filter | None) -> Iterator[tuple[str, frozenset[str]]]:
    """Each field that a filter asks about, with the kinds of index that can answer (strict mode asks for one)."""
    if given is None:
        return
    counted = [] if given.min_should is None else given.min_should.conditions
    for one in (*_listed(given.must), *_listed(given.should), *_listed(given.must_not), *counted):
        yield from _fields(one)


def _fields(one: Any) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(one, m.Filter):
        yield from fields_of(one)
    elif isinstance(one, m.FieldCondition):
        yield one.key, _answering(one)
    elif isinstance(one, m.IsEmptyCondition):
        yield one.is_empty.key, frozenset(FIELD_TYPES)
    elif isinstance(one, m.IsNullCondition):
        yield one.is_null.key, frozenset(FIELD_TYPES)


def _answering(one: m.FieldCondition) -> frozenset[str]:
    if isinstance(one.range, m.DatetimeRange):
        return frozenset(("datetime",))
    if one.range is not None:
        return frozenset(("integer", "float"))
    values = _matched(one.match)
    if not values:
        return frozenset(FIELD_TYPES)
    if all(isinstance(value, bool) for value in values):
        return frozenset(("bool",))
    return frozenset(("integer",) if isinstance(values[0], int) else ("keyword", "uuid"))


def _matched(match: Any) -> Sequence[Any]:
    if isinstance(match, m.MatchValue):
        return [match.value]
    return match.any if isinstance(match, m.MatchAny) else match.except_ if isinstance(match, m.MatchExcept) else []


# -- queries -------------------------------------------------------------------------------------------------


def edge_query(given: m.QueryRequest) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=_LIMIT if given.limit is None else given.limit,
        offset=given.offset,
        query=_scoring(given),
        prefetches=[_prefetch(one) for one in _listed(given.prefetch)] or None,
        with_vector=False if given.with_vector is None else given.with_vector,
        with_payload=with_payload(given.with_payload, default=False),
        filter=edge_filter(given.filter),
        score_threshold=given.score_threshold,
        params=_params(given.params),
    )


def _prefetch(given: m.Prefetch) -> edge.Prefetch:
    return edge.Prefetch(
        limit=_LIMIT if given.limit is None else given.limit,
        query=_scoring(given),
        prefetches=[_prefetch(one) for one in _listed(given.prefetch)] or None,
        params=_params(given.params),
        filter=edge_filter(given.filter),
        score_threshold=given.score_threshold,
    )


def _scoring(given: m.QueryRequest | m.Prefetch) -> Any:
    query = given.query
    match query:
        case None:
            return None
        case m.RrfQuery():
            return edge.Fusion.Rrf(k=_RRF_K if query.rrf.k is None else query.rrf.k, weights=query.rrf.weights)
        case m.FusionQuery():
            return edge.Fusion.Dbsf() if query.fusion == m.Fusion.DBSF else edge.Fusion.Rrf(k=_RRF_K)
        case m.OrderByQuery():
            return edge_order(query.order_by)
        case m.NearestQuery():
            return edge.Query.Nearest(_edge_vector(query.nearest), using=given.using)
        case list() | m.SparseVector():
            return edge.Query.Nearest(_edge_vector(query), using=given.using)
    raise Refusal(400, f"this server does not know queries of the kind {type(query).__name__}")


def _params(given: m.SearchParams | None) -> edge.SearchParams | None:
    return None if given is None else edge.SearchParams(hnsw_ef=given.hnsw_ef, exact=bool(given.exact))


def edge_order(given: str | m.OrderBy) -> edge.OrderBy:
    if isinstance(given, str):
        return edge.OrderBy(given)
    down = given.direction == m.Direction.DESC
    return edge.OrderBy(given.key, edge.Direction.Desc if down else edge.Direction.Asc, _start(given.start_from))


def _start(given: Any) -> Any:
    return given.isoformat() if isinstance(given, date) else given


def query_filters(given: m.QueryRequest | m.Prefetch) -> Iterator[m.Filter | None]:
    yield given.filter
    inner: Iterable[m.Prefetch] = _listed(given.prefetch)
    for one in inner:
        yield from query_filters(one)


def wire(value: Any) -> Any:
    """As JSON values. What is not set is left out, as the server does."""
    if isinstance(value, Mapping):
        return {name: wire(one) for name, one in value.items()}
    if isinstance(value, list):
        return [wire(one) for one in value]
    return value.model_dump(mode="json", exclude_none=True, by_alias=True) if hasattr(value, "model_dump") else value
