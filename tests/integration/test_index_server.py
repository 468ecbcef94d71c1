"""What the index on a server says of a server that is not as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m
from servers import QdrantServer

from headwater.errors import IndexUnavailable
from headwater.index import Point
from headwater.index_server import ServerIndex, ServerOptions

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")


class LateClient(QdrantClient):
    """Of a server that notes each write and does not come to it."""

    def upsert(self, *arguments: object, **options: object) -> m.UpdateResult:
        return m.UpdateResult(operation_id=1, status=m.UpdateStatus.WAIT_TIMEOUT)

    def delete(self, *arguments: object, **options: object) -> m.UpdateResult:
        return m.UpdateResult(operation_id=1, status=m.UpdateStatus.ACKNOWLEDGED)


def test_a_server_that_would_pass_over_fences_is_refused(tmp_path: Path) -> None:
    old = QdrantServer(tmp_path, version="1.15.5")
    old.start()
    try:
        index = ServerIndex.connect(old.url, ServerOptions(), "library")
        with pytest.raises(IndexUnavailable, match=r"is of version 1\.15\.5, .* came with 1\.17: upgrade it"):
            index.ensure_schema("a model", 2)
        assert _collections(old) == []
        index.close()
    finally:
        old.stop()


def _collections(server: QdrantServer) -> list[str]:
    client = QdrantClient(url=server.url, check_compatibility=False)
    found = [one.name for one in client.get_collections().collections]
    client.close()
    return found


@pytest.mark.parametrize("version", ["1.17.0", "1.20.0-dev", "2.0.0"])
def test_a_server_that_knows_all_that_is_asked_of_it_is_taken(tmp_path: Path, version: str) -> None:
    server = QdrantServer(tmp_path, version=version)
    server.start()
    try:
        index = ServerIndex.connect(server.url, ServerOptions(), "library")
        assert index.ensure_schema("a model", 2).model == "a model"
        index.close()
    finally:
        server.stop()


def test_a_write_that_was_noted_only_is_no_write(qdrant_server: QdrantServer) -> None:
    client = LateClient(url=qdrant_server.url, api_key=qdrant_server.api_key, check_compatibility=False)
    index = ServerIndex(client, "late", qdrant_server.url)
    index.ensure_schema("a model", 2)
    point = Point(
        "6f1f1c0e-0000-4000-8000-000000000001", {"document": "a.txt", "seq": 1}, np.array([1.0, 0.0], np.float32), None
    )
    with pytest.raises(IndexUnavailable, match=r"is late with a write \(wait_timeout\)"):
        index._upsert([point], {"a.txt": 1})
    with pytest.raises(IndexUnavailable, match=r"is late with a write \(acknowledged\)"):
        index._delete([])
    client.delete_collection("late.g1")
    index.close()
