"""A service in the runtime: what it says of its health is told, and SIGTERM ends it in order."""

import asyncio
import os
import signal
from typing import ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.stack import Ports
from services.runtime.server import StartError, new_server, serve
from services.runtime.settings import ServiceSettings
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class EmptySettings(ServiceSettings):
    section: ClassVar[str] = "empty"


class Empty:
    """An application without anything of its own."""

    grpc_services = ("vitrine.v1.Embedder",)

    def __init__(self, error=None):
        self.error = error
        self.stopped = False

    async def start(self, server, lifecycle):
        if self.error:
            raise self.error
        self.lifecycle = lifecycle

    async def stop(self):
        self.stopped = True


def settings():
    ports = Ports.free(1)
    return EmptySettings(
        port=ports.embedder, metrics_port=ports.metrics[ports.embedder], drain_delay_seconds=0, drain_seconds=5
    )


@pytest.fixture(autouse=True)
def own_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_what_a_service_says_of_its_health_reaches_those_who_watch():
    application, chosen = Empty(), settings()
    running = asyncio.create_task(serve(chosen, application))
    async with open_channel(f"127.0.0.1:{chosen.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [
            stub.Watch(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)
            for name in ("", "vitrine.v1.Embedder")
        ]

        async def told():
            return [(await asyncio.wait_for(watch.read(), 30)).status for watch in watches]

        assert await told() == [SERVING] * 2
        application.lifecycle.report_health(False)
        assert await told() == [NOT_SERVING] * 2
        application.lifecycle.report_health(True)
        assert await told() == [SERVING] * 2
        os.kill(os.getpid(), signal.SIGTERM)
        assert await told() == [NOT_SERVING] * 2
        application.lifecycle.report_health(True)  # too late
        await asyncio.wait_for(running, 30)
    assert application.lifecycle.draining.is_set()
    assert application.stopped


async def test_a_probe_hears_not_serving_while_the_service_starts():
    class Slow(Empty):
        may_start = asyncio.Event()

        async def start(self, server, lifecycle):
            await self.may_start.wait()
            await super().start(server, lifecycle)

    ports = Ports.free(1, health=True)
    port = ports.health[ports.embedder]
    chosen = EmptySettings(port=ports.embedder, metrics_port=ports.metrics[ports.embedder], health_port=port)
    running = asyncio.create_task(serve(chosen, Slow()))
    async with open_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        assert (await asyncio.wait_for(watch.read(), 30)).status == NOT_SERVING
        Slow.may_start.set()
        assert (await asyncio.wait_for(watch.read(), 30)).status == SERVING
        watch.cancel()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)


async def test_a_service_that_cannot_start_is_released():
    application = Empty(StartError("no"))
    with pytest.raises(StartError):
        await serve(settings(), application)
    assert application.stopped


async def test_a_server_keeps_no_task_for_each_method():
    """grpc.aio would wait on all of them for every call."""
    server = new_server(settings())
    indexer_pb2_grpc.add_IndexerServicer_to_server(indexer_pb2_grpc.IndexerServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await indexer_pb2_grpc.IndexerStub(channel).Count(indexer_pb2.CountRequest(), timeout=30)
        assert not [task for task in asyncio.all_tasks() if "registered" in repr(task)]
    await server.stop(0)
