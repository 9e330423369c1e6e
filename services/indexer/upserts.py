"""One Upsert stream: points in, acks out in the same order, a bounded number of them between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from services.indexer import metrics
from services.indexer.records import Put, read_point
from services.indexer.writer import GroupCommitWriter, Written
from services.runtime.gate import Gate
from vitrine.errors import InvalidArgumentError, UnavailableError, VitrineError, to_status
from vitrine.v1 import indexer_pb2

# Checking a point holds the event loop for some 40 us, for 100 beside searches; other calls get their turn in between.
_CHECKS_AT_A_TIME = 4


async def _for_one_round(_: float) -> None:
    await asyncio.sleep(0)


class Target(Protocol):
    """What a stream needs of a collection, whatever engine has it."""

    @property
    def spec(self) -> indexer_pb2.CollectionSpec:
        """What the collection is."""

    @property
    def writer(self) -> GroupCommitWriter:
        """Takes its points."""


class Targets(Protocol):
    """Finds collections."""

    def get(self, name: str) -> Target:
        """Returns a collection.

        Raises:
            InvalidArgumentError: There is no name.
            NotFoundError: There is no such collection.
        """


class _Pending:
    """One request on its way: what was refused at once, and what the writer has to say about the rest."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.results = indexer_pb2.UpsertResponse()
        self._accepted: list[indexer_pb2.UpsertResult] = []
        self.puts: list[Put] = []
        self.written: asyncio.Future[Written] | None = None

    def refuse(self, sequence: int, error: VitrineError) -> None:
        metrics.UPSERTS.labels("refused").inc()
        self.results.results.add(sequence=sequence, status=to_status(error))

    def accept(self, sequence: int, put: Put) -> None:
        self._accepted.append(self.results.results.add(sequence=sequence))
        self.puts.append(put)

    async def response(self) -> indexer_pb2.UpsertResponse:
        """Returns the acks once they are true."""
        if self.written is None:
            return self.results
        try:
            written = await self.written
        except VitrineError as error:
            metrics.UPSERTS.labels("failed").inc(len(self._accepted))
            status = to_status(error)
            for result in self._accepted:
                result.status.CopyFrom(status)
            return self.results
        stale = 0
        for result, stored in zip(self._accepted, written.outcomes, strict=True):
            result.status.SetInParent()  # present and OK
            result.stale = not stored
            result.generation = written.generation
            stale += result.stale
        metrics.UPSERTS.labels("stale").inc(stale)
        metrics.UPSERTS.labels("stored").inc(len(self._accepted) - stale)
        return self.results


class UpsertStream:
    """Reads requests, submits their points, and yields their acks."""

    def __init__(
        self,
        registry: Targets,
        max_points: int,
        draining: asyncio.Event,
        read: Callable[[indexer_pb2.Point, indexer_pb2.CollectionSpec], Put] = read_point,
        make_way: Callable[[float], Awaitable[None]] = _for_one_round,
    ) -> None:
        """`read` checks a point; at most `max_points` are unacknowledged.

        `make_way` is awaited when the event loop was held for so many seconds, and lets others have it.
        """
        self._registry = registry
        self._read_point = read
        self._make_way = make_way
        self._budget = Gate(max_points)
        self._draining = draining
        self._collection: str | None = None
        self._pending: asyncio.Queue[_Pending | None] = asyncio.Queue()  # bounded by the budget

    async def run(
        self, requests: AsyncIterator[indexer_pb2.UpsertRequest]
    ) -> AsyncIterator[indexer_pb2.UpsertResponse]:
        """Yields one response for each request, in order.

        When the service drains, everything read so far is still acknowledged.

        Raises:
            InvalidArgumentError: A request names no collection, or another one than the first.
            NotFoundError: There is no such collection.
            UnavailableError: The service is draining; what was not acknowledged must be sent again.
        """
        reader = asyncio.create_task(self._read(requests))
        try:
            while (pending := await self._pending.get()) is not None:
                response = await pending.response()
                # An ack that nobody reads holds the next one back, and with it the budget.
                self._budget.leave(pending.units)
                yield response
            await reader
        finally:
            reader.cancel()
            while not self._pending.empty():
                left = self._pending.get_nowait()
                if left is not None and left.written is not None:
                    left.written.cancel()

    async def _read(self, requests: AsyncIterator[indexer_pb2.UpsertRequest]) -> None:
        drained = asyncio.ensure_future(self._draining.wait())
        following: asyncio.Future[indexer_pb2.UpsertRequest | None] | None = None
        iterator = aiter(requests)
        try:
            while True:
                following = asyncio.ensure_future(_next(iterator))
                await asyncio.wait((following, drained), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    raise UnavailableError("the shard is draining: send again what was not acknowledged")
                request = following.result()
                if request is None:
                    return
                await self._submit(request)
        finally:
            drained.cancel()
            if following is not None:
                following.cancel()
            self._pending.put_nowait(None)

    async def _submit(self, request: indexer_pb2.UpsertRequest) -> None:
        if self._collection is None:
            self._collection = request.collection
        elif request.collection != self._collection:
            raise InvalidArgumentError(
                f"collection is {request.collection[:80]!r}, this stream writes to {self._collection!r}",
                field="collection",
            )
        collection = self._registry.get(request.collection)
        pending = _Pending(max(1, len(request.items)))
        await self._budget.enter(pending.units)
        began = time.perf_counter()
        for index, item in enumerate(request.items):
            if index % _CHECKS_AT_A_TIME == _CHECKS_AT_A_TIME - 1:
                await self._make_way(time.perf_counter() - began)
                began = time.perf_counter()
            try:
                pending.accept(item.sequence, self._read_point(item.point, collection.spec))
            except VitrineError as error:
                pending.refuse(item.sequence, error)
        if pending.puts:
            pending.written = await collection.writer.submit(pending.puts)
        self._pending.put_nowait(pending)


async def _next(requests: AsyncIterator[indexer_pb2.UpsertRequest]) -> indexer_pb2.UpsertRequest | None:
    return await anext(requests, None)
