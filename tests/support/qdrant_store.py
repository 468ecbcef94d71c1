"""Collections and aliases of the tests' Qdrant server, each collection one shard of the Edge engine, in a directory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import qdrant_edge as edge
import qdrant_wire as w
from qdrant_client.http import models as m
from qdrant_wire import Refusal

__all__ = ["FLUSH_S", "Collection", "Store"]

#: seconds between flushes, as a server's
FLUSH_S = 5.0


class Collection:
    """One shard with its configuration beside it."""

    def __init__(self, directory: Path, config: m.CreateCollection, shard: edge.EdgeShard) -> None:
        self.directory = directory
        self.config = config
        self.shard = shard
        self.writes = 0
        self.dirty = False

    @classmethod
    def create(cls, directory: Path, config: m.CreateCollection) -> Collection:
        (directory / "shard").mkdir(parents=True)
        made = cls(directory, config, edge.EdgeShard.create(str(directory / "shard"), w.config_of(config)))
        made.save()
        return made

    @classmethod
    def load(cls, directory: Path) -> Collection:
        config = m.CreateCollection.model_validate_json((directory / "config.json").read_text("utf-8"))
        return cls(directory, config, edge.EdgeShard.load(str(directory / "shard")))

    def save(self) -> None:
        _write(self.directory / "config.json", self.config.model_dump_json(exclude_none=True))

    def update(self, operation: edge.UpdateOperation) -> m.UpdateResult:
        self.shard.update(operation)
        self.writes += 1
        self.dirty = True
        return m.UpdateResult(operation_id=self.writes, status=m.UpdateStatus.COMPLETED)

    def flush(self) -> None:
        if self.dirty:
            self.dirty = False
            self.shard.flush()

    def drop(self) -> None:
        self.shard.close()
        shutil.rmtree(self.directory)

    def indexes(self) -> dict[str, str]:
        """Each payload index with its kind."""
        names = {kind: name for name, kind in w.FIELD_TYPES.items()}
        return {field: names[info.data_type] for field, info in self.shard.info().payload_schema.items()}

    def info(self) -> m.CollectionInfo:
        engine = self.shard.info()
        config, kinds = self.config, self.indexes()
        params: dict[str, Any] = {"vectors": config.vectors, "sparse_vectors": config.sparse_vectors}
        for name in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"):
            if (value := getattr(config, name)) is not None:
                params[name] = value
        return m.CollectionInfo(
            status=m.CollectionStatus.GREEN,
            optimizer_status=m.OptimizersStatusOneOf.OK,
            points_count=engine.points_count,
            indexed_vectors_count=engine.indexed_vectors_count,
            segments_count=engine.segments_count,
            config=m.CollectionConfig(
                params=m.CollectionParams(**params),
                hnsw_config=m.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10000),
                optimizer_config=m.OptimizersConfig(default_segment_number=1, flush_interval_sec=int(FLUSH_S)),
                quantization_config=config.quantization_config,
                metadata=config.metadata,
            ),
            payload_schema={
                name: m.PayloadIndexInfo(data_type=m.PayloadSchemaType(kinds[name]), points=info.points)
                for name, info in engine.payload_schema.items()
            },
        )


class Store:
    """All collections and aliases, in a directory."""

    def __init__(self, root: Path, *, strict: bool) -> None:
        self._root = root
        self._strict = strict
        root.mkdir(parents=True, exist_ok=True)
        self.collections = {path.parent.name: Collection.load(path.parent) for path in root.glob("*/config.json")}
        aliases = root / "aliases.json"
        self.aliases: dict[str, str] = json.loads(aliases.read_text("utf-8")) if aliases.exists() else {}

    def collection(self, name: str) -> Collection:
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        return found

    def create(self, name: str, config: m.CreateCollection) -> bool:
        if name in self.collections:
            raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self.aliases:
            raise Refusal(409, f"Wrong input: Can't create collection {name}. Alias with the same name already exists")
        directory = self._root / name
        shutil.rmtree(directory, ignore_errors=True)  # what a kill left of one that was never acknowledged
        self.collections[name] = Collection.create(directory, config)
        return True

    def drop(self, name: str) -> bool:
        found = self.collections.pop(name, None)
        if found is None:
            return False
        self._save_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        found.drop()
        return True

    def change_aliases(self, operation: m.ChangeAliasesOperation) -> bool:
        """All of it or nothing."""
        changed = dict(self.aliases)
        for action in operation.actions:
            self._change(changed, action)
        self._save_aliases(changed)
        return True

    def _change(self, changed: dict[str, str], action: Any) -> None:
        match action:
            case m.CreateAliasOperation(create_alias=made):
                if made.collection_name not in self.collections:
                    raise Refusal(404, f"Not found: Collection `{made.collection_name}` doesn't exist!")
                if made.alias_name in self.collections:
                    raise Refusal(409, f"Wrong input: Collection `{made.alias_name}` already exists!")
                changed[made.alias_name] = made.collection_name
            case m.DeleteAliasOperation(delete_alias=gone):
                changed.pop(gone.alias_name, None)
            case m.RenameAliasOperation(rename_alias=renamed):
                if renamed.old_alias_name not in changed:
                    raise Refusal(404, f"Not found: Alias {renamed.old_alias_name} does not exists!")
                changed[renamed.new_alias_name] = changed.pop(renamed.old_alias_name)

    def _save_aliases(self, changed: dict[str, str]) -> None:
        _write(self._root / "aliases.json", json.dumps(changed))
        self.aliases = changed

    def close(self) -> None:
        for collection in self.collections.values():
            collection.shard.flush()
            collection.shard.close()

    def check(self, collection: Collection, filters: Iterable[m.Filter | None], *, update: bool = False) -> None:
        """Strict mode: every field of a filter has an index that can answer."""
        own = collection.config.strict_mode_config
        allowed = not self._strict
        if own is not None and own.enabled:
            asked = own.unindexed_filtering_update if update else own.unindexed_filtering_retrieve
            allowed = allowed if asked is None else asked
        indexes = {} if allowed else collection.indexes()
        for given in filters:
            for field, kinds in () if allowed else w.fields_of(given):
                if indexes.get(field) not in kinds:
                    raise Refusal(
                        400,
                        f'Bad request: Index required but not found for "{field}" of one of the following types: '
                        f"[{', '.join(sorted(kinds))}]. Help: Create an index for this key or use a different filter.",
                    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
