"""Three real shards under load, of which one is killed or stops: what callers get, what metrics say, how it ends."""

import asyncio
import csv
import signal
import time
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest

from bench.end_to_end import ingest, read_images
from services.local.stack import ROOT
from tests.watching import sample
from vitrine import AsyncVitrine
from vitrine.errors import DeadlineError, UnavailableError
from vitrine.v1 import search_pb2, search_pb2_grpc

pytestmark = pytest.mark.slow

CATALOGUE = ROOT / "examples" / "catalogue"
CALLERS = 6
DEADLINE = 8.0
PATIENCE = 100.0


class Load:
    """Callers that search one after the other until told to stop; every error is one too many."""

    def __init__(self, stack, photo):
        self._stack = stack
        self._photo = photo
        self.deadline = DEADLINE
        self.answers = []
        self._running = True

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call())
            try:
                yield self
            finally:
                self._running = False

    async def _call(self):
        async with AsyncVitrine(self._stack.gateway) as client:
            while self._running:
                started = time.monotonic()
                # A caller whose deadline passes gets no answer, but a DeadlineError.
                answer = await client.search("shop", image=self._photo, timeout=self.deadline)
                self.answers.append((started, answer))

    async def until_last(self, count, like):
        """Returns once the last `count` answers are all as wanted."""
        async with asyncio.timeout(PATIENCE):
            while len(self.answers) < count or not all(like(answer) for _, answer in self.answers[-count:]):
                await asyncio.sleep(0.05)


def complete(answer):
    return answer.coverage.shards_answered == answer.coverage.shards_total == 3 and not answer.degraded


def lacks_one(answer):
    return (
        answer.coverage.shards_answered == 2
        and answer.coverage.shards_failed + answer.coverage.shards_timed_out == 1
        and bool(answer.degraded)
    )


@asynccontextmanager
async def three_shards(make_stack, **gateway_settings):
    """A stack with the sample catalogue in it, a query photo, and a reader of the gateway's metrics."""
    environment = {f"VITRINE_GATEWAY_{name}": str(value) for name, value in gateway_settings.items()}
    stack = make_stack(shards=3, environment=environment)
    with (CATALOGUE / "queries.csv").open(newline="") as source:
        photo = (CATALOGUE / next(csv.DictReader(source))["image"]).read_bytes()

    async def metric(name, **labels):
        return await sample(stack.ports.metrics[stack.ports.gateway], name, **labels)

    async with stack.supervisor:
        await stack.start()
        await ingest(stack.embedder, "shop", read_images(CATALOGUE))
        yield stack, photo, metric


async def until_metric(metric, wanted, name, **labels):
    async with asyncio.timeout(PATIENCE):
        while await metric(name, **labels) != wanted:
            await asyncio.sleep(0.1)


async def test_a_shard_killed_under_load_costs_its_own_answers_until_it_is_back(make_stack):
    async with three_shards(make_stack) as (stack, photo, metric):
        async with Load(stack, photo).running() as load:
            await load.until_last(20, complete)
            whole = load.answers[-1][1]
            await stack.supervisor.kill("indexer-1")
            await load.until_last(40, lacks_one)
            await until_metric(metric, 2.0, "vitrine_gateway_breaker_state", shard="1")
            await load.until_last(20, lambda answer: answer.degraded == ["shard_skipped"])
            assert await metric("vitrine_gateway_degraded_total", reason="DEGRADED_REASON_SHARD_FAILED") > 0
            assert await metric("vitrine_gateway_degraded_total", reason="DEGRADED_REASON_SHARD_SKIPPED") > 0
            assert await metric("vitrine_gateway_shard_calls_total", shard="1", outcome="skipped") > 0

            async with grpc.aio.insecure_channel(stack.gateway) as channel:
                stub = search_pb2_grpc.VisualSearchStub(channel)
                for demand in ({"allow_partial": False}, {"min_coverage": 0.9}):
                    request = search_pb2.SearchRequest(
                        collection="shop", query=[search_pb2.QueryPart(image=photo)], **demand
                    )
                    with pytest.raises(grpc.RpcError, match=r"of 3 shards answered, 3 must .*shard 1 at") as caught:
                        await stub.Search(request, timeout=DEADLINE)
                    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                request = search_pb2.SearchRequest(
                    collection="shop", query=[search_pb2.QueryPart(image=photo)], min_coverage=0.6
                )
                assert (await stub.Search(request, timeout=DEADLINE)).coverage.shards_skipped == 1

            await stack.supervisor.restart("indexer-1")
            await load.until_last(40, complete)
            await until_metric(metric, 0.0, "vitrine_gateway_breaker_state", shard="1")
        # The same clients all the time, every call answered, and never by fewer than two.
        assert all(complete(answer) or lacks_one(answer) for _, answer in load.answers)
        assert load.answers[-1][1].products == whole.products
        for state in ("open", "half_open", "closed"):
            assert await metric("vitrine_gateway_breaker_transitions_total", shard="1", state=state) >= 1


async def test_a_stopped_shard_costs_nobody_more_than_their_deadline_and_soon_nothing(make_stack):
    async with three_shards(make_stack, DEFAULT_DEADLINE_SECONDS=600) as (stack, photo, metric):
        shard = psutil.Process(stack.supervisor.processes["indexer-2"].process.pid)
        async with Load(stack, photo).running() as load:
            await load.until_last(20, complete)
            shard.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(PATIENCE):
                while shard.status() != psutil.STATUS_STOPPED:
                    await asyncio.sleep(0.01)
            stopped_at = time.monotonic()
            await until_metric(metric, 2.0, "vitrine_gateway_breaker_state", shard="2")
            await load.until_last(20, lambda answer: answer.degraded == ["shard_skipped"])
            # Now even a caller with all the time in the world does not spend it.
            load.deadline = 500.0
            count = len(load.answers)
            async with asyncio.timeout(PATIENCE):
                while len(load.answers) < count + 50:
                    await asyncio.sleep(0.05)
            assert all(lacks_one(answer) for started, answer in load.answers if started > stopped_at)
            assert shard.status() == psutil.STATUS_STOPPED  # all that time
            assert await metric("vitrine_gateway_shard_calls_total", shard="2", outcome="timed_out") >= 5

            shard.send_signal(signal.SIGCONT)
            await load.until_last(40, complete)
            await until_metric(metric, 0.0, "vitrine_gateway_breaker_state", shard="2")
        assert any("shard_timed_out" in answer.degraded for _, answer in load.answers)
        for state in ("open", "half_open", "closed"):
            assert await metric("vitrine_gateway_breaker_transitions_total", shard="2", state=state) >= 1


async def test_all_shards_stopped_is_an_error_in_time_and_over_when_they_go_on(make_stack):
    async with (
        three_shards(make_stack, BREAKER_FAILURES=1) as (stack, photo, metric),
        AsyncVitrine(stack.gateway) as client,
    ):
        assert complete(await client.search("shop", image=photo))
        shards = [psutil.Process(stack.supervisor.processes[f"indexer-{index}"].process.pid) for index in range(3)]
        try:
            for shard in shards:
                shard.send_signal(signal.SIGSTOP)
            with pytest.raises(DeadlineError):
                await client.search("shop", image=photo, timeout=3.0)
            for index in range(3):
                await until_metric(metric, 2.0, "vitrine_gateway_breaker_state", shard=str(index))
            assert {shard.status() for shard in shards} == {psutil.STATUS_STOPPED}
        finally:
            for shard in shards:
                shard.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while not await is_complete(client, photo):
                await asyncio.sleep(0.05)


async def is_complete(client, photo):
    try:
        return complete(await client.search("shop", image=photo))
    except UnavailableError:  # all breakers are open, and somebody asks already
        return False
