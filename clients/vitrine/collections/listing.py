"""All collections of an index, also those that are not on all its shards."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitrine.collections.everywhere import TIMEOUT, ask_every
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2


@dataclass(slots=True)
class Listed:
    """A collection by its name; `infos` by the index of the shards that have it."""

    name: str
    shards: int
    """Shards of the index."""
    infos: dict[int, indexer_pb2.CollectionInfo] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """Live points."""
        return sum(each.points for each in self.infos.values())

    @property
    def products(self) -> int:
        """Live products."""
        return sum(each.products for each in self.infos.values())

    @property
    def disk_bytes(self) -> int:
        """On all shards."""
        return sum(each.disk_bytes for each in self.infos.values())

    @property
    def aliases(self) -> list[str]:
        """Those that any shard has, by name."""
        return sorted({alias for each in self.infos.values() for alias in each.aliases})

    @property
    def fingerprints(self) -> list[str]:
        """One, unless something is wrong."""
        return sorted({each.spec.vector.fingerprint for each in self.infos.values()})

    @property
    def whole(self) -> bool:
        """True where every shard has its part of it, and all agree on the model and the aliases."""
        return (
            all(
                index in self.infos
                and (self.infos[index].spec.shard_index, self.infos[index].spec.shard_count) == (index, self.shards)
                and list(self.infos[index].aliases) == self.aliases
                for index in range(self.shards)
            )
            and len(self.fingerprints) == 1
        )

    def to_json(self) -> dict[str, object]:
        """Returns everything above."""
        return {
            "name": self.name,
            "shards": self.shards,
            "shards_with_it": sorted(self.infos),
            "whole": self.whole,
            "products": self.products,
            "points": self.points,
            "disk_bytes": self.disk_bytes,
            "aliases": self.aliases,
            "fingerprints": self.fingerprints,
        }


async def list_collections(shards: ShardSet) -> list[Listed]:
    """Asks every shard for its collections; returns them by name.

    Raises:
        VitrineError: A shard did not answer.
    """
    request = indexer_pb2.ListCollectionsRequest()
    answers = await ask_every(shards, lambda stub: stub.ListCollections(request, timeout=TIMEOUT))
    found: dict[str, Listed] = {}
    for index, answer in enumerate(answers):
        for info in answer.collections:
            found.setdefault(info.spec.name, Listed(info.spec.name, len(shards))).infos[index] = info
    return [found[name] for name in sorted(found)]
