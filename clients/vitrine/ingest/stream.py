"""Sends product images through `Embedder.Ingest` and accounts for each: a bounded window, retries, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc

from vitrine.attributes import map_to_proto
from vitrine.catalogue import Problem, ProductImage
from vitrine.errors import (
    InternalError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    VitrineError,
    from_rpc_error,
    from_status,
)
from vitrine.ingest.retry import Backoff, may_retry
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

_Call: TypeAlias = "grpc.aio.StreamStreamCall[embedder_pb2.IngestRequest, embedder_pb2.IngestResponse]"


class Outcomes(Protocol):
    """Hears what became of each image, once."""

    def stored(self, image: ProductImage, *, stale: bool) -> None:
        """It is durable; `stale`: the index held something newer and kept that."""

    def failed(self, problem: Problem) -> None:
        """It cannot be ingested as it is."""

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """The stream broke and is opened again after so many seconds."""


@dataclass(slots=True)
class _Item:
    sequence: int
    image: ProductImage
    attempts: int = 0


def _broken(error: VitrineError) -> VitrineError:
    """Returns why a stream ended; gRPC reports a connection lost in the middle of a write as INTERNAL."""
    return UnavailableError(f"the stream broke: {error.message}") if isinstance(error, InternalError) else error


class _GaveUpError(Exception):
    """What an item was answered with means that no other will fare better; `reason` is what the caller gets."""

    def __init__(self, reason: VitrineError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class IngestStream:
    """Ingests images into one collection over one stream at a time.

    At most `window` images are between the reading of their row and their outcome, and of those only the one being
    written is in memory. When the stream breaks, what was not acknowledged is sent again over the next one: an
    upsert of the same version changes nothing where the first one had arrived.
    """

    def __init__(
        self,
        stub: embedder_pb2_grpc.EmbedderAsyncStub,
        start: embedder_pb2.IngestStart,
        outcomes: Outcomes,
        *,
        max_image_bytes: int,
        window: int,
        backoff: Backoff,
    ) -> None:
        self._stub = stub
        self._start = start
        self._outcomes = outcomes
        self._max_image_bytes = max_image_bytes
        self._backoff = backoff
        self._slots = asyncio.Semaphore(window)
        # Holds at most `window` items, because each has a slot; None: everything has its outcome.
        self._work: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._sent: dict[int, _Item] = {}
        self._unsettled = 0
        self._settled = 0
        self._fed = False

    async def run(self, images: AsyncIterator[ProductImage]) -> None:
        """Ingests all images; returns once each has its outcome.

        Raises:
            VitrineError: The ingestion as a whole is refused, or the embedder or a shard stayed away too long.
        """
        feeding = asyncio.create_task(self._feed(images))
        sending = asyncio.create_task(self._send_all())
        try:
            await asyncio.wait({feeding, sending}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (feeding, sending):
                if task.done():
                    task.result()
        except _GaveUpError as error:
            raise error.reason from None
        finally:
            feeding.cancel()
            sending.cancel()
            await asyncio.gather(feeding, sending, return_exceptions=True)

    async def _feed(self, images: AsyncIterator[ProductImage]) -> None:
        sequence = 0
        async for image in images:
            await self._slots.acquire()
            self._unsettled += 1
            sequence += 1
            self._work.put_nowait(_Item(sequence, image))
        self._fed = True
        self._finish_if_done()

    async def _send_all(self) -> None:
        failures = 0
        while True:
            settled = self._settled
            try:
                return await self._session()
            except VitrineError as error:
                failures = 1 if self._settled > settled else failures + 1
                delay = self._backoff.delay(failures, error)
                if delay is None:
                    raise
                self._outcomes.waiting(error, delay)
                await asyncio.sleep(delay)

    async def _session(self) -> None:
        """Runs one stream to its end; what it leaves unacknowledged stays in `_sent`, for the next one."""
        again, self._sent = self._sent, {}
        for item in again.values():
            self._work.put_nowait(item)
        if self._fed and not self._unsettled:  # the last stream broke after its last ack
            self._work.put_nowait(None)
        call = self._stub.Ingest()
        reading = asyncio.create_task(self._read(call))
        writing = asyncio.create_task(self._write(call))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                writing.result()
            await reading
        except grpc.RpcError as error:
            raise _broken(from_rpc_error(error)) from None
        finally:
            reading.cancel()
            writing.cancel()
            call.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        if self._unsettled or not self._fed:
            raise UnavailableError("the embedder ended the stream; it is probably stopping")

    async def _write(self, call: _Call) -> None:
        try:
            await call.write(embedder_pb2.IngestRequest(start=self._start))
            while (item := await self._work.get()) is not None:
                self._sent[item.sequence] = item
                request = await asyncio.to_thread(self._load, item)
                if isinstance(request, Problem):
                    del self._sent[item.sequence]
                    self._outcomes.failed(request)
                    self._settle()
                else:
                    await call.write(request)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the call has ended; reading says why

    async def _read(self, call: _Call) -> None:
        async for answer in call:
            item = self._sent.pop(answer.sequence, None)
            if item is None:
                raise InternalError(f"the embedder answered for item {answer.sequence}, which was not sent")
            error = from_status(answer.status)
            if error is None:
                self._outcomes.stored(item.image, stale=answer.stale)
                self._settle()
            elif may_retry(error):
                self._send_again(item, error)
            elif isinstance(error, NotFoundError | PreconditionError):
                raise _GaveUpError(error)  # the collection was dropped or replaced: true of every row
            else:
                field = error.violations[0].field if error.violations else "image"
                self._outcomes.failed(item.image.problem(field, error.message))
                self._settle()

    def _send_again(self, item: _Item, error: VitrineError) -> None:
        item.attempts += 1
        delay = self._backoff.delay(item.attempts, error)
        if delay is None:
            # Nothing is wrong with the row: going on would list every row of a dead shard as failed.
            raise _GaveUpError(type(error)(f"row {item.image.row}, tried {item.attempts} times: {error.message}"))
        asyncio.get_running_loop().call_later(delay, self._work.put_nowait, item)

    def _settle(self) -> None:
        self._settled += 1
        self._unsettled -= 1
        self._slots.release()
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._fed and not self._unsettled:
            self._work.put_nowait(None)

    def _load(self, item: _Item) -> embedder_pb2.IngestRequest | Problem:
        image = item.image
        try:
            size = image.path.stat().st_size
            if size > self._max_image_bytes:  # a larger message would end the stream for all
                return image.problem(
                    "image", f"{image.path} has {size} bytes, at most {self._max_image_bytes} (max_image_bytes)"
                )
            data = image.path.read_bytes()
        except OSError as error:
            return image.problem("images", f"{error.strerror or error}: {image.path}")
        return embedder_pb2.IngestRequest(
            item=embedder_pb2.IngestItem(
                sequence=item.sequence,
                key=common_pb2.PointKey(product_id=image.product_id, image_id=image.image_id),
                version=image.version,
                image=embedder_pb2.ImageInput(data=data),
                attributes=map_to_proto(image.attributes),
                image_uri=image.uri,
            )
        )
