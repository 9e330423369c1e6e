"""Writes, as jobs of the load generator: streams of points, and single ones that are looked for at once.

A job names the file of `rows` ([n, dim]) and of their `attributes` ([n, 2]: bucket and region). A point's key is its
row number, but where `overwrite_below` is set, every second point replaces the one of some row below that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.index.wire import COLLECTION, SEARCH, point, search_requests
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

_PRIME = 7_919
_PATIENCE_SECONDS = 10.0

Result = dict[str, Any]
Call = Callable[..., Awaitable[bytes]]
"""A method that takes and returns bytes."""


async def upsert(
    channel: grpc.aio.Channel,
    *,
    rows: str,
    attributes: str,
    first: int,
    count: int,
    per_request: int,
    per_s: float | None = None,
    overwrite_below: int = 0,
    until: str = "",
) -> Result:
    """Streams `count` points from row `first` on, in requests of `per_request`.

    Args:
        channel: To the server.
        rows, attributes, first, count, per_request, overwrite_below: What to write.
        per_s: Points a second, in even steps; None: as fast as the server takes them.
        until: A file; when it appears, no more is sent.

    Returns:
        `points` that were acknowledged, `seconds` from the first request to the last ack, and `ack_seconds`: of every
        request's first point, from the planned time of its sending to its ack.

    Raises:
        RuntimeError: A point was not stored.
        ValueError: There are not so many rows.
    """
    # Checked beforehand: an error within a request iterator only cancels the call, and says nothing.
    if first + count > len(np.load(attributes, mmap_mode="r")):
        raise ValueError(f"{attributes} ends before row {first + count}")
    made = _points(rows, attributes, first, count, overwrite_below)
    stub: indexer_pb2_grpc.IndexerAsyncStub = indexer_pb2_grpc.IndexerStub(channel)
    sent_at: dict[int, float] = {}
    began = time.monotonic()

    async def requests() -> AsyncIterator[indexer_pb2.UpsertRequest]:
        for start in range(0, count, per_request):
            items = [
                indexer_pb2.UpsertItem(sequence=start + index, point=each)
                for index, each in zip(range(min(per_request, count - start)), made, strict=False)
            ]
            planned = began + start / per_s if per_s else time.monotonic()
            if (wait := planned - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if until and Path(until).exists():  # noqa: ASYNC240 - a look at a local folder
                return
            sent_at[start] = planned
            yield indexer_pb2.UpsertRequest(collection=COLLECTION, items=items)

    acknowledged, waits = 0, []
    async for response in stub.Upsert(requests()):
        now = time.monotonic()
        for result in response.results:
            if result.status.code or result.stale:
                raise RuntimeError(f"point {result.sequence} was not stored: {result}")
            if (sent := sent_at.pop(result.sequence, None)) is not None:
                waits.append(now - sent)
            acknowledged += 1
    return {"points": acknowledged, "seconds": time.monotonic() - began, "ack_seconds": waits}


async def fresh(
    channel: grpc.aio.Channel, *, rows: str, attributes: str, first: int, count: int, gap_seconds: float
) -> Result:
    """Writes one point after the other and looks for each until it is found.

    Returns:
        `ack_seconds` and `found_seconds` of each, both from the sending of the point; and `acked_to_found_seconds`.

    Raises:
        RuntimeError: A point is not found within ten seconds.
    """
    stub: indexer_pb2_grpc.IndexerAsyncStub = indexer_pb2_grpc.IndexerStub(channel)
    call: Call = channel.unary_unary(SEARCH)
    acked: list[float] = []
    found: list[float] = []
    stream: Any = stub.Upsert()
    for sequence, each in enumerate(_points(rows, attributes, first, count)):
        # The query is the point itself: it is its own nearest neighbour.
        query = np.frombuffer(each.vector.data, np.float32)[np.newaxis]
        (search,) = search_requests(query, ef=0, k=1)
        item = indexer_pb2.UpsertItem(sequence=sequence, point=each)
        started = time.monotonic()
        await stream.write(indexer_pb2.UpsertRequest(collection=COLLECTION, items=[item]))
        response = await stream.read()
        (result,) = response.results
        if result.status.code:
            raise RuntimeError(f"point {sequence} was not stored: {result}")
        acked.append(time.monotonic() - started)
        while True:
            answer = indexer_pb2.IndexerSearchResponse.FromString(await call(search))
            if any(hit.key == each.key for hit in answer.results[0].hits):
                break
            if time.monotonic() - started > _PATIENCE_SECONDS:
                raise RuntimeError(f"point {sequence} was acknowledged and is not found: {answer.results[0]}")
        found.append(time.monotonic() - started)
        await asyncio.sleep(gap_seconds)
    await stream.done_writing()
    return {
        "ack_seconds": acked,
        "found_seconds": found,
        "acked_to_found_seconds": [late - early for late, early in zip(found, acked, strict=True)],
    }


def _points(
    rows: str, attributes: str, first: int, count: int, overwrite_below: int = 0
) -> Iterator[indexer_pb2.Point]:
    """Yields points of rows `first`, `first + 1`, ..."""
    vectors, values = np.load(rows, mmap_mode="r"), np.load(attributes)
    for row in range(first, first + count):
        bucket, region = values[row].tolist()
        # A prime step visits every row below before it comes to one again.
        name = row * _PRIME % overwrite_below if overwrite_below and row % 2 else row
        yield point(name, vectors[row], {"bucket": bucket, "region": region})
