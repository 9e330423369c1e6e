"""`vitrine.v1.Embedder` over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.embedder.headers import FORMATS
from services.embedder.ingest import Ingestion
from services.embedder.model import EmbeddingModel
from services.embedder.pipeline import Embedded, Pipeline
from services.embedder.priority import Priority
from services.embedder.pump import first, pump
from services.embedder.settings import EmbedderSettings
from services.embedder.tags import top_tags
from services.embedder.timings import stage_timings
from services.runtime.gate import Gate
from services.runtime.interceptor import Context
from services.runtime.server import Lifecycle
from vitrine.errors import InvalidArgumentError, NotFoundError, PreconditionError, VitrineError, to_status
from vitrine.limits import MAX_TAGS
from vitrine.shards import ShardSet
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc
from vitrine.vectors import to_proto


class EmbedderServicer(embedder_pb2_grpc.EmbedderServicer):
    """Answers what `embedder.proto` promises."""

    def __init__(
        self,
        pipeline: Pipeline,
        model: EmbeddingModel,
        settings: EmbedderSettings,
        lifecycle: Lifecycle,
        shards: ShardSet | None,
    ) -> None:
        self._pipeline = pipeline
        self._model = model
        self._settings = settings
        self._draining = lifecycle.draining
        self._shards = shards

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Context) -> embedder_pb2.EmbedResponse:
        """Embeds the images of one request side by side."""
        images = request.images
        most = self._settings.max_images_per_request
        if not 1 <= len(images) <= most:
            raise InvalidArgumentError(
                f"images has {len(images)} entries, must have 1 to max_images_per_request = {most}", field="images"
            )
        self._check(request.model, request.top_tags)
        priority = Priority.from_proto(request.priority, Priority.INTERACTIVE)
        time_left = context.time_remaining()
        async with (
            self._pipeline.admit(len(images), sum(len(image.data) for image in images), priority),
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(self._pipeline.embed(image, priority, time_left)) for image in images]
        answers = [task.result() for task in tasks]
        return embedder_pb2.EmbedResponse(
            results=[self._result(answer, request.top_tags) for answer in answers],
            model=self._model.card.name,
            timings=stage_timings([answer.timings for answer in answers]),
        )

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedder_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.EmbedStreamResponse]:
        """Embeds a stream; a bad image, or a full interactive queue, costs that image only."""
        opening = await first(request_iterator, self._draining)
        if opening is None:
            return
        self._check(opening.model, 0)
        priority = Priority.from_proto(opening.priority, Priority.BULK)

        async def handle(request: embedder_pb2.EmbedStreamRequest) -> embedder_pb2.EmbedStreamResponse:
            try:
                self._check_top_tags(request.top_tags)
                async with self._pipeline.admit(1, len(request.image.data), priority):
                    answer = await self._pipeline.embed(request.image, priority, context.time_remaining())
                result = self._result(answer, request.top_tags)
            except VitrineError as error:
                result = embedder_pb2.EmbedResult(status=to_status(error))
            return embedder_pb2.EmbedStreamResponse(sequence=request.sequence, result=result)

        window = Gate(self._settings.stream_window_items, self._settings.stream_window_bytes)
        async for response in pump(_again(opening, request_iterator), handle, window, self._draining):
            yield response

    async def Ingest(
        self, request_iterator: AsyncIterator[embedder_pb2.IngestRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.IngestResponse]:
        """Embeds product images and writes them to the shards that own them."""
        opening = await first(request_iterator, self._draining)
        if opening is None:
            return
        if opening.WhichOneof("payload") != "start":
            raise InvalidArgumentError("start must be set in the first message of an ingestion", field="start")
        start = opening.start
        self._check(start.model, 0)
        if self._shards is None:
            raise PreconditionError("this embedder was started without indexers: set VITRINE_EMBEDDER_INDEXERS")
        window = Gate(self._settings.ingest_window_items, self._settings.ingest_window_bytes)
        async with Ingestion.open(start, self._pipeline, self._model, self._shards, self._settings) as ingestion:
            async for response in pump(_items(request_iterator), ingestion.handle, window, self._draining):
                yield response

    async def GetModel(self, request: embedder_pb2.GetModelRequest, context: Context) -> embedder_pb2.GetModelResponse:
        """Says what is served, on what, and within which limits."""
        self._check(request.model, 0)
        card, settings = self._model.card, self._settings
        return embedder_pb2.GetModelResponse(
            name=card.name,
            version=card.version,
            licence=card.licence,
            fingerprint=card.fingerprint,
            dim=self._model.dim,
            input_height=card.input.height,
            input_width=card.input.width,
            provider=self._model.provider,
            tag_count=len(self._model.labels),
            limits=embedder_pb2.EmbedderLimits(
                max_images_per_request=settings.max_images_per_request,
                max_image_bytes=settings.max_image_bytes,
                max_image_pixels=settings.max_image_pixels,
                max_image_side=settings.max_image_side,
                formats=FORMATS,
            ),
        )

    def _check(self, model: str, tags: int) -> None:
        if model not in ("", self._model.card.name):
            raise NotFoundError(f"model {model[:80]!r} is not served here, {self._model.card.name} is", field="model")
        self._check_top_tags(tags)

    def _check_top_tags(self, tags: int) -> None:
        if tags > MAX_TAGS:
            raise InvalidArgumentError(f"top_tags is {tags}, must be 0 to {MAX_TAGS}", field="top_tags")

    def _result(self, answer: Embedded, tags: int) -> embedder_pb2.EmbedResult:
        result = embedder_pb2.EmbedResult(content_hash=answer.content_hash)
        if answer.error is not None or answer.embedding is None:
            assert answer.error is not None
            result.status.CopyFrom(to_status(answer.error))
            return result
        result.status.SetInParent()
        result.vector.CopyFrom(to_proto(answer.embedding, self._model.card.fingerprint))
        if tags and answer.logits is not None:
            result.tags.extend(top_tags(answer.logits, self._model.labels, tags))
        return result


async def _again(
    opening: embedder_pb2.EmbedStreamRequest, rest: AsyncIterator[embedder_pb2.EmbedStreamRequest]
) -> AsyncIterator[embedder_pb2.EmbedStreamRequest]:
    yield opening
    async for request in rest:
        yield request


async def _items(
    requests: AsyncIterator[embedder_pb2.IngestRequest],
) -> AsyncIterator[embedder_pb2.IngestItem]:
    async for request in requests:
        if request.WhichOneof("payload") != "item":
            raise InvalidArgumentError(
                "every message after the first must carry an item; start is sent once", field="item"
            )
        yield request.item
