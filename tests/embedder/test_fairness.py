"""Callers that name themselves take turns, and none takes all the room."""

import asyncio
import threading

import grpc
import pytest

from services.embedder.session import Session
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from vitrine.errors import InvalidArgumentError, OverloadedError, from_rpc_error
from vitrine.v1 import embedder_pb2

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")


@pytest.fixture
def device(monkeypatch):
    """Holds every batch until it is set."""
    free, real = threading.Event(), Session.run
    free.set()

    def run(session, pixels):
        assert free.wait(60)
        return real(session, pixels)

    monkeypatch.setattr(Session, "run", run)
    return free


def embed(embedder, caller):
    metadata = (("x-vitrine-client", caller),)
    return embedder.stub.Embed(
        embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=PHOTO)]), metadata=metadata
    )


async def test_another_caller_gets_in_and_is_served_in_its_turn_not_after_the_flood(tiny_model, device):
    settings = {"interactive_queue_items": 18, "max_images_per_request": 1, "max_batch": 1}
    async with serving(tiny_model, **settings) as embedder:
        device.clear()
        order = []

        async def ask(caller):
            answer = await embed(embedder, caller)
            order.append(caller)
            return answer

        flood = [asyncio.create_task(ask("crawler")) for _ in range(16)]
        await eventually(lambda: embedder.held == 16)
        with pytest.raises(grpc.RpcError) as caught:
            await embed(embedder, "crawler")
        error = from_rpc_error(caught.value)
        assert type(error) is OverloadedError
        assert "16 of them of 'crawler', which must leave room for others" in error.message
        assert error.retry_after > 0

        shopper = asyncio.create_task(ask("shop"))
        await eventually(lambda: embedder.held == 17)
        device.set()
        await asyncio.gather(shopper, *flood)
        assert order.index("shop") <= 3  # one was running, one was first in turn; answers may overtake by one


@pytest.mark.parametrize("name", ["shop app", "-x", "a" * 65])
async def test_a_name_that_is_none_is_refused(tiny_model, name):
    async with serving(tiny_model) as embedder:
        with pytest.raises(grpc.RpcError) as caught:
            await embed(embedder, name)
        error = from_rpc_error(caught.value)
        assert type(error) is InvalidArgumentError
        assert "x-vitrine-client is" in error.message
        assert error.violations[0].field == "x-vitrine-client"
