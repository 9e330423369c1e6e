"""Reads the points of a collection in key order: of a shard, of all side by side, or merged; bounded in memory."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TypeAlias, TypeVar

import grpc

from vitrine.errors import InternalError, UnavailableError, VitrineError, from_rpc_error
from vitrine.ingest.retry import Backoff
from vitrine.naming import named
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, filter_pb2, indexer_pb2

Item = TypeVar("Item")

Key: TypeAlias = tuple[str, str]
"""Product id and image id. Python orders them as the shards do: by code point, which is the order of UTF-8 bytes."""

Page: TypeAlias = Sequence[indexer_pb2.Point]
Waiting: TypeAlias = Callable[[VitrineError, float], None]
"""Hears of an error after which the same is tried again in so many seconds."""


def key_of(point: indexer_pb2.Point) -> Key:
    """Returns the key of a point."""
    return point.key.product_id, point.key.image_id


async def scan(
    shards: ShardSet,
    index: int,
    collection: str,
    *,
    after: Key | None = None,
    condition: filter_pb2.Filter | None = None,
    with_vectors: bool = False,
    backoff: Backoff,
    waiting: Waiting,
) -> AsyncGenerator[Page, None]:
    """Yields the points of one shard in key order, a page of at most some MiB at a time.

    A stream that breaks is opened again after the last key that came.

    Raises:
        VitrineError: The shard refuses, or stayed away too long; names it.
    """
    failures = 0
    while True:
        request = indexer_pb2.ScanRequest(
            collection=collection,
            after=None if after is None else common_pb2.PointKey(product_id=after[0], image_id=after[1]),
            filter=condition,
            with_vectors=with_vectors,
        )
        call = shards.stubs[index].Scan(request)
        try:
            async for answer in call:
                failures = 0
                yield answer.points
                after = key_of(answer.points[-1])
        except grpc.RpcError as problem:
            error = broken(from_rpc_error(problem))
        else:
            return
        finally:
            call.cancel()
        failures += 1
        error = named(error, f"shard {index}", shards.addresses[index])
        delay = backoff.delay(failures, error)
        if delay is None:
            raise error
        waiting(error, delay)
        await asyncio.sleep(delay)


async def scan_all(
    shards: ShardSet,
    collection: str,
    take: Callable[[int, Page], None],
    *,
    backoff: Backoff,
    waiting: Waiting,
    told: Callable[[int], None],
) -> int:
    """Reads the keys and attributes of all points of a collection, all shards side by side.

    Args:
        shards: All shards of the index.
        collection: What to read.
        take: Gets a shard's number and its next page; of each shard in key order.
        backoff: How long to try a shard that is away.
        waiting: Hears where one is.
        told: Hears how many points have been read.

    Returns:
        How many points were read.

    Raises:
        VitrineError: A shard refuses, or stayed away too long; the others are not read on.
    """
    read = 0

    async def one(index: int) -> None:
        nonlocal read
        async with aclosing(scan(shards, index, collection, backoff=backoff, waiting=waiting)) as pages:
            async for page in pages:
                take(index, page)
                read += len(page)
                told(read)

    scans = [asyncio.ensure_future(one(index)) for index in range(len(shards))]
    try:
        await asyncio.gather(*scans)
    finally:
        for each in scans:
            each.cancel()
        await asyncio.gather(*scans, return_exceptions=True)
    return read


def broken(error: VitrineError) -> VitrineError:
    """Returns why a stream ended; gRPC reports a connection lost in its middle as INTERNAL."""
    return UnavailableError(f"the stream broke: {error.message}") if isinstance(error, InternalError) else error


async def ahead(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """Yields the same items, the next one being fetched meanwhile; closes `items` when it is closed."""
    following = asyncio.ensure_future(_next(items))
    try:
        while (item := await following) is not None:
            following = asyncio.ensure_future(_next(items))
            yield item
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await items.aclose()


async def in_key_order(pages: Sequence[AsyncGenerator[Page, None]]) -> AsyncGenerator[indexer_pb2.Point, None]:
    """Merges the pages of several shards into one stream of points in key order; closes them when it is closed.

    Holds two pages of each shard: the one being merged and the one that comes next.
    """
    async with AsyncExitStack() as cleanup:
        streams = [await cleanup.enter_async_context(aclosing(ahead(each))) for each in pages]
        first = await asyncio.gather(*map(_next, streams))
        current = [page or () for page in first]
        # Shard and position break no ties: a key is on one shard only. They only find the point again.
        heads = [(*key_of(page[0]), shard, 0) for shard, page in enumerate(current) if page]
        heapq.heapify(heads)
        while heads:
            _, _, shard, position = heads[0]
            yield current[shard][position]
            position += 1
            if position == len(current[shard]):
                current[shard] = await _next(streams[shard]) or ()
                position = 0
            if current[shard]:
                heapq.heapreplace(heads, (*key_of(current[shard][position]), shard, position))
            else:
                heapq.heappop(heads)


async def _next(items: AsyncGenerator[Item, None]) -> Item | None:
    return await anext(items, None)
