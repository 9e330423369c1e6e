"""The Milvus engine as the runtime sees it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog

from services.indexer import metrics
from services.indexer.milvus.client import Milvus
from services.indexer.milvus.registry import MilvusRegistry
from services.indexer.milvus.service import MilvusServicer
from services.indexer.settings import IndexerSettings
from services.runtime.server import Lifecycle
from vitrine.v1 import indexer_pb2_grpc

log = structlog.get_logger()


class MilvusApplication:
    """Connects to Milvus, claims what is in its database, and serves it."""

    grpc_services = ("vitrine.v1.Indexer",)

    def __init__(self, settings: IndexerSettings) -> None:
        self._settings = settings
        # These threads wait for Milvus.
        threads = settings.search_threads or settings.milvus_calls
        self._threads = ThreadPoolExecutor(threads, "milvus")
        metrics.SEARCH_THREADS.set(threads)
        metrics.QUEUED_POINTS_LIMIT.set(settings.max_queued_points)
        self._milvus: Milvus | None = None
        self._registry: MilvusRegistry | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Opens all collections and registers the servicer.

        Raises:
            StartError: pymilvus is not installed, or Milvus cannot be reached or read.
        """
        self._milvus = await asyncio.to_thread(Milvus, self._settings)
        log.info("connected to Milvus", version=self._milvus.version, database=self._milvus.database)
        self._registry = MilvusRegistry(self._milvus, self._settings)
        await self._registry.open_all()
        indexer_pb2_grpc.add_IndexerServicer_to_server(
            MilvusServicer(self._milvus, self._registry, self._threads, self._settings, lifecycle.draining), server
        )

    async def stop(self) -> None:
        """Commits what is queued and disconnects."""
        if self._registry is not None:
            await self._registry.close()
        self._threads.shutdown()
        if self._milvus is not None:
            self._milvus.close()
