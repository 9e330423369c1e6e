"""One ingestion: product images embedded in bulk and written to the shards that own their products."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import grpc
import structlog

from services.embedder import metrics
from services.embedder.collection import prepare_collection
from services.embedder.pipeline import Caller, Embedded, ImageFile
from services.embedder.priority import Priority
from services.embedder.registry import Served
from services.embedder.settings import EmbedderSettings
from services.embedder.shard_writer import ShardWriter
from services.embedder.tags import with_tags
from services.embedder.timings import stage_timings
from vitrine.callers import current_caller
from vitrine.errors import InternalError, VitrineError, to_status
from vitrine.keys import check_collection_name, check_key
from vitrine.sharding import shard_of
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, embedder_pb2, indexer_pb2
from vitrine.vectors import to_proto

log = structlog.get_logger()

# All acks are in by then; it only spares the shards the sight of a cancelled call.
_FINISH_SECONDS = 1.0
_CODE_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class Ingestion:
    """Handles the items of one stream; how many at once is up to whoever reads them."""

    def __init__(self, served: Served, settings: EmbedderSettings, writers: list[ShardWriter]) -> None:
        self._pipeline = served.pipeline
        self._fingerprint = served.model.card.fingerprint
        self._labels = served.model.labels
        self._most_tags = settings.ingest_tags if self._labels else 0
        self._tag_floor = settings.ingest_tag_floor
        self._writers = writers
        self._caller = Caller(Priority.BULK, current_caller())
        self._in_order: dict[tuple[str, str], asyncio.Event] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        start: embedder_pb2.IngestStart,
        served: Served,
        shards: ShardSet,
        settings: EmbedderSettings,
    ) -> AsyncIterator[Self]:
        """Prepares the collection and keeps one writer for each shard.

        Raises:
            InvalidArgumentError: The collection's name is not valid.
            NotFoundError, PreconditionError, UnavailableError: As `prepare_collection`.
        """
        check_collection_name(start.collection, "start.collection")
        await prepare_collection(
            shards,
            start.collection,
            served.model.card,
            create_if_missing=start.create_if_missing,
            timeout=settings.shard_timeout_seconds,
        )
        writers = [
            ShardWriter(stub, start.collection, f"shard {index} ({address})", settings.shard_retry_seconds)
            for index, (stub, address) in enumerate(zip(shards.stubs, shards.addresses, strict=True))
        ]
        running = [asyncio.create_task(writer.run()) for writer in writers]
        try:
            yield cls(served, settings, writers)
            for writer in writers:
                writer.finish()
            await asyncio.wait(running, timeout=_FINISH_SECONDS)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def handle(self, item: embedder_pb2.IngestItem) -> embedder_pb2.IngestResponse:
        """Embeds and writes one item; whatever goes wrong is in its ack.

        Items of one key reach the shard in the order in which this was called for them.
        """
        response = embedder_pb2.IngestResponse(sequence=item.sequence)
        try:
            await self._handle(item, response)
        except VitrineError as error:
            response.status.CopyFrom(to_status(error.with_traceback(None)))  # it knows the frame that knows it
        except Exception:  # a defect, yet one item's: the others are answered
            log.exception("item failed")
            response.status.CopyFrom(to_status(InternalError("the item failed")))
        metrics.INGESTED.labels(_CODE_NAMES.get(response.status.code, "UNKNOWN")).inc()
        return response

    async def _handle(self, item: embedder_pb2.IngestItem, response: embedder_pb2.IngestResponse) -> None:
        check_key(item.key)
        # Fixed now, because an item that is sent to a shard twice must be the same write both times.
        version = item.version or time.time_ns() // 1_000_000
        key = (item.key.product_id, item.key.image_id)
        before, sent = self._in_order.get(key), asyncio.Event()
        self._in_order[key] = sent
        try:
            embedded = await self._embed(item.image)
            response.timings.extend(stage_timings([embedded.timings]))
            if before is not None:
                await before.wait()
            if embedded.error is not None:
                raise embedded.error
            began = time.monotonic()
            ack = self._writer(item.key).send(self._point(item, version, embedded))
        finally:
            sent.set()
            if self._in_order.get(key) is sent:
                del self._in_order[key]
        result = await ack
        response.timings.append(common_pb2.StageTiming(stage="index", seconds=time.monotonic() - began))
        response.status.CopyFrom(result.status)
        response.stale = result.stale
        response.generation = result.generation

    async def _embed(self, image: embedder_pb2.ImageInput) -> Embedded:
        with await self._pipeline.admit([image], self._caller):
            return await self._pipeline.embed(ImageFile.of(image), self._caller, with_classes=self._most_tags > 0)

    def _writer(self, key: common_pb2.PointKey) -> ShardWriter:
        return self._writers[shard_of(key.product_id, len(self._writers))]

    def _point(self, item: embedder_pb2.IngestItem, version: int, embedded: Embedded) -> indexer_pb2.Point:
        assert embedded.embedding is not None
        return indexer_pb2.Point(
            key=item.key,
            version=version,
            vector=to_proto(embedded.embedding, self._fingerprint),
            attributes=self._attributes(item, embedded),
            content_hash=embedded.content_hash,
            image_uri=item.image_uri,
        )

    def _attributes(self, item: embedder_pb2.IngestItem, embedded: Embedded) -> Mapping[str, common_pb2.AttributeValue]:
        if not self._most_tags:
            return item.attributes
        return with_tags(item.attributes, embedded.classes, self._labels, most=self._most_tags, floor=self._tag_floor)
