"""A real embedder in the test's own process: the application behind the runtime's interceptor, on a free port."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from services.embedder.__main__ import Embedder
from services.embedder.settings import EmbedderSettings
from services.runtime.interceptor import InFlight, ServiceInterceptor
from services.runtime.server import Lifecycle, server_options
from vitrine.channels import open_channel
from vitrine.v1 import embedder_pb2_grpc


@dataclass
class Serving:
    stub: embedder_pb2_grpc.EmbedderStub
    app: Embedder
    lifecycle: Lifecycle
    in_flight: InFlight

    @property
    def pipeline(self):
        """That of the default model."""
        return self.app.registry.find("").pipeline

    @property
    def held(self):
        """Images held, in both classes together."""
        return sum(served.pipeline.held for served in self.app.registry.all())


@asynccontextmanager
async def serving(*model_dirs, **settings):
    # Nothing to measure at start, and every image reaches the model.
    layout = {"lanes": 1, "intra_op_threads": 1, "max_batch": 4, "cache_memory_bytes": 0} | settings
    settings = EmbedderSettings(model_dirs=model_dirs, **layout)
    lifecycle, app = Lifecycle(), Embedder(settings)
    in_flight = InFlight(settings.max_concurrent_rpcs)
    server = grpc.aio.server(
        interceptors=[ServiceInterceptor(in_flight, settings.default_deadline_seconds)],
        options=server_options(settings),
    )
    port = server.add_insecure_port("127.0.0.1:0")
    try:
        await app.start(server, lifecycle)
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Serving(embedder_pb2_grpc.EmbedderStub(channel), app, lifecycle, in_flight)
    finally:
        await server.stop(0)
        await app.stop()


async def eventually(condition, seconds=20):
    """Waits for a condition; how long it takes is not what is tested."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
