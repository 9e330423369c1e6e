"""Before an ingestion: the collection is on every shard, and it holds this model's vectors."""

from __future__ import annotations

import asyncio

from models.card import ModelCard
from vitrine.errors import AlreadyExistsError, NotFoundError, PreconditionError, UnavailableError, VitrineError
from vitrine.shards import ShardSet, Stub, call_within
from vitrine.v1 import indexer_pb2


async def prepare_collection(
    shards: ShardSet, name: str, card: ModelCard, *, create_if_missing: bool, timeout: float
) -> None:
    """Makes sure that every shard can take this model's vectors.

    Args:
        shards: All shards, in shard order.
        name: A valid collection name.
        card: The model whose vectors are coming.
        create_if_missing: Create the collection where a shard does not have it.
        timeout: Seconds for each call.

    Raises:
        NotFoundError: A shard does not have it, and it was not to be created.
        PreconditionError: It holds another model's vectors, or is cut into other shards.
        UnavailableError: A shard cannot be reached.
    """

    async def prepare(index: int, stub: Stub) -> None:
        wanted = _spec(name, card, len(shards), index)
        try:
            found = await _ensure(stub, wanted, create_if_missing, timeout)
        except (NotFoundError, PreconditionError):
            raise
        except VitrineError as error:
            raise UnavailableError(f"shard {index} ({shards.addresses[index]}): {error.message}") from error
        _check(found, wanted)

    results = await asyncio.gather(
        *(prepare(index, stub) for index, stub in enumerate(shards.stubs)), return_exceptions=True
    )
    for result in results:
        if result is not None:
            raise result


async def _ensure(
    stub: Stub, wanted: indexer_pb2.CollectionSpec, create_if_missing: bool, timeout: float
) -> indexer_pb2.CollectionSpec:
    """Returns the collection's spec on one shard, having created it where asked to."""
    try:
        return await _describe(stub, wanted.name, timeout)
    except NotFoundError:
        if not create_if_missing:
            raise
    try:
        await call_within(
            stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=wanted), timeout=timeout), timeout
        )
    except AlreadyExistsError:  # somebody else was faster, and may have wanted something else
        return await _describe(stub, wanted.name, timeout)
    return wanted


async def _describe(stub: Stub, name: str, timeout: float) -> indexer_pb2.CollectionSpec:
    request = indexer_pb2.DescribeCollectionRequest(collection=name)
    response = await call_within(stub.DescribeCollection(request, timeout=timeout), timeout)
    return response.collection.spec


def _spec(name: str, card: ModelCard, shard_count: int, shard_index: int) -> indexer_pb2.CollectionSpec:
    return indexer_pb2.CollectionSpec(
        name=name,
        vector=indexer_pb2.VectorSpec(
            dim=card.outputs.embedding.dim,
            metric=indexer_pb2.METRIC_COSINE,
            fingerprint=card.fingerprint,
        ),
        shard_count=shard_count,
        shard_index=shard_index,
    )


def _check(found: indexer_pb2.CollectionSpec, wanted: indexer_pb2.CollectionSpec) -> None:
    """Raises PreconditionError unless the vectors and the routing of this embedder fit the collection."""
    for what, has, needs in (
        ("vectors of the model with fingerprint", found.vector.fingerprint, wanted.vector.fingerprint),
        ("vectors of dim", found.vector.dim, wanted.vector.dim),
        ("shard_count", found.shard_count, wanted.shard_count),
        ("shard_index", found.shard_index, wanted.shard_index),
    ):
        if has != needs:
            raise PreconditionError(
                f"collection {wanted.name} on shard {wanted.shard_index} has {what} {has}, this embedder's is {needs}: "
                "ingest into a new collection",
                field="start.collection",
            )
