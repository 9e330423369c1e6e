"""Drops a collection on all shards."""

from __future__ import annotations

import asyncio

from vitrine.collections.everywhere import TIMEOUT, ask, ask_every, together
from vitrine.errors import NotFoundError, PreconditionError, VitrineError
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2


async def find_to_drop(shards: ShardSet, collection: str) -> dict[int, indexer_pb2.CollectionInfo]:
    """Returns what would be dropped, by shard index; shards that do not have the collection are left out.

    Raises:
        NotFoundError: No shard has it.
        PreconditionError: An alias points at it, or the name is an alias.
        VitrineError: A shard did not answer.
    """
    request = indexer_pb2.ListCollectionsRequest()
    answers = await ask_every(shards, lambda stub: stub.ListCollections(request, timeout=TIMEOUT))
    found: dict[int, indexer_pb2.CollectionInfo] = {}
    for index, answer in enumerate(answers):
        for info in answer.collections:
            if collection in info.aliases:
                raise PreconditionError(
                    f"{collection!r} is an alias, of {info.spec.name!r}: only a collection's own name is dropped"
                )
            if info.spec.name == collection:
                found[index] = info
    if not found:
        raise NotFoundError(f"no collection {collection!r}", field="collection")
    aliases = sorted({alias for info in found.values() for alias in info.aliases})
    if aliases:
        raise PreconditionError(
            f"collection {collection!r} is in use by the alias {', '.join(aliases)}: move or remove the alias first"
        )
    return found


async def drop(shards: ShardSet, collection: str) -> dict[int, indexer_pb2.CollectionInfo]:
    """Drops a collection wherever it is; returns what was dropped, by shard index.

    Raises:
        NotFoundError, PreconditionError: As `find_to_drop`; nothing was dropped.
        VitrineError: Some shards failed; the message names them. On the others it is gone, and calling again goes on.
    """
    found = await find_to_drop(shards, collection)
    request = indexer_pb2.DropCollectionRequest(collection=collection)

    async def one(index: int) -> VitrineError | None:
        try:
            await ask(shards, index, lambda stub: stub.DropCollection(request, timeout=TIMEOUT))
        except NotFoundError:
            return None
        except VitrineError as error:
            return error
        return None

    outcomes = zip(found, await asyncio.gather(*map(one, found)), strict=True)
    failures = {index: error for index, error in outcomes if error is not None}
    if failures:
        raise together(failures)
    return found
