"""Asking every shard: what fails costs its own answer only. Real servers on loopback."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from services.runtime.interceptor import InFlight, ServiceInterceptor
from vitrine.errors import DeadlineError, InvalidArgumentError, NotFoundError, OverloadedError, UnavailableError
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Shard(indexer_pb2_grpc.IndexerServicer):
    def __init__(self, answer):
        self._answer = answer

    async def Count(self, request, context):
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer == "hang":
            await asyncio.sleep(600)
        return indexer_pb2.CountResponse(points=self._answer)


@asynccontextmanager
async def shards(*answers):
    """A ShardSet over one server per answer; None: nothing listens there."""
    async with AsyncExitStack() as cleanup:
        addresses = []
        for answer in answers:
            server = grpc.aio.server(interceptors=[ServiceInterceptor(InFlight(8), 1000.0)])
            indexer_pb2_grpc.add_IndexerServicer_to_server(Shard(answer), server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            if answer is None:
                await server.stop(None)
            else:
                await server.start()
                cleanup.push_async_callback(server.stop, None)
        shard_set = ShardSet(addresses)
        cleanup.push_async_callback(shard_set.close)
        yield shard_set


async def ask(shard_set, timeout=20.0):
    return await shard_set.fan_out(
        lambda stub, seconds: stub.Count(indexer_pb2.CountRequest(), timeout=seconds), timeout
    )


async def test_everyone_answers():
    async with shards(1, 2, 3) as shard_set:
        found = await ask(shard_set)
    assert {index: answer.points for index, answer in found.answers.items()} == {0: 1, 1: 2, 2: 3}
    assert not found.failed
    assert not found.timed_out


async def test_a_dead_and_a_hung_shard_cost_only_themselves():
    async with shards(1, None, "hang", OverloadedError("full", retry_after=9)) as shard_set:
        started = time.monotonic()
        found = await ask(shard_set, timeout=2.0)
        took = time.monotonic() - started
    assert set(found.answers) == {0}
    assert set(found.failed) == {1, 3}
    assert isinstance(found.failed[1], UnavailableError)
    assert set(found.timed_out) == {2}
    assert took < 60  # the hung shard sleeps ten minutes
    found.raise_if_unanswered()


@pytest.mark.parametrize("error", [InvalidArgumentError("k is bad", field="k")])
async def test_a_refused_request_is_the_callers_fault(error):
    async with shards(1, error) as shard_set:
        with pytest.raises(InvalidArgumentError, match="k is bad"):
            await ask(shard_set)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ((NotFoundError("no collection"), NotFoundError("no collection")), NotFoundError),
        ((NotFoundError("no collection"), None), NotFoundError),
        ((None, None), UnavailableError),
        (("hang", "hang"), DeadlineError),
        (("hang", None), UnavailableError),
    ],
)
async def test_no_answer_at_all_says_why(answers, kind):
    async with shards(*answers) as shard_set:
        found = await ask(shard_set, timeout=2.0)
    with pytest.raises(kind):
        found.raise_if_unanswered()
