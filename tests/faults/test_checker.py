"""The checker must name each kind of damage, planted into a copy of a right index, or its silence means nothing."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from checker import check, copy_sparsely, read_points
from driver import Headwater
from generator import Generator
from word_embedder import word_environment

#: a state directory's copy and the points of a document with several chunks: [record, chunk 0, chunk 1, ...]
Plant = Callable[[edge.EdgeShard, list[dict[str, Any]]], None]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    """A folder that was edited for a while and indexed to its end."""
    work = tmp_path_factory.mktemp("right")
    (work / "folder").mkdir()
    generator = Generator(work / "folder", 3)
    generator.steps(80)
    generator.long_document()
    made = Headwater(work / "folder", work / "state")
    made.environment = word_environment()
    made.once()
    yield made
    made.kill()


@pytest.fixture
def copy(right: Headwater, tmp_path: Path) -> Path:
    """A copy of its state directory, to be damaged."""
    copy_sparsely(right.state, tmp_path / "state")
    return tmp_path / "state"


def test_a_right_index_is_right(right: Headwater, copy: Path) -> None:
    assert check(right.folder, right.state) == []
    assert check(right.folder, copy) == []


def _point(point: dict[str, Any], identity: str | None = None, **payload: Any) -> edge.Point:
    vector = point["vector"]
    vectors = {"dense": vector["dense"], "sparse": vector["sparse"]} if vector else {}
    return edge.Point(_id(identity or point["id"]), vectors, {**point["payload"], **payload})


def _id(text: str) -> uuid.UUID:
    return uuid.UUID(text)


_OTHER_ID = "11111111-1111-4111-8111-111111111111"


def _upsert(shard: edge.EdgeShard, *points: edge.Point) -> None:
    shard.update(edge.UpdateOperation.upsert_points(list(points)))


def _remove_chunk(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    shard.update(edge.UpdateOperation.delete_points([_id(points[1]["id"])]))


def _remove_record(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    shard.update(edge.UpdateOperation.delete_points([_id(points[0]["id"])]))


def _double(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[1], _OTHER_ID))


def _double_record(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[0], _OTHER_ID))


def _stale_text(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[1], text=points[1]["payload"]["text"] + "\n0123456789ab-v1-L1 stale"))


def _stale_hash(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, *[_point(point, content_hash="0" * 64) for point in points])


def _other_seq(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[1], seq=points[1]["payload"]["seq"] - 1))


def _not_finite(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    dense = [float("nan"), *points[1]["vector"]["dense"][1:]]
    _upsert(shard, _point({**points[1], "vector": {**points[1]["vector"], "dense": dense}}))


def _no_dense(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    vectors = {"sparse": points[1]["vector"]["sparse"]}
    _upsert(shard, edge.Point(_id(points[1]["id"]), vectors, points[1]["payload"]))


def _no_sparse(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    vectors = {"dense": points[1]["vector"]["dense"]}
    _upsert(shard, edge.Point(_id(points[1]["id"]), vectors, points[1]["payload"]))


def _extra_document(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[1], _OTHER_ID, path="gone.md", chunk=0))


def _wrong_count(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[0], chunks=points[0]["payload"]["chunks"] + 1))


def _leftover(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point(points[-1], _OTHER_ID, chunk=len(points) + 3))


def _found_record(shard: edge.EdgeShard, points: list[dict[str, Any]]) -> None:
    _upsert(shard, _point({**points[0], "vector": points[1]["vector"]}))


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (_remove_chunk, {"missing line", "chunk numbers", "wrong count"}),
        (_remove_record, {"records"}),
        (_double, {"chunk numbers", "wrong count"}),
        (_double_record, {"records"}),
        (_stale_text, {"foreign line"}),
        (_stale_hash, {"stale chunk", "stale record"}),
        (_other_seq, {"mixed seqs"}),
        (_not_finite, {"bad vector"}),
        (_no_dense, {"no vector"}),
        (_no_sparse, {"no vector"}),
        (_extra_document, {"extra document"}),
        (_wrong_count, {"wrong count"}),
        (_leftover, {"chunk numbers", "wrong count"}),
        (_found_record, {"record vector"}),
    ],
)
def test_planted_damage_is_named(plant: Plant, kinds: set[str], right: Headwater, copy: Path) -> None:
    # Given a right index with one kind of damage
    points = _some_document(read_points(copy / "index"))
    shard = edge.EdgeShard.load(str(copy / "index"))
    plant(shard, points)
    shard.flush()
    shard.close()
    # When it is checked
    found = check(right.folder, copy)
    # Then exactly this is said
    assert {sentence.partition(":")[0] for sentence in found} == kinds, found


def _some_document(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of a document with at least three chunks: its record, then its chunks in order."""
    record = next(p for p in points if 3 <= p["payload"].get("chunks", 0) < 256)
    of_document = [p for p in points if p["payload"]["path"] == record["payload"]["path"] and p is not record]
    return [record, *sorted(of_document, key=lambda point: point["payload"]["chunk"])]


def test_a_changed_folder_is_noticed(right: Headwater, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(right.folder, folder)
    path = min(folder.rglob("doc*.md"))
    path.write_text("0123456789ab-v1-L1 other")
    kinds = {sentence.partition(":")[0] for sentence in check(folder, right.state)}
    assert {"missing line", "foreign line", "stale chunk", "stale record"} <= kinds
    path.unlink()
    assert {sentence.partition(":")[0] for sentence in check(folder, right.state)} == {"extra document", "ledger"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("wanted_seq = wanted_seq + 1", "in flight"),
        ("state = 'failed'", "not indexed"),
        ("operation = 'delete'", "ledger"),
    ],
)
def test_a_ledger_that_is_not_settled_is_noticed(change: str, kind: str, right: Headwater, copy: Path) -> None:
    db = sqlite3.connect(copy / "ledger.sqlite3")
    db.execute(f"UPDATE documents SET {change} WHERE path = (SELECT min(path) FROM documents WHERE state = 'indexed')")
    db.commit()
    db.close()
    assert {sentence.partition(":")[0] for sentence in check(right.folder, copy)} == {kind}


def test_a_shard_that_cannot_be_loaded_is_one_sentence(right: Headwater, copy: Path) -> None:
    (copy / "index" / "edge_config.json").write_bytes(b"\xff")
    [sentence] = check(right.folder, copy)
    assert sentence.startswith("unreadable: ")


def test_the_checker_knows_nothing_of_the_pipeline() -> None:
    names = (Path(__file__).with_name("checker.py")).read_text().splitlines()
    imports = [line for line in names if line.lstrip().startswith(("import ", "from "))]
    roots = {line.split()[1].split(".")[0] for line in imports}
    assert roots <= {*sys.stdlib_module_names, "qdrant_edge"}
