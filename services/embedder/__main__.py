"""`python -m services.embedder` runs the embedder."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from services.embedder.cache.cache import VectorCache
from services.embedder.cores import queue_up
from services.embedder.gpu import GpuMetrics, watch_gpu
from services.embedder.health import HealthMonitor
from services.embedder.memory import keep_freed_memory
from services.embedder.registry import ModelRegistry
from services.embedder.service import EmbedderServicer
from services.embedder.settings import EmbedderSettings
from services.runtime.server import Lifecycle, run
from vitrine.shards import ShardSet
from vitrine.v1 import embedder_pb2_grpc

log = structlog.get_logger()

# What `reload` takes; everything else is read at start only.
_RELOADED = frozenset({"model_dirs"})


class Embedder:
    """The embedder, as the runtime sees it."""

    grpc_services = ("vitrine.v1.Embedder",)

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self.registry: ModelRegistry | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shards: ShardSet | None = None
        self._cache: VectorCache | None = None
        self._gpu: GpuMetrics | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Loads and warms the models, opens the channels to the shards (they connect when used), and registers."""
        keep_freed_memory()
        self._cache = VectorCache.from_settings(self._settings)
        await self._cache.start()
        self.registry = ModelRegistry(self._settings, lifecycle.draining, self._cache)
        await self.registry.load(self._settings.resolved_model_dirs)
        if self._settings.provider != "cpu":
            self._gpu = watch_gpu(self._settings.device_id)
        monitor = HealthMonitor(self.registry, self._settings.canary_seconds, lifecycle.report_health)
        self._watching = asyncio.create_task(monitor.run())
        if self._settings.indexers:
            self._shards = ShardSet(self._settings.indexers, self._settings.peer_credentials())
        servicer = EmbedderServicer(self.registry, self._settings, self._shards)
        embedder_pb2_grpc.add_EmbedderServicer_to_server(servicer, server)

    async def reload(self, settings: EmbedderSettings) -> None:
        """Adds and removes models as `model_dirs` says; what else changed waits for a restart, and is logged."""
        assert self.registry is not None
        changed = {
            name
            for name in EmbedderSettings.model_fields
            if name not in _RELOADED and getattr(settings, name) != getattr(self._settings, name)
        }
        if changed:
            log.warning("needs a restart to take effect", settings=sorted(changed))
        await self.registry.load(settings.resolved_model_dirs)

    async def stop(self) -> None:
        """Ends the models, the threads and the channels."""
        if self._watching is not None:
            self._watching.cancel()
        if self.registry is not None:
            await self.registry.close()
        if self._shards is not None:
            await self._shards.close()
        if self._cache is not None:
            await self._cache.close()
        if self._gpu is not None:
            self._gpu.close()


def build(settings: EmbedderSettings) -> Embedder:
    """Returns the application of a process that is the embedder's own."""
    if settings.provider == "cpu":
        queue_up()  # before gRPC starts its threads
    return Embedder(settings)


if __name__ == "__main__":
    run(EmbedderSettings, build)
