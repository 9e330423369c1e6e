"""Who a call is made for: checked, carried, and passed on by the gateway."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from services.gateway.__main__ import Gateway
from services.gateway.settings import GatewaySettings
from services.runtime.interceptor import InFlight, ServiceInterceptor
from services.runtime.server import Lifecycle
from vitrine import AsyncVitrine
from vitrine.callers import caller_metadata, check_caller, current_caller, set_caller
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import embedder_pb2_grpc


@pytest.mark.parametrize("name", ["app", "team/app:v1.2@eu-west_1", "a" * 64])
async def test_a_caller_is_carried_within_its_task(name):
    async def another():
        return current_caller()

    other = asyncio.create_task(another())
    set_caller(name)
    assert (current_caller(), caller_metadata()) == (name, (("x-vitrine-client", name),))
    assert await other == ""


@pytest.mark.parametrize("name", [" ", "a b", ".a", "a" * 65, "a\n", "\u00e9"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidArgumentError, match="must be 1 to 64 letters"):
        check_caller(name)


def test_nobody_has_no_metadata():
    assert (check_caller(""), caller_metadata()) == ("", ())


class Listener(embedder_pb2_grpc.EmbedderServicer):
    """An embedder that only notes who asks."""

    def __init__(self):
        self.heard = []

    async def Embed(self, request, context):
        self.heard.append(dict(context.invocation_metadata()).get("x-vitrine-client"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "only listening")


@asynccontextmanager
async def listening():
    server, listener = grpc.aio.server(), Listener()
    embedder_pb2_grpc.add_EmbedderServicer_to_server(listener, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield listener, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_the_gateway_passes_the_name_on_to_the_embedder():
    async with listening() as (listener, address):
        gateway = Gateway(GatewaySettings(embedder=address, indexers=["127.0.0.1:1"], http_port=0))
        server = grpc.aio.server(interceptors=[ServiceInterceptor(InFlight(8), 10)])
        port = server.add_insecure_port("127.0.0.1:0")
        await gateway.start(server, Lifecycle())
        await server.start()
        try:
            for caller in ("app", ""):
                async with AsyncVitrine(f"127.0.0.1:{port}", caller=caller) as client:
                    with pytest.raises(Exception, match="only listening"):
                        await client.search("shop", image=b"a photo")
        finally:
            await server.stop(0)
            await gateway.stop()
        assert listener.heard == ["app", None]


async def test_a_client_refuses_a_bad_name_before_it_connects():
    with pytest.raises(InvalidArgumentError):
        AsyncVitrine(caller="not a name")
