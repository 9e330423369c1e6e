"""A collection that is gone afterwards, whatever happens in between."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitrine.errors import NotFoundError, VitrineError
from vitrine.naming import named
from vitrine.shards import ShardSet, call_within
from vitrine.v1 import indexer_pb2

_TIMEOUT = 10.0
_LOOKS = 5
_LOOK_SECONDS = 0.1


class LeftBehindError(Exception):
    """A throw-away collection may still be there; the message names it and where."""


@asynccontextmanager
async def temporary_collection(shards: ShardSet, *, prefix: str = "evaluate", keep: bool = False) -> AsyncIterator[str]:
    """Yields a collection name that nobody uses, and drops the collection on every shard at the end.

    A cancelled caller (Ctrl-C) waits for the drop.

    Args:
        shards: All shards of the deployment.
        prefix: Beginning of the name.
        keep: Leave the collection in place.

    Raises:
        LeftBehindError: A shard could not be told.
    """
    name = f"{prefix}-{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        if not keep:
            dropping = asyncio.create_task(_drop_everywhere(shards, name))
            try:
                await asyncio.shield(dropping)
            except asyncio.CancelledError:
                await dropping
                raise


async def _drop_everywhere(shards: ShardSet, name: str) -> None:
    failures = await asyncio.gather(*(_drop(shards, index, name) for index in range(len(shards))))
    reasons = [reason for reason in failures if reason]
    if reasons:
        raise LeftBehindError(f"collection {name!r} could not be dropped: {'; '.join(reasons)}")


async def _drop(shards: ShardSet, index: int, name: str) -> str:
    """Returns why the collection may still be on the shard; empty: it is not.

    An ingestion that was just cancelled may be creating the collection at this moment, so its absence has to last.
    """
    stub = shards.stubs[index]
    absent = 0
    for _ in range(_LOOKS):
        try:
            request = indexer_pb2.DropCollectionRequest(collection=name)
            await call_within(stub.DropCollection(request, timeout=_TIMEOUT), _TIMEOUT)
            absent = 0
        except NotFoundError:
            absent += 1
        except VitrineError as error:
            return named(error, f"shard {index}", shards.addresses[index]).message
        if absent == 2:
            return ""
        await asyncio.sleep(_LOOK_SECONDS)
    return f"shard {index} at {shards.addresses[index]}: it keeps coming back"
