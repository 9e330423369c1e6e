"""A service of the runtime in the test's own process."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from services.local.stack import Ports
from services.runtime.server import serve
from services.runtime.settings import ServiceSettings
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class ExampleSettings(ServiceSettings):
    section: ClassVar[str] = "example"


class Example(indexer_pb2_grpc.IndexerServicer):
    """An application of a few RPCs that answer at once, and remember for whom."""

    grpc_services = ("vitrine.v1.Indexer",)

    def __init__(self):
        self.started = asyncio.Event()
        self.connections = set()

    async def start(self, server, lifecycle):
        self.lifecycle = lifecycle
        indexer_pb2_grpc.add_IndexerServicer_to_server(self, server)
        self.started.set()

    async def stop(self):
        pass

    async def Count(self, request, context):
        self.connections.add(context.peer())
        return indexer_pb2.CountResponse(points=7)


@pytest.fixture
def example_settings():
    """Makes settings on free ports."""

    def make(**settings):
        ports = Ports.free(1)
        return ExampleSettings(
            **{"port": ports.embedder, "metrics_port": ports.metrics[ports.embedder], "drain_seconds": 5} | settings
        )

    return make


@pytest.fixture
def running():
    """Runs a service while the test needs it, and ends it as a signal would."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    @asynccontextmanager
    async def run(settings, application=None):
        application = application or Example()
        task = asyncio.create_task(serve(settings, application))
        waiting = asyncio.create_task(application.started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            await task
        try:
            yield application
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 60)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
