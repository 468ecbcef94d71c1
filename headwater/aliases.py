"""The generations of an index on a server: collections ``NAME.gN``, of which the alias ``NAME`` names the current one.

A collection that is itself called ``NAME``, as earlier versions made it, is the first generation as it is; but no alias
can take its place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["Aliases"]

#: before the names of what is noted in a collection's metadata
_NOTED = "headwater_"


class Ask(Protocol):
    """Makes a request of the client. Raises IndexUnavailable."""

    def __call__(self, request: Any, *arguments: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Aliases:
    """Of one collection name. Every method raises IndexUnavailable if the server does not answer. Those that only read
    (``current``, ``collection``, ``noted``) need no more of a client than ``headwater.server_reads`` has."""

    client: QdrantClient
    name: str
    ask: Ask

    def current(self) -> int | None:
        """The generation that is asked by the name; None if there is none."""
        target = self._target()
        if target is not None:
            number = target.removeprefix(f"{self.name}.g")
            return int(number) if number.isdecimal() else 1
        return 1 if self.is_plain() else None

    def is_plain(self) -> bool:
        """Whether the name is that of a collection itself. A server finds a collection by its alias as well, which may
        be made in this moment: so the alias is looked for last."""
        return bool(self.ask(self.client.collection_exists, self.name)) and self._target() is None

    def collection(self, generation: int | None) -> str:
        """The collection of a generation, which need not be there; None: of the current one, else of the first."""
        if generation is None:
            target = self._target()
            return target or (self.name if self.is_plain() else f"{self.name}.g1")
        return self.name if generation == 1 and self.is_plain() else f"{self.name}.g{generation}"

    def is_there(self, generation: int) -> bool:
        """Whether a generation has its collection."""
        return bool(self.ask(self.client.collection_exists, self.collection(generation)))

    def point_to(self, generation: int) -> None:
        """In one step, this generation is asked by the name from now on."""
        from qdrant_client import models as m

        made = m.CreateAlias(collection_name=self.collection(generation), alias_name=self.name)
        actions: list[Any] = [m.CreateAliasOperation(create_alias=made)]
        if self._target() is not None:
            gone = m.DeleteAlias(alias_name=self.name)
            actions.insert(0, m.DeleteAliasOperation(delete_alias=gone))
        self.ask(self.client.update_collection_aliases, change_aliases_operations=actions)

    def move(self, generation: int, left: int) -> None:
        """As ``point_to``, from the generation that is left for it; when that was is kept with its collection."""
        if left != generation:
            self.leave(left)
        self.note(generation, "left", {})
        self.point_to(generation)

    def leave(self, generation: int) -> None:
        """Its time to be kept begins now."""
        self.note(generation, "left", {"at": time.time()})

    def left_at(self, generation: int) -> float | None:
        """When a generation that was the current one was left, in seconds since the epoch."""
        at = self.noted(generation, "left").get("at")
        return at if isinstance(at, int | float) and generation != self.current() else None

    def left(self, generation: int, before: float) -> bool:
        """Whether a generation was left before then, or is not there. One that is being filled, by whichever host, is
        neither."""
        if not self.is_there(generation):
            return True
        at = self.left_at(generation)
        return at is not None and at <= before

    def drop(self, generation: int) -> None:
        """Remove the collection of a generation that is not the current one."""
        if generation != self.current():
            self.ask(self.client.delete_collection, self.collection(generation))

    def note(self, generation: int, what: str, values: Mapping[str, Any]) -> bool:
        """Keep something with the collection. False if there is no such collection yet."""
        if not self.is_there(generation):
            return False
        name = self.collection(generation)
        self.ask(self.client.update_collection, name, metadata={f"{_NOTED}{what}": json.dumps(dict(values))})
        return True

    def noted(self, generation: int, what: str) -> dict[str, Any]:
        """What was kept; empty if nothing was."""
        name = self.collection(generation)
        if not self.ask(self.client.collection_exists, name):
            return {}
        found = self.ask(self.client.get_collection, name).config.metadata or {}
        kept: dict[str, Any] = json.loads(found.get(f"{_NOTED}{what}", "{}"))
        return kept

    def _target(self) -> str | None:
        aliases = self.ask(self.client.get_aliases).aliases
        return next((one.collection_name for one in aliases if one.alias_name == self.name), None)
