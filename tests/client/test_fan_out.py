"""Asking every shard: what fails costs its own answer only. Real servers on loopback."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.local.stack import Ports
from services.runtime.interceptor import InFlight, ServiceInterceptor
from tests.watching import left_behind, no_garbage_collection
from vitrine.errors import (
    CancelledCallError,
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from vitrine.fanout.breaker import BreakerState
from vitrine.fanout.machine import FanOutMachine
from vitrine.fanout.policy import ShardPolicy
from vitrine.fanout.result import FanOut
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

HANG = "hang"


class Shard(indexer_pb2_grpc.IndexerServicer):
    """Does what it is told: an answer, an error, HANG, or a list of those, one for each call."""

    def __init__(self, does):
        self.does = does
        self.calls = 0
        self.cancelled = asyncio.Event()

    async def Search(self, request, context):
        self.calls += 1
        does = self.does.pop(0) if isinstance(self.does, list) else self.does
        if isinstance(does, Exception):
            raise does
        if does == HANG:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return indexer_pb2.IndexerSearchResponse(points=does)


class Observed:
    """An observer that keeps what it hears."""

    def __init__(self):
        self.outcomes, self.retries, self.states = [], [], []

    def called(self, shard, outcome):
        self.outcomes.append((shard, outcome))

    def retried(self, shard):
        self.retries.append(shard)

    def breaker_changed(self, shard, state):
        self.states.append((shard, state))


@asynccontextmanager
async def shards(*does, **options):
    """A ShardSet over one server for each, and the servers; None: nothing listens there."""
    async with AsyncExitStack() as cleanup:
        addresses, servers = [], []
        for each in does:
            if each is None:
                servers.append(None)
                addresses.append(f"127.0.0.1:{Ports.free(1).gateway}")
                continue
            server = grpc.aio.server(interceptors=[ServiceInterceptor(InFlight(8), 1000.0)])
            servers.append(Shard(each))
            servers[-1].health = health.aio.HealthServicer()
            await servers[-1].health.set("", health_pb2.HealthCheckResponse.SERVING)
            indexer_pb2_grpc.add_IndexerServicer_to_server(servers[-1], server)
            health_pb2_grpc.add_HealthServicer_to_server(servers[-1].health, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            cleanup.push_async_callback(server.stop, None)
        shard_set = ShardSet(addresses, **options)
        cleanup.push_async_callback(shard_set.close)
        yield shard_set, servers


def search(stub, seconds):
    return stub.Search(indexer_pb2.IndexerSearchRequest(), timeout=seconds)


async def ask(shard_set, timeout=20.0, **options):
    return await shard_set.fan_out(search, timeout, **options)


async def test_everyone_answers():
    observed = Observed()
    async with shards(1, 2, 3, observer=observed) as (shard_set, _):
        found = await ask(shard_set)
    assert {index: answer.points for index, answer in found.answers.items()} == {0: 1, 1: 2, 2: 3}
    assert not found.failed
    assert not found.timed_out
    assert sorted(observed.outcomes) == [(0, "answered"), (1, "answered"), (2, "answered")]
    assert observed.states == [(0, BreakerState.CLOSED), (1, BreakerState.CLOSED), (2, BreakerState.CLOSED)]


async def test_a_dead_and_a_hung_shard_cost_only_themselves():
    async with shards(1, None, HANG, OverloadedError("full", retry_after=9)) as (shard_set, servers):
        started = time.monotonic()
        found = await ask(shard_set, timeout=2.0)
        took = time.monotonic() - started
        await asyncio.wait_for(servers[2].cancelled.wait(), 60)
    assert set(found.answers) == {0}
    assert set(found.failed) == {1, 3}
    assert isinstance(found.failed[1], UnavailableError)
    assert set(found.timed_out) == {2}
    assert took < 60  # the hung shard sleeps ten minutes
    found.raise_if_unanswered()


async def test_a_refused_request_is_the_callers_fault():
    async with shards(HANG, InvalidArgumentError("k is bad", field="k")) as (shard_set, servers):
        with pytest.raises(InvalidArgumentError, match="k is bad"):
            await ask(shard_set, timeout=300.0)
        await asyncio.wait_for(servers[0].cancelled.wait(), 60)


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        (("missing", "missing"), NotFoundError),
        (("missing", None), NotFoundError),
        ((None, None), UnavailableError),
        ((HANG, HANG), DeadlineError),
        ((HANG, None), UnavailableError),
    ],
)
async def test_no_answer_at_all_says_why(does, kind):
    async with shards(*(NotFoundError("no collection") if each == "missing" else each for each in does)) as (
        shard_set,
        _,
    ):
        found = await ask(shard_set, timeout=2.0)
    with pytest.raises(kind):
        found.raise_if_unanswered()


async def test_what_fails_in_passing_is_asked_once_more_and_by_nobody_else():
    observed = Observed()
    away = UnavailableError("going away")
    script = [[away, 1], [OverloadedError("full", retry_after=0.05), 2], [away, away, 3]]
    async with shards(*script, observer=observed) as (shard_set, servers):
        found = await ask(shard_set)
        assert {index: answer.points for index, answer in found.answers.items()} == {0: 1, 1: 2}
        assert set(found.failed) == {2}
        assert [server.calls for server in servers] == [2, 2, 2]  # gRPC does not try again on its own
    assert sorted(observed.retries) == [0, 1, 2]


async def test_without_tokens_nothing_is_asked_twice():
    policy = ShardPolicy(retry_share=0.0, retry_reserve=0.0)
    async with shards([UnavailableError("going away"), 1], policy=policy) as (shard_set, servers):
        found = await ask(shard_set)
        assert set(found.failed) == {0}
        assert servers[0].calls == 1


async def test_when_the_caller_leaves_the_shards_are_told():
    observed = Observed()
    async with shards(HANG, HANG, observer=observed) as (shard_set, servers):
        asking = asyncio.create_task(ask(shard_set, timeout=300.0))
        while not all(server.calls for server in servers):
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for server in servers:
            await asyncio.wait_for(server.cancelled.wait(), 60)
    assert sorted(observed.outcomes) == [(0, "abandoned"), (1, "abandoned")]


async def test_what_cannot_be_enough_is_not_waited_for():
    async with shards(HANG, None) as (shard_set, _):
        found = await asyncio.wait_for(ask(shard_set, timeout=300.0, needed=2), 60)
        assert found.abandoned == {0}
        with pytest.raises(UnavailableError, match=rf"2 must \(cannot reach shard 1 at {shard_set.addresses[1]}"):
            found.raise_if_short(2)


async def test_one_shard_is_asked_for_what_only_it_knows():
    away = UnavailableError("going away")
    async with shards([away, 7], HANG, NotFoundError("no collection"), None) as (shard_set, servers):
        assert (await shard_set.ask(0, search, 20.0)).points == 7
        for index, kind in ((1, DeadlineError), (2, NotFoundError), (3, UnavailableError)):
            with pytest.raises(kind):
                await shard_set.ask(index, search, 1.0)
        assert [server.calls for server in servers[:3]] == [2, 1, 1]


async def test_a_shard_that_hangs_is_left_alone_until_it_is_well():
    observed = Observed()
    policy = ShardPolicy(breaker_failures=3, breaker_unanswered_seconds=0.1, probe_seconds=0.1)
    async with shards(1, HANG, policy=policy, observer=observed) as (shard_set, servers):
        await servers[1].health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        for _ in range(3):
            assert set((await ask(shard_set, timeout=0.5)).timed_out) == {1}
        for _ in range(20):
            found = await ask(shard_set, timeout=300.0)  # a call that reached it would wait as long
            assert set(found.answers) == {0}
            assert found.skipped == {1}
            assert set(found.failed) == {1}
        assert servers[1].calls == 3
        servers[1].does = 2
        await servers[1].health.set("", health_pb2.HealthCheckResponse.SERVING)
        while shard_set.breakers[1].state is BreakerState.OPEN:
            await asyncio.sleep(0.01)
        assert set((await ask(shard_set)).answers) == {0, 1}
        assert servers[1].calls == 4  # health checks found out, not callers
    assert observed.states[2:] == [
        (1, BreakerState.OPEN),
        (1, BreakerState.HALF_OPEN),
        (1, BreakerState.CLOSED),
    ]
    assert observed.outcomes.count((1, "skipped")) == 20


async def test_a_shard_without_health_checks_counts_as_there():
    policy = ShardPolicy(breaker_failures=1, breaker_unanswered_seconds=0.0, probe_seconds=0.05)
    server = grpc.aio.server()
    shard = Shard(HANG)
    indexer_pb2_grpc.add_IndexerServicer_to_server(shard, server)
    shard_set = ShardSet([f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"], policy=policy)
    await server.start()
    await ask(shard_set, timeout=0.3)
    while shard_set.breakers[0].state is not BreakerState.HALF_OPEN:
        await asyncio.sleep(0.01)
    await shard_set.close()
    await server.stop(None)


async def test_closing_while_a_question_is_out_ends_it():
    async with shards(HANG) as (shard_set, servers):
        asking = asyncio.create_task(ask(shard_set, timeout=300.0))
        while not servers[0].calls:
            await asyncio.sleep(0.01)
        await shard_set.close()
        with pytest.raises(CancelledCallError, match="closed"):
            await asyncio.wait_for(asking, 60)


async def test_a_defect_in_the_call_is_no_shards_failure():
    async with shards(HANG, HANG) as (shard_set, servers):

        def broken(stub, seconds):
            if stub is shard_set.stubs[1]:
                raise ZeroDivisionError
            return search(stub, seconds)

        with pytest.raises(ZeroDivisionError):
            await shard_set.fan_out(broken, 300.0)
        assert not servers[1].calls


async def test_failures_leave_nothing_to_the_garbage_collector():
    async def all_kinds():
        found = await ask(shard_set, timeout=0.5)
        with pytest.raises(UnavailableError):
            found.raise_if_short(4)
        for index, kind in ((1, UnavailableError), (2, DeadlineError), (3, NotFoundError)):
            with pytest.raises(kind):
                await shard_set.ask(index, search, 2.0 if index != 2 else 0.2)
        with pytest.raises(InvalidArgumentError):
            await ask(refusing)

    async with (
        shards(1, None, HANG, NotFoundError("nothing")) as (shard_set, _),
        shards(1, InvalidArgumentError("bad"), HANG) as (refusing, _),
    ):
        await all_kinds()
        with no_garbage_collection() as alive:
            for _ in range(3):
                await all_kinds()
            left = await left_behind(alive, FanOut, FanOutMachine)
    assert left == []
