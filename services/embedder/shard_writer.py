"""One shard's end of an ingestion: a long-lived Upsert stream that outlives the shard's restarts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import structlog

from services.embedder import metrics
from vitrine.errors import (
    DataLossError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    UnimplementedError,
    VitrineError,
    from_rpc_error,
)
from vitrine.shards import Stub
from vitrine.v1 import indexer_pb2

log = structlog.get_logger()

_Call: TypeAlias = "grpc.aio.StreamStreamCall[indexer_pb2.UpsertRequest, indexer_pb2.UpsertResponse]"

# A message carries what is waiting, up to this: the shard commits it as one group.
_MAX_MESSAGE_ITEMS = 128
_MAX_MESSAGE_BYTES = 2**20
_BACKOFF_SECONDS = (0.05, 1.0)

# Trying again gives the same answer.
_FINAL = (
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnimplementedError,
)


@dataclass(eq=False)
class _Pending:
    item: indexer_pb2.UpsertItem
    acked: asyncio.Future[indexer_pb2.UpsertResult]


class ShardWriter:
    """Writes points of one collection to one shard, in the order in which they were sent.

    When the stream breaks, what was not acked is sent again over a new one: upserts of the same version are
    idempotent. How much is pending is bounded by whoever sends.
    """

    def __init__(
        self,
        stub: Stub,
        collection: str,
        name: str,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` says which shard this is in errors; `retry_seconds` bounds the time without any ack."""
        self._stub = stub
        self._collection = collection
        self._name = name
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._sequences = itertools.count()
        self._pending: dict[int, _Pending] = {}
        self._unsent: dict[int, _Pending] = {}
        self._changed = asyncio.Event()
        self._failing_since: float | None = None
        self._backoff = _BACKOFF_SECONDS[0]
        self._finishing = False

    def send(self, point: indexer_pb2.Point) -> asyncio.Future[indexer_pb2.UpsertResult]:
        """Sends a point; the future answers with the shard's result for it.

        The future raises UnavailableError where the shard could not be reached for `retry_seconds`, and what the
        shard said where it refused the whole stream.
        """
        sequence = next(self._sequences)
        pending = _Pending(
            indexer_pb2.UpsertItem(sequence=sequence, point=point), asyncio.get_running_loop().create_future()
        )
        self._pending[sequence] = self._unsent[sequence] = pending
        self._changed.set()
        return pending.acked

    async def run(self) -> None:
        """Keeps a stream open while there is work; returns after `finish`."""
        while True:
            while not self._pending:
                if self._finishing:
                    return
                self._changed.clear()
                await self._changed.wait()
            await self._after_break(await self._stream())

    def finish(self) -> None:
        """Ends the stream, and `run`, once nothing is pending."""
        self._finishing = True
        self._changed.set()

    async def _stream(self) -> VitrineError:
        """Runs one stream; returns why it ended."""
        self._unsent = dict(self._pending)
        call = self._stub.Upsert()
        sender = asyncio.create_task(self._send_all(call))
        try:
            async for response in call:
                for result in response.results:
                    self._acked(result)
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except Exception:  # a defect must not leave its items waiting for ever
            log.exception("shard stream failed", shard=self._name)
            return InternalError("the stream failed")
        else:
            return UnavailableError("it ended the stream")
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)  # what breaks a write ends the reading too
            call.cancel()

    async def _send_all(self, call: _Call) -> None:
        while not self._finishing or self._unsent:
            self._changed.clear()
            while self._unsent:
                await call.write(self._next_message())
            if not self._finishing:
                await self._changed.wait()
        await call.done_writing()

    def _next_message(self) -> indexer_pb2.UpsertRequest:
        message = indexer_pb2.UpsertRequest(collection=self._collection)
        size = 0
        for sequence, pending in list(itertools.islice(self._unsent.items(), _MAX_MESSAGE_ITEMS)):
            size += pending.item.ByteSize()
            if message.items and size > _MAX_MESSAGE_BYTES:
                break
            message.items.append(pending.item)
            del self._unsent[sequence]
        return message

    def _acked(self, result: indexer_pb2.UpsertResult) -> None:
        self._failing_since = None
        self._backoff = _BACKOFF_SECONDS[0]
        pending = self._pending.pop(result.sequence, None)
        self._unsent.pop(result.sequence, None)
        if pending is not None and not pending.acked.done():
            pending.acked.set_result(result)

    async def _after_break(self, error: VitrineError) -> None:
        """Gives up on what is pending, or waits a little before the next attempt.

        After giving up, one failed attempt decides, until the shard acks something again.
        """
        if not self._pending:
            return
        metrics.SHARD_BREAKS.inc()
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("shard stream broke", shard=self._name, error=error.message, pending=len(self._pending))
        if isinstance(error, _FINAL):
            self._fail_pending(error)
        elif now - self._failing_since >= self._retry_seconds:
            self._fail_pending(
                UnavailableError(f"{self._name} cannot be reached ({error.message}); nothing was acked, send it again")
            )
        await asyncio.sleep(self._backoff)
        self._backoff = min(2 * self._backoff, _BACKOFF_SECONDS[1])

    def _fail_pending(self, error: VitrineError) -> None:
        for pending in self._pending.values():
            if not pending.acked.done():
                pending.acked.set_exception(error)
        self._pending.clear()
        self._unsent.clear()
