"""The index on a Qdrant server or cluster, through its official client."""

from __future__ import annotations

import copy
import math
import random
import re
import ssl
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from headwater.aliases import Aliases
from headwater.errors import IndexUnavailable
from headwater.index import (
    BATCH_POINTS,
    INDEXED_FIELDS,
    SCHEMA_VERSION,
    Condition,
    IndexCounts,
    Manifest,
    Point,
    Quantization,
    ScoredChunk,
    SearchQuery,
)
from headwater.index_qdrant import QdrantIndex, dense_of, fence_conditions, of_source, point_of
from headwater.server_reads import plain_errors
from headwater.server_wire import by_bytes, point_id, query_request, to_filter, to_server
from headwater.settings import Settings, shown_url

__all__ = ["ServerIndex", "ServerOptions"]

Vector = NDArray[np.float32]
_Answer = TypeVar("_Answer")
_ERRORS = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, httpx.HTTPError, OSError)

_TYPES = {
    "keyword": m.PayloadSchemaType.KEYWORD,
    "integer": m.PayloadSchemaType.INTEGER,
    "datetime": m.PayloadSchemaType.DATETIME,
}
#: pauses before a request is tried again that may succeed then, each with jitter
_PAUSES_S = (0.2, 0.6)
#: answers of a server that is busy, or of a proxy before one that is not there now
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_MISSING = 404
#: the first version with all that is asked of it: weights in a fusion (1.17); older than 1.16, a server would pass over
#: the condition of a write without a word, and nothing would be fenced
_OLDEST = (1, 17)
_CONFLICT = 409
#: of an answer that refuses us, at most
_SAID_CHARACTERS = 120
#: how long the values of a field are believed that need not be exact
_VALUES_S = 5.0
#: connections that stay open between requests, as many as a worker has threads
_KEPT_CONNECTIONS = 32


#: how the copies are made; outliers beyond the 99th percentile do not stretch the scale of the others
_QUANTIZED: dict[Quantization, m.ScalarQuantization | m.BinaryQuantization | None] = {
    "none": None,
    "int8": m.ScalarQuantization(
        scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": m.BinaryQuantization(binary=m.BinaryQuantizationConfig(always_ram=True)),
}
#: the copies choose so many times the hits, and the true vectors the best of them
_SEARCHED = m.SearchParams(quantization=m.QuantizationSearchParams(rescore=True, oversampling=3.0))


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server is spoken to, and how a collection is laid out on a cluster (settings ``qdrant_...``)."""

    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    search_timeout_s: float = 5.0
    ca_file: Path | None = None
    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None
    write_ordering: str = "strong"
    read_consistency: int | str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.qdrant_api_key,
            settings.qdrant_timeout_s,
            settings.qdrant_search_timeout_s,
            settings.qdrant_ca_file,
            settings.qdrant_shards,
            settings.qdrant_replicas,
            settings.qdrant_write_consistency,
            settings.qdrant_write_ordering,
            settings.qdrant_read_consistency,
        )


class ServerIndex(QdrantIndex):
    """One collection on a server or cluster. Writes wait for the server, which keeps its own write-ahead log.

    Each request may be repeated without harm, since writes are fenced, and is: after an answer or a failure that may
    pass. On a cluster, writes go through the leader of their shard unless ``write_ordering`` says otherwise, so that
    all copies apply them in one order: a copy that took a deletion before an older write would keep what that brings.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        where: str,
        quantization: Quantization = "none",
        options: ServerOptions | None = None,
        generation: int | None = None,
        asking: QdrantClient | None = None,
    ) -> None:
        """``generation`` of the index; None: the current one at the time when it is opened, from then on. ``asking`` is
        the client for questions, which wait less."""
        self._client = client
        self._asking = asking or client
        self._clients = (self._client, self._asking)
        self._collection = collection
        self._generation = generation
        self._settled = False
        self.aliases = Aliases(client, collection, self._ask)
        self._where = where
        self._quantization: Quantization = quantization
        self._options = options or ServerOptions()
        self._params = None if quantization == "none" else _SEARCHED
        self._ordering = m.WriteOrdering(self._options.write_ordering)
        self._consistency = _consistency(self._options.read_consistency)
        self._values: dict[str, tuple[float, list[str]]] = {}

    @classmethod
    def connect(
        cls,
        url: str,
        options: ServerOptions,
        collection: str,
        quantization: Quantization = "none",
        generation: int | None = None,
    ) -> ServerIndex:
        """Raises IndexUnavailable if the URL is not one."""
        where, extra = shown_url(url), dict[str, Any]()
        with plain_errors(where, options.ca_file), warnings.catch_warnings():
            # of a key without TLS: a command says one sentence, or none
            warnings.simplefilter("ignore", UserWarning)
            if options.ca_file is not None:
                extra["verify"] = ssl.create_default_context(cafile=options.ca_file)
            client, asking = (
                QdrantClient(
                    url=url,
                    api_key=options.api_key,
                    timeout=math.ceil(seconds),
                    check_compatibility=False,
                    # also to this machine, where the client would make a connection for each request
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS),
                    cloud_inference=True,  # no point here has a text in place of a vector: none is searched for one
                    **extra,
                )
                for seconds in (options.timeout_s, min(options.timeout_s, options.search_timeout_s))
            )
        return cls(client, collection, where, quantization, options, generation, asking)

    def _ask(self, request: Callable[..., _Answer], *arguments: Any, **options: Any) -> _Answer:
        """The answer to a request. Raises IndexUnavailable."""
        for pause in (*_PAUSES_S, None):
            try:
                return request(*arguments, **options)
            except _ERRORS as error:
                if pause is None or not _may_pass(error):
                    raise IndexUnavailable(self._trouble(error)) from error
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  no secret
        raise AssertionError("the last try returns or raises")

    def _trouble(self, error: Exception) -> str:
        where = f"Qdrant at {self._where}"
        if isinstance(error, UnexpectedResponse) and error.status_code in _REFUSED:
            said = " ".join(error.content.decode("utf-8", "replace").split())[:_SAID_CHARACTERS]
            return (
                f"{where} refuses us ({error.status_code}: {said}): give QDRANT_API_KEY a key that may read and write"
            )
        if isinstance(error, UnexpectedResponse) and error.status_code == _MISSING:
            return f"the collection {self._collection} at {self._where} is gone: a worker makes it anew"
        if isinstance(_cause(error), httpx.TimeoutException):
            return f"{where} gives no answer in time: look whether it is overloaded, held still or cut off"
        return f"{where} does not answer as it should: {error}"

    def _distrust(self, reason: str) -> IndexUnavailable:
        return IndexUnavailable(f"the collection {self._collection} at {self._where} seems to be damaged: {reason}")

    # -- schema ----------------------------------------------------------------------------------------------

    def ensure_schema(self, model: str, dimension: int) -> Manifest:
        manifest = self.manifest() or self._create(
            replace(Manifest.new(model, dimension), quantization=self._quantization)
        )
        manifest.check(model, dimension, f"{self._collection} at {self._where}")
        self.dimension = dimension
        self._ensure_payload_indexes()
        if self._generation in (None, 1) and self.aliases.current() is None:
            self.aliases.point_to(1)  # where several workers do so at once, all say the same
        return self._quantized(manifest)

    def _quantized(self, manifest: Manifest) -> Manifest:
        """The manifest with the quantization that is wanted now; the server makes its segments anew by itself."""
        if manifest.quantization == self._quantization:
            return manifest
        changed = replace(manifest, quantization=self._quantization)
        self._ask(
            self._client.update_collection,
            self._collection,
            quantization_config=_QUANTIZED[self._quantization] or m.Disabled.DISABLED,
            metadata={"headwater": changed.to_json()},
        )
        return changed

    def open_existing(self) -> Manifest:
        """Open a collection that must be there. Raises IndexUnavailable if it is not."""
        manifest = self.manifest()
        if manifest is None:
            raise IndexUnavailable(
                f"there is no collection {self._collection} at {self._where}: start 'headwater work' first"
            )
        self.dimension = manifest.dimension
        return manifest

    def manifest(self) -> Manifest | None:
        """What the collection was made with, kept as its metadata."""
        if not self._settled:
            self._check_version()
            self._collection = self.aliases.collection(self._generation)
        if not self._ask(self._client.collection_exists, self._collection):
            return None
        self._settled = True  # wherever the alias goes: vectors of two models must not meet
        config = self._ask(self._client.get_collection, self._collection).config
        stored = (config.metadata or {}).get("headwater")
        if stored is not None:
            return Manifest.from_json(stored)
        params: Any = config.params.vectors
        size = params["dense"].size if isinstance(params, dict) and "dense" in params else 0
        return Manifest("foreign", "an unknown model", size, SCHEMA_VERSION)

    def _check_version(self) -> None:
        """Raises IndexUnavailable if the server is too old."""
        version = self._ask(self._client.info).version
        numbers = tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])
        if numbers < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise IndexUnavailable(
                f"Qdrant at {self._where} is of version {version}, and conditional writes and weighted fusion, which "
                f"Headwater needs, came with {oldest}: upgrade it"
            )

    def make_anew(self, model: str, dimension: int) -> Manifest | None:
        """Make the collection that is gone once more, if it is the one that is asked by the name; None if another
        generation has taken its place."""
        own = self._generation or 1
        if self.aliases.current() not in (None, own):
            return None
        made = self.ensure_schema(model, dimension)
        if self.aliases.current() is None:
            self.aliases.point_to(own)
        return made

    def _create(self, manifest: Manifest) -> Manifest:
        """Make the collection, or take the one that another worker has made in the same moment."""
        dense = m.VectorParams(size=manifest.dimension, distance=m.Distance.COSINE, on_disk=True)
        try:
            self._ask(
                self._client.create_collection,
                self._collection,
                vectors_config={"dense": dense},
                sparse_vectors_config={"sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
                shard_number=self._options.shards,
                replication_factor=self._options.replicas,
                write_consistency_factor=self._options.write_consistency,
                quantization_config=_QUANTIZED[self._quantization],
                metadata={"headwater": manifest.to_json()},
            )
        except IndexUnavailable as error:
            if not (isinstance(error.__cause__, UnexpectedResponse) and error.__cause__.status_code == _CONFLICT):
                raise
        return self.manifest() or manifest

    def _ensure_payload_indexes(self) -> None:
        """Every field that is filtered, counted or ordered by has one, as a server in strict mode demands."""
        present = self._ask(self._client.get_collection, self._collection).payload_schema
        for name, kind in INDEXED_FIELDS.items():
            if name not in present:
                self._ask(self._client.create_payload_index, self._collection, name, _TYPES[kind], wait=True)

    def for_questions(self) -> Self:
        hasty = copy.copy(self)
        hasty._client = self._asking
        return hasty

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def ping(self) -> None:
        """Raises IndexUnavailable if the server does not answer within the time of a search."""
        self._ask(self._asking.collection_exists, self._collection)

    # -- write -----------------------------------------------------------------------------------------------

    def _upsert(self, points: Sequence[Point], fences: Mapping[str, int]) -> None:
        condition = m.Filter(should=[to_filter(fence) for fence in fence_conditions(fences)])
        for batch in by_bytes(points):
            self._write_through(
                self._client.upsert,
                self._collection,
                [to_server(p) for p in batch],
                update_filter=condition,
            )

    def _delete(self, conditions: Sequence[Condition], ids: Sequence[str] = ()) -> None:
        selector = m.FilterSelector(filter=to_filter(conditions, ids))
        self._write_through(self._client.delete, self._collection, selector)

    def _write_through(self, request: Callable[..., m.UpdateResult], *arguments: Any, **options: Any) -> None:
        """Raises IndexUnavailable, also where the server has noted a write and does not come to it in its time."""
        done = self._ask(request, *arguments, wait=True, ordering=self._ordering, **options)
        if done.status is not m.UpdateStatus.COMPLETED:
            raise IndexUnavailable(
                f"Qdrant at {self._where} is late with a write ({done.status.value}): it may be overloaded"
            )

    def flush(self) -> None:
        """A write with ``wait`` is in the server's write-ahead log when it returns."""

    # -- read ------------------------------------------------------------------------------------------------

    def _page(
        self, conditions: Sequence[Condition], fields: Sequence[str] | None, offset: str | None, *, with_vectors: bool
    ) -> tuple[list[Point], str | None]:
        records, following = self._ask(
            self._client.scroll,
            self._collection,
            scroll_filter=to_filter(conditions) if conditions else None,
            limit=BATCH_POINTS,
            offset=None if offset is None else point_id(offset),
            with_payload=True if fields is None else list(fields),
            with_vectors=with_vectors,
            consistency=self._consistency,
        )
        return [point_of(record) for record in records], None if following is None else str(following)

    def _search(self, query: SearchQuery, candidates: int) -> list[ScoredChunk]:
        request = query_request(query, candidates, self._params)
        found = self._ask(self._asking.query_points, self._collection, consistency=self._consistency, **request).points
        return [ScoredChunk(point.score, point.payload or {}, dense_of(point.vector)) for point in found]

    def values(self, field: str, *, exact: bool = True) -> list[str]:
        known = self._values.get(field)
        if not exact and known is not None and time.monotonic() - known[0] < _VALUES_S:
            return known[1]
        found = sorted(map(str, self._facet(field, None, exact=exact)))
        self._values[field] = time.monotonic(), found
        return found

    def _facet(self, field: str, only: m.Filter | None, *, exact: bool) -> dict[str | int | bool, int]:
        """How many points have each value of a field."""
        client = self._client if exact else self._asking
        limit = self._count(only, client, exact=exact) + 1
        hits = self._ask(
            client.facet,
            self._collection,
            field,
            facet_filter=only,
            limit=limit,
            exact=exact,
            consistency=self._consistency,
        ).hits
        return {hit.value: hit.count for hit in hits if hit.count}

    def _count(self, only: m.Filter | None, client: QdrantClient | None = None, *, exact: bool = True) -> int:
        return self._ask((client or self._client).count, self._collection, count_filter=only, exact=exact).count

    def newest_seq(self) -> int | None:
        return self._newest(None)

    def holding(self, source: str) -> tuple[int, int]:
        """How many points there are of a folder, and the highest seq among them (0: none): cheaper than a census."""
        only = to_filter(of_source(source))
        return self._count(only), self._newest(only) or 0

    def _newest(self, only: m.Filter | None) -> int | None:
        newest = m.OrderBy(key="seq", direction=m.Direction.DESC)
        found, _ = self._ask(
            self._asking.scroll,
            self._collection,
            scroll_filter=only,
            limit=1,
            with_payload=["seq"],
            order_by=newest,
            consistency=self._consistency,
        )
        seq = (found[0].payload or {}).get("seq") if found else None
        return int(seq) if isinstance(seq, int | float) else None

    def census(self, source: str | None = None) -> dict[int, int]:
        only = to_filter(of_source(source)) if source is not None else None
        return {int(seq): number for seq, number in self._facet("seq", only, exact=True).items()}

    def count(self) -> IndexCounts:
        total, chunks = self._count(None), self._count(to_filter((Condition("chunk", gte=0),)))
        return IndexCounts(documents=total - chunks, chunks=chunks)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment; one that took all its time had its chance."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _PASSING
    return not isinstance(_cause(error), httpx.TimeoutException)


def _cause(error: Exception) -> Exception:
    return error.source if isinstance(error, ResponseHandlingException) else error


def _consistency(wanted: int | str | None) -> m.ReadConsistency | None:
    return m.ReadConsistencyType(wanted) if isinstance(wanted, str) else wanted
