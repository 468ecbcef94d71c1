"""Raw points over HTTP: the same pages as from the index itself, for those who hold the token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future

import httpx
import numpy as np
import pytest
from driver import wait_until

from headwater.api import ApiServer, make_api
from headwater.client import RemoteEngine
from headwater.document import document_id, point_id, record_id, text_hash
from headwater.errors import IndexUnavailable, QueryError
from headwater.index import Chunk, DocumentWrite, SeenPoint, Sparse
from headwater.index_edge import EdgeIndex
from headwater.points import RemotePoints, pages
from headwater.settings import Settings

TOKEN = "the-token"


@pytest.fixture
def url(edge_index: EdgeIndex) -> Iterator[str]:
    """The address of an API whose model never loads: points need none."""
    server = ApiServer(Settings.load(port=0))
    server.start(
        make_api(Future(), status=dict, flush=edge_index.flush, token=TOKEN, allowed_hosts=(), index=edge_index)
    )
    yield server.url
    server.stop()


@pytest.fixture
def points(url: str) -> Iterator[RemotePoints]:
    engine = RemoteEngine(url, TOKEN)
    wait_until(lambda: httpx.get(f"{url}/healthz", trust_env=False).is_success, "the API answers", timeout_s=10)
    yield RemotePoints(engine.post, None)
    engine.close()


def write(index: EdgeIndex, path: str, number: int) -> None:
    texts = [f"text {n}" for n in range(number)]
    dense = np.random.default_rng(7).normal(size=(number, 8))
    index.apply(
        DocumentWrite(
            document_id=document_id(path.encode()),
            path=path,
            seq=5,
            content_hash="hash",
            pipeline="p",
            kind="text",
            modified_at="2026-01-02T03:04:05.000000Z",
            size=7,
            chunks=[Chunk(n, text, text_hash(text), n, n + 1) for n, text in enumerate(texts)],
            dense=(dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float32),
            sparse=[Sparse([n, 2**32 - 1], [0.1, 1e-20]) for n in range(number)],
        )
    )


def test_the_pages_are_those_of_the_index_to_the_last_bit(edge_index: EdgeIndex, points: RemotePoints) -> None:
    edge_index.ensure_schema("model", 8)
    write(edge_index, "a", 300)
    write(edge_index, "b", 3)
    there = [point for page in pages(points) for point in page]
    here = list(edge_index.scan(with_vectors=True))
    assert [point.id for point in there] == [point.id for point in here]
    for one, other in zip(there, here, strict=True):
        assert one.payload == other.payload
        assert (one.dense is None) == (other.dense is None)
        if one.dense is not None and other.dense is not None and one.sparse is not None and other.sparse is not None:
            np.testing.assert_array_equal(one.dense, other.dense)
            assert list(one.sparse.indices) == list(other.sparse.indices)
            assert list(one.sparse.values) == list(other.sparse.values)
    of_one = [point.payload["path"] for page in pages(points, document_id(b"b")) for point in page]
    assert of_one == ["b"] * 4


def test_points_are_discarded_behind_their_fence(edge_index: EdgeIndex, points: RemotePoints) -> None:
    edge_index.ensure_schema("model", 8)
    write(edge_index, "a", 600)
    document = document_id(b"a")
    points.discard([SeenPoint(point_id(document, n), 5 if n != 7 else 4) for n in range(600)])
    assert {point.id for point in edge_index.scan()} == {point_id(document, 7), record_id(document)}


@pytest.mark.parametrize("path", ["/v1/points", "/v1/discard"])
@pytest.mark.parametrize("given", [None, "wrong"])
def test_points_are_for_those_who_hold_the_token(points: RemotePoints, url: str, path: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": f"Bearer {given}"}
    answer = httpx.post(f"{url}{path}", json={"points": []}, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert "needs the token" in answer.json()["error"]["message"]


def test_an_index_that_is_not_open_yet_is_the_same_error_there_as_here(points: RemotePoints) -> None:
    with pytest.raises(IndexUnavailable):
        points.page()


def test_what_cannot_be_understood_is_refused_in_one_sentence(edge_index: EdgeIndex, points: RemotePoints) -> None:
    edge_index.ensure_schema("model", 8)
    with pytest.raises(QueryError):
        points.page("no offset")


def test_an_answer_does_not_wait_for_an_acknowledgement(edge_index: EdgeIndex, points: RemotePoints) -> None:
    """A delayed acknowledgement of TCP is 40 ms; the best of several answers takes a fraction of that."""
    edge_index.ensure_schema("model", 8)
    points.page()
    took = []
    for _ in range(10):
        started = time.monotonic()
        points.page()
        took.append(time.monotonic() - started)
    assert min(took) < 0.03, took
