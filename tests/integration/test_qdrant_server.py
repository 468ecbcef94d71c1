"""The tests' Qdrant server does what the contract and the acceptance tests take for granted of a real one."""

from __future__ import annotations

import ssl
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_client.http.exceptions import UnexpectedResponse
from servers import QdrantServer, make_certificate

from headwater.index_server import ServerIndex, ServerOptions

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")

_VECTORS = {"dense": m.VectorParams(size=2, distance=m.Distance.COSINE)}


@pytest.fixture
def client(qdrant_server: QdrantServer) -> Iterator[QdrantClient]:
    made = QdrantClient(url=qdrant_server.url, api_key=qdrant_server.api_key, check_compatibility=False)
    yield made
    made.close()


@pytest.fixture
def name(client: QdrantClient) -> Iterator[str]:
    """A collection with two points and an index on ``n``."""
    made = f"c-{uuid.uuid4().hex}"
    client.create_collection(made, vectors_config=_VECTORS, metadata={"a": 1})
    client.create_payload_index(made, "n", m.PayloadSchemaType.INTEGER)
    client.upsert(made, [_point(1, n=1, word="one"), _point(2, n=2, word="two")])
    yield made
    client.delete_collection(made)


def _point(number: int, **payload: object) -> m.PointStruct:
    return m.PointStruct(id=number, vector={"dense": [1.0, 0.0]}, payload=payload)


def _equal(field: str, value: str | int) -> m.Filter:
    return m.Filter(must=[m.FieldCondition(key=field, match=m.MatchValue(value=value))])


def test_a_filter_on_a_field_without_an_index_is_refused(client: QdrantClient, name: str) -> None:
    unindexed = _equal("word", "one")
    asked = [
        lambda: client.scroll(name, scroll_filter=unindexed),
        lambda: client.count(name, unindexed),
        lambda: client.delete(name, m.FilterSelector(filter=unindexed)),
        lambda: client.upsert(name, [_point(1)], update_filter=unindexed),
        lambda: client.query_points(name, query=[1.0, 0.0], using="dense", query_filter=unindexed),
        lambda: client.facet(name, "word"),
        lambda: client.scroll(name, order_by="word"),
        lambda: client.scroll(name, scroll_filter=_equal("n", "1")),
    ]
    for ask in asked:
        with pytest.raises(UnexpectedResponse, match="400"):
            ask()
    assert [point.id for point in client.scroll(name, scroll_filter=_equal("n", 2))[0]] == [2]


def test_a_conditional_upsert_writes_what_meets_its_condition_or_is_new(client: QdrantClient, name: str) -> None:
    older = m.Filter(must=[m.FieldCondition(key="n", range=m.Range(lt=2))])
    client.upsert(name, [_point(1, n=5), _point(2, n=5), _point(3, n=5)], update_filter=older)
    found, _ = client.scroll(name, order_by=m.OrderBy(key="n", direction=m.Direction.DESC))
    assert sorted((point.id, (point.payload or {})["n"]) for point in found) == [(1, 5), (2, 2), (3, 5)]


def test_an_alias_moves_in_one_step_and_stands_for_its_collection(client: QdrantClient, name: str) -> None:
    other, alias = f"{name}-b", f"{name}-alias"
    client.create_collection(other, vectors_config=_VECTORS)
    client.update_collection_aliases([_alias(name, alias)])
    assert client.count(alias).count == 2
    # A step that cannot be done undoes the ones before it
    with pytest.raises(UnexpectedResponse, match="404"):
        client.update_collection_aliases([_gone(alias), _alias("none", alias)])
    assert client.count(alias).count == 2
    client.update_collection_aliases([_gone(alias), _alias(other, alias)])
    assert client.count(alias).count == 0
    assert [found.alias_name for found in client.get_collection_aliases(other).aliases] == [alias]
    assert client.collection_exists(alias)
    client.delete_collection(other)
    assert alias not in [found.alias_name for found in client.get_aliases().aliases]


def _alias(collection: str, alias: str) -> m.CreateAliasOperation:
    return m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=alias))


def _gone(alias: str) -> m.DeleteAliasOperation:
    return m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name=alias))


def test_metadata_is_merged_and_a_collection_is_made_once(client: QdrantClient, name: str) -> None:
    client.update_collection(name, metadata={"b": 2})
    found = client.get_collection(name)
    assert found.config.metadata == {"a": 1, "b": 2}
    assert list(found.payload_schema) == ["n"]
    with pytest.raises(UnexpectedResponse, match="409"):
        client.create_collection(name, vectors_config=_VECTORS)
    assert not client.delete_collection(f"{name}-none")


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 403)])
def test_nobody_is_let_in_without_the_key(qdrant_server: QdrantServer, key: str | None, status: int) -> None:
    stranger = QdrantClient(url=qdrant_server.url, api_key=key, check_compatibility=False)
    with pytest.raises(UnexpectedResponse, match=str(status)):
        stranger.get_collections()
    stranger.close()


@pytest.fixture
def guarded_server(tmp_path: Path) -> Iterator[QdrantServer]:
    """A server over TLS alone, which a test may kill."""
    server = QdrantServer(tmp_path / "server", api_key="secret", tls=make_certificate(tmp_path / "tls", "127.0.0.1"))
    server.start()
    yield server
    server.stop()


def test_what_was_acknowledged_outlives_kill_9_over_tls(guarded_server: QdrantServer) -> None:
    assert guarded_server.tls is not None
    trusted = ssl.create_default_context(cafile=str(guarded_server.tls[0]))
    client = QdrantClient(url=guarded_server.url, api_key="secret", check_compatibility=False, verify=trusted)
    client.create_collection("kept", vectors_config=_VECTORS)
    client.create_payload_index("kept", "n", m.PayloadSchemaType.INTEGER)
    client.update_collection_aliases([_alias("kept", "live")])
    client.upsert("kept", [_point(number, n=number) for number in range(50)])
    client.delete("kept", m.FilterSelector(filter=_equal("n", 7)))
    guarded_server.restart()
    assert client.count("live").count == 49
    assert list(client.get_collection("kept").payload_schema) == ["n"]
    client.close()


def test_workers_that_start_together_make_one_collection(qdrant_server: QdrantServer, client: QdrantClient) -> None:
    name, together = f"c-{uuid.uuid4().hex}", threading.Barrier(4)

    def start(index: ServerIndex) -> str:
        together.wait()
        return index.ensure_schema("model@1", 8).index_id

    workers = [ServerIndex.connect(qdrant_server.url, ServerOptions(qdrant_server.api_key), name) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, workers))) == 1
    for worker in workers:
        worker.close()
    client.delete_collection(f"{name}.g1")
