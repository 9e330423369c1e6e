"""Snapshots of a collection on all its shards."""

from __future__ import annotations

from vitrine.collections.described import describe
from vitrine.collections.everywhere import together, try_every
from vitrine.errors import VitrineError
from vitrine.keys import check_collection_name
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2


async def snapshot(shards: ShardSet, collection: str, name: str, timeout: float) -> list[indexer_pb2.SnapshotResponse]:
    """Copies a collection on every shard, each on its own disk; returns what each made, in shard order.

    Each copy is consistent in itself; the shards make theirs at the same time, not at one instant.

    Args:
        shards: All shards of the index.
        collection: What to copy.
        name: Of the snapshot, the same on every shard.
        timeout: Seconds each shard may take.

    Raises:
        InvalidArgumentError: The name is none.
        NotFoundError, PreconditionError: As `describe`; nothing was copied.
        VitrineError: Some shards failed; the message names them, and where the others have left their copy.
    """
    check_collection_name(name, "name")
    await describe(shards, collection)
    request = indexer_pb2.SnapshotRequest(collection=collection, name=name)
    answers = await try_every(shards, lambda stub: stub.Snapshot(request, timeout=timeout), timeout)
    failures = {index: each for index, each in enumerate(answers) if isinstance(each, VitrineError)}
    made = {index: each for index, each in enumerate(answers) if not isinstance(each, VitrineError)}
    if not failures:
        return list(made.values())
    error = together(failures)
    left = "; ".join(f"shard {index}: {each.path}" for index, each in made.items())
    raise type(error)(f"the snapshot is not complete: {error.message}" + (f". Made and kept: {left}" if left else ""))
