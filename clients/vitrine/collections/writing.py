"""Writes points to the shards that own them, and deletes them there: repeated until acknowledged."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence

import grpc

from vitrine.collections.everywhere import ask
from vitrine.collections.scanning import Waiting, broken
from vitrine.errors import UnavailableError, VitrineError, from_rpc_error, from_status
from vitrine.ingest.retry import Backoff, retrying
from vitrine.naming import named
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2

_TIMEOUT = 60.0
_REQUEST_POINTS = 256
_REQUEST_BYTES = 2 * 2**20
_DELETES_AT_A_TIME = 32


class PointWriter:
    """Writes to one collection on all its shards. Every write may be made twice: versions decide, not arrivals."""

    def __init__(self, shards: ShardSet, collection: str, backoff: Backoff, waiting: Waiting) -> None:
        self._shards = shards
        self._collection = collection
        self._backoff = backoff
        self._waiting = waiting

    async def put(self, points: Sequence[indexer_pb2.Point]) -> list[indexer_pb2.Point]:
        """Upserts points as they are, versions included; returns those of which something newer is stored.

        Raises:
            VitrineError: A shard refuses a point, or stayed away too long. What was not acknowledged may be stored.
        """
        by_shard: dict[int, list[indexer_pb2.Point]] = defaultdict(list)
        for point in points:
            by_shard[self._shards.owner(point.key.product_id)[0]].append(point)

        async def one(index: int, batch: Sequence[indexer_pb2.Point]) -> list[indexer_pb2.Point]:
            return await retrying(lambda: self._upsert(index, batch), self._backoff, self._waiting)

        stale = await asyncio.gather(*(one(index, batch) for index, batch in by_shard.items()))
        return [point for each in stale for point in each]

    async def delete(self, points: Sequence[indexer_pb2.Point]) -> None:
        """Deletes points, each with the version it is stored with: what is written later by a newer version stays.

        Raises:
            VitrineError: A shard refuses, or stayed away too long.
        """
        # A request has one version for all its keys.
        requests: dict[tuple[int, int], indexer_pb2.DeleteRequest] = {}
        for point in points:
            where = (self._shards.owner(point.key.product_id)[0], point.version)
            request = requests.setdefault(
                where, indexer_pb2.DeleteRequest(collection=self._collection, version=point.version)
            )
            request.keys.append(point.key)
        slots = asyncio.Semaphore(_DELETES_AT_A_TIME)

        async def one(index: int, request: indexer_pb2.DeleteRequest) -> None:
            async with slots:
                await retrying(
                    lambda: ask(self._shards, index, lambda stub: stub.Delete(request, timeout=_TIMEOUT), _TIMEOUT),
                    self._backoff,
                    self._waiting,
                )

        await asyncio.gather(*(one(index, request) for (index, _), request in requests.items()))

    async def _upsert(self, index: int, points: Sequence[indexer_pb2.Point]) -> list[indexer_pb2.Point]:
        """Sends points over a stream of their own; returns the stale ones."""
        call = self._shards.stubs[index].Upsert(_requests(self._collection, points), timeout=_TIMEOUT)
        stale = []
        acknowledged = 0
        try:
            async for response in call:
                for result in response.results:
                    if (error := from_status(result.status)) is not None:
                        raise _about(error, points[result.sequence])
                    acknowledged += 1
                    if result.stale:
                        stale.append(points[result.sequence])
            if acknowledged < len(points):
                raise UnavailableError("it ended the stream before it had acknowledged everything")
        except grpc.RpcError as problem:
            error = broken(from_rpc_error(problem))
            raise named(error, f"shard {index}", self._shards.addresses[index]) from None
        except VitrineError as error:
            raise named(error, f"shard {index}", self._shards.addresses[index]) from None
        finally:
            call.cancel()
        return stale


def _requests(collection: str, points: Sequence[indexer_pb2.Point]) -> Iterator[indexer_pb2.UpsertRequest]:
    request, size = indexer_pb2.UpsertRequest(collection=collection), 0
    for sequence, point in enumerate(points):
        bytes_more = point.ByteSize()
        if request.items and (len(request.items) == _REQUEST_POINTS or size + bytes_more > _REQUEST_BYTES):
            yield request
            request, size = indexer_pb2.UpsertRequest(collection=collection), 0
        request.items.add(sequence=sequence, point=point)
        size += bytes_more
    if request.items:
        yield request


def _about(error: VitrineError, point: indexer_pb2.Point) -> VitrineError:
    return type(error)(
        f"product {point.key.product_id!r}, image {point.key.image_id!r}: {error.message}",
        retry_after=error.retry_after,
    )
