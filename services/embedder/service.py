"""`vitrine.v1.Embedder` over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable

from services.embedder.describe import describe
from services.embedder.ingest import Ingestion
from services.embedder.model import EmbeddingModel
from services.embedder.pipeline import Caller, Embedded, ImageFile
from services.embedder.priority import Priority
from services.embedder.pump import first, pump
from services.embedder.registry import ModelRegistry
from services.embedder.settings import EmbedderSettings
from services.embedder.tags import top_tags
from services.embedder.timings import stage_timings
from services.runtime.gate import Gate
from services.runtime.interceptor import Context
from vitrine.callers import current_caller
from vitrine.errors import InvalidArgumentError, OverloadedError, PreconditionError, VitrineError, to_status
from vitrine.limits import MAX_TAGS
from vitrine.shards import ShardSet
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc
from vitrine.vectors import to_proto


class EmbedderServicer(embedder_pb2_grpc.EmbedderServicer):
    """Answers what `embedder.proto` promises."""

    def __init__(self, models: ModelRegistry, settings: EmbedderSettings, shards: ShardSet | None) -> None:
        self._models = models
        self._settings = settings
        self._shards = shards

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Context) -> embedder_pb2.EmbedResponse:
        """Embeds the images of one request side by side."""
        images = request.images
        most = self._settings.max_images_per_request
        if not 1 <= len(images) <= most:
            raise InvalidArgumentError(
                f"images has {len(images)} entries, must have 1 to max_images_per_request = {most}", field="images"
            )
        _check_top_tags(request.top_tags)
        priority = Priority.from_proto(request.priority, Priority.INTERACTIVE)
        caller = Caller.with_time_left(priority, current_caller(), context.time_remaining(), images=len(images))
        with_classes = request.top_tags > 0
        with self._models.find(request.model) as served:
            pipeline, model = served.pipeline, served.model
            with await pipeline.admit(images, caller):
                files = [ImageFile.of(image) for image in images]
                if len(files) == 1:
                    answers = [await pipeline.embed(files[0], caller, with_classes=with_classes)]
                else:
                    answers = await _side_by_side(
                        pipeline.embed(file, caller, with_classes=with_classes) for file in files
                    )
        refusals = [answer.error for answer in answers if isinstance(answer.error, OverloadedError)]
        if len(refusals) == len(answers):
            raise refusals[-1]  # nothing came of the call, so it says so itself, with advice where callers look for it
        return embedder_pb2.EmbedResponse(
            results=[_result(answer, model, request.top_tags) for answer in answers],
            model=model.card.name,
            timings=stage_timings([answer.timings for answer in answers]),
        )

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedder_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.EmbedStreamResponse]:
        """Embeds a stream; a bad image, or a full interactive queue, costs that image only."""
        opening = await first(request_iterator, self._models.draining)
        if opening is None:
            return
        priority = Priority.from_proto(opening.priority, Priority.BULK)
        name = current_caller()
        with self._models.find(opening.model) as served:

            async def handle(request: embedder_pb2.EmbedStreamRequest) -> embedder_pb2.EmbedStreamResponse:
                caller = Caller.with_time_left(priority, name, context.time_remaining())
                try:
                    _check_top_tags(request.top_tags)
                    image, pipeline = request.image, served.pipeline
                    with await pipeline.admit([image], caller):
                        file = ImageFile.of(image)
                        answer = await pipeline.embed(file, caller, with_classes=request.top_tags > 0)
                    result = _result(answer, served.model, request.top_tags)
                except VitrineError as error:
                    result = embedder_pb2.EmbedResult(status=to_status(error))
                return embedder_pb2.EmbedStreamResponse(sequence=request.sequence, result=result)

            window = Gate(self._settings.stream_window_items, self._settings.stream_window_bytes)
            async for response in pump(_again(opening, request_iterator), handle, window, served.draining):
                yield response

    async def Ingest(
        self, request_iterator: AsyncIterator[embedder_pb2.IngestRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.IngestResponse]:
        """Embeds product images and writes them to the shards that own them."""
        opening = await first(request_iterator, self._models.draining)
        if opening is None:
            return
        if opening.WhichOneof("payload") != "start":
            raise InvalidArgumentError("start must be set in the first message of an ingestion", field="start")
        start = opening.start
        if self._shards is None:
            raise PreconditionError("this embedder was started without indexers: set VITRINE_EMBEDDER_INDEXERS")
        window = Gate(self._settings.ingest_window_items, self._settings.ingest_window_bytes)
        with self._models.find(start.model) as served:
            async with Ingestion.open(start, served, self._shards, self._settings) as ingestion:
                async for response in pump(_items(request_iterator), ingestion.handle, window, served.draining):
                    yield response

    async def GetModel(self, request: embedder_pb2.GetModelRequest, context: Context) -> embedder_pb2.GetModelResponse:
        """Says what one model is, on what it runs, and within which limits."""
        return describe(self._models.find(request.model).model, self._settings)

    async def ListModels(
        self, request: embedder_pb2.ListModelsRequest, context: Context
    ) -> embedder_pb2.ListModelsResponse:
        """Says the same of every model, the default first."""
        return embedder_pb2.ListModelsResponse(
            models=[describe(served.model, self._settings) for served in self._models.all()]
        )


async def _side_by_side(coroutines: Iterable[Coroutine[None, None, Embedded]]) -> list[Embedded]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
    return [task.result() for task in tasks]


def _check_top_tags(tags: int) -> None:
    if tags > MAX_TAGS:
        raise InvalidArgumentError(f"top_tags is {tags}, must be 0 to {MAX_TAGS}", field="top_tags")


def _result(answer: Embedded, model: EmbeddingModel, tags: int) -> embedder_pb2.EmbedResult:
    result = embedder_pb2.EmbedResult(content_hash=answer.content_hash)
    if answer.error is not None or answer.embedding is None:
        assert answer.error is not None
        result.status.CopyFrom(to_status(answer.error))
        return result
    result.status.SetInParent()
    result.vector.CopyFrom(to_proto(answer.embedding, model.card.fingerprint))
    if answer.subject is not None:
        result.subject.CopyFrom(answer.subject.to_box())
    if tags and answer.classes is not None:
        result.tags.extend(top_tags(answer.classes, model.labels, tags))
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
