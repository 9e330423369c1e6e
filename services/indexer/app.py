"""The indexer as the runtime sees it."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from services.indexer import metrics
from services.indexer.builds import BuildService
from services.indexer.canary import Canary
from services.indexer.courtesy import Courtesy
from services.indexer.disk import DiskMetrics
from services.indexer.layout import DataDir
from services.indexer.registry import Registry
from services.indexer.service import IndexerServicer
from services.indexer.settings import IndexerSettings
from services.indexer.text.feeding import TextFeeder
from services.runtime.server import Application, Lifecycle
from services.runtime.turns import queue_up, step_back
from vitrine.v1 import indexer_pb2_grpc

# A text index that is as new as its collection at the end need not be compared with it at the next start.
_SETTLE_SECONDS = 2.0
# How long a thread may keep the interpreter from others. Python's 5 ms let a search, which changes threads six times,
# wait for a writer that long each time: p99 beside 1,000 upserts/s was 29 ms, and is 17 to 28 with this.
_SWITCH_SECONDS = 0.0005
# Of threads whose work nobody waits for; the builder, which must keep up, has 10.
_LEISURE_NICENESS = 15
# How long a thread keeps its core from the others (decision 0023).
_TURN_SECONDS = 0.001


class IndexerApplication:
    """The embedded engine: opens the data folder, recovers what is in it, and serves it."""

    grpc_services = ("vitrine.v1.Indexer",)

    def __init__(self, settings: IndexerSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.resolved_search_threads, "search")
        self._courtesy = Courtesy(settings.searches_beside_builder)
        self._builds = BuildService(self._courtesy)
        self._texts = TextFeeder(settings.text_job_seconds) if settings.text_index else None
        # A look at all vectors takes a core for tens of milliseconds: searches and the event loop come first.
        self._leisure = ThreadPoolExecutor(1, "canary", initializer=step_back, initargs=(_LEISURE_NICENESS,))
        self._canary = Canary(self._leisure, settings.canary_seconds, self._courtesy.considerate())
        self._data: DataDir | None = None
        self._registry: Registry | None = None
        self._disk: DiskMetrics | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Recovers all collections and registers the servicer.

        Raises:
            StartError: The data folder cannot be used, or a collection's database is damaged.
        """
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._data = await asyncio.to_thread(DataDir, self._settings.resolved_data_dir)
        self._registry = Registry(self._data, self._settings, self._builds, self._texts)
        await self._registry.open_all()
        self._disk = DiskMetrics(self._data.path, self._registry.folders)
        metrics.SEARCH_THREADS.set(self._settings.resolved_search_threads)
        metrics.QUEUED_POINTS_LIMIT.set(self._settings.max_queued_points)
        self._builds.start()
        if self._texts is not None:
            self._texts.start()
        indexer_pb2_grpc.add_IndexerServicer_to_server(
            IndexerServicer(
                self._registry, self._threads, self._canary, self._courtesy, self._settings, lifecycle.draining
            ),
            server,
        )

    async def stop(self) -> None:
        """Stops the builder, commits what is queued and lets go of the data folder."""
        if self._disk is not None:
            self._disk.close()
        await self._builds.stop()
        await self._canary.close()
        if self._texts is not None:
            await self._texts.settle(_SETTLE_SECONDS)
        if self._registry is not None:
            await self._registry.close()
        if self._texts is not None:
            await self._texts.stop()
        self._leisure.shutdown()
        self._threads.shutdown()
        if self._data is not None:
            self._data.close()


def indexer_application(settings: IndexerSettings) -> Application:
    """Returns the application of the engine that the settings name; the other one is not loaded."""
    if settings.engine == "milvus":
        from services.indexer.milvus.app import MilvusApplication

        return MilvusApplication(settings)
    # Before gRPC starts its threads: searches, the event loop and who reads its sockets let each other finish.
    queue_up(_TURN_SECONDS)
    return IndexerApplication(settings)
