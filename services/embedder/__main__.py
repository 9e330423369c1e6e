"""`python -m services.embedder` runs the embedder."""

from __future__ import annotations

import asyncio

import grpc

from services.embedder.model import EmbeddingModel
from services.embedder.pipeline import Pipeline
from services.embedder.service import EmbedderServicer
from services.embedder.settings import EmbedderSettings
from services.runtime.server import Lifecycle, run
from vitrine.shards import ShardSet
from vitrine.v1 import embedder_pb2_grpc


class Embedder:
    """The embedder, as the runtime sees it."""

    grpc_services = ("vitrine.v1.Embedder",)

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._pipeline: Pipeline | None = None
        self._running: asyncio.Task[None] | None = None
        self._shards: ShardSet | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Loads and warms the model, opens the channels to the shards (they connect when used), and registers."""
        model = await asyncio.to_thread(EmbeddingModel, self._settings)
        await asyncio.to_thread(model.warm_up)
        self._pipeline = Pipeline(model, self._settings)
        self._running = asyncio.create_task(self._pipeline.run())
        if self._settings.indexers:
            self._shards = ShardSet(self._settings.indexers)
        servicer = EmbedderServicer(self._pipeline, model, self._settings, lifecycle, self._shards)
        embedder_pb2_grpc.add_EmbedderServicer_to_server(servicer, server)

    async def stop(self) -> None:
        """Ends the batcher, the threads and the channels."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._pipeline is not None:
            await asyncio.to_thread(self._pipeline.close)
        if self._shards is not None:
            await self._shards.close()


if __name__ == "__main__":
    run(EmbedderSettings, Embedder)
