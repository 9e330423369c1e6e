"""One collection as all its shards describe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrine.collections.everywhere import TIMEOUT, ask_every, together, try_every
from vitrine.errors import NotFoundError, PreconditionError, VitrineError
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2


@dataclass(frozen=True, slots=True)
class Described:
    """A collection that is the same on every shard; `infos` are in shard order."""

    infos: Sequence[indexer_pb2.CollectionInfo]

    @property
    def spec(self) -> indexer_pb2.CollectionSpec:
        """Its spec, as shard 0 has it."""
        return self.infos[0].spec

    @property
    def name(self) -> str:
        """Its own name, also where it was asked for by an alias."""
        return self.spec.name

    @property
    def points(self) -> int:
        """Live points on all shards."""
        return sum(each.points for each in self.infos)

    @property
    def products(self) -> int:
        """Live products on all shards."""
        return sum(each.products for each in self.infos)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a collection holds; `generations` are in shard order."""

    points: int
    products: int
    generations: tuple[int, ...]


async def describe(shards: ShardSet, collection: str) -> Described:
    """Asks every shard for a collection, by its name or an alias.

    Raises:
        NotFoundError: It is on no shard, or not on all of them; names those that lack it.
        PreconditionError: The shards do not agree on what it is, or are not all of its shards in their order.
        UnavailableError, DeadlineError: A shard did not answer.
    """
    request = indexer_pb2.DescribeCollectionRequest(collection=collection)
    answers = await try_every(shards, lambda stub: stub.DescribeCollection(request, timeout=TIMEOUT))
    failures = {index: each for index, each in enumerate(answers) if isinstance(each, VitrineError)}
    if len(failures) == len(shards) and all(isinstance(each, NotFoundError) for each in failures.values()):
        raise NotFoundError(f"no collection {collection!r}", field="collection")
    if failures:
        raise together(failures)
    found = Described([each.collection for each in answers if not isinstance(each, VitrineError)])
    for index, address in enumerate(shards.addresses):
        _check(found, index, address, len(shards))
    return found


async def count(shards: ShardSet, collection: str) -> Counted:
    """Asks every shard what a collection holds, and its generation.

    Raises:
        VitrineError: A shard did not answer.
    """
    request = indexer_pb2.CountRequest(collection=collection)
    answers = await ask_every(shards, lambda stub: stub.Count(request, timeout=TIMEOUT))
    return Counted(
        sum(each.points for each in answers),
        sum(each.products for each in answers),
        tuple(each.generation for each in answers),
    )


def _check(found: Described, index: int, address: str, shard_count: int) -> None:
    spec = found.infos[index].spec
    if (spec.shard_index, spec.shard_count) != (index, shard_count):
        raise PreconditionError(
            f"{address} is shard {spec.shard_index} of {spec.shard_count} of collection {spec.name!r}, but is number "
            f"{index} of {shard_count} in the list: name all shards, in shard order"
        )
    expected = indexer_pb2.CollectionSpec()
    expected.CopyFrom(found.spec)
    expected.shard_index = index
    if spec == expected:
        return
    if spec.name != found.name:
        raise PreconditionError(
            f"the alias stands for {found.name!r} on shard 0, but for {spec.name!r} on shard {index} at {address}"
        )
    raise PreconditionError(
        f"collection {spec.name!r} is not the same on all shards: fingerprint {_space(found.spec)} on shard 0, "
        f"{_space(spec)} on shard {index} at {address}"
    )


def _space(spec: indexer_pb2.CollectionSpec) -> str:
    metric = indexer_pb2.Metric.Name(spec.vector.metric)
    return (
        f"{spec.vector.fingerprint[:12]}… ({spec.vector.dim} elements, {metric}, m {spec.hnsw.m}, "
        f"ef_construction {spec.hnsw.ef_construction})"
    )
