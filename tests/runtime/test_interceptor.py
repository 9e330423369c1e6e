"""What surrounds every call: status and details, deadline, admission, metrics, request ids."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import REGISTRY

from services.runtime.interceptor import InFlight, ServiceInterceptor, long_running
from services.runtime.multiplex.service import register_multiplex
from services.runtime.server import new_server
from tests.watching import left_behind, no_garbage_collection
from vitrine.errors import (
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    from_rpc_error,
)
from vitrine.multiplex.channel import MultiplexChannel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Behaviour(indexer_pb2_grpc.IndexerServicer):
    """A real servicer whose collection name says what to do."""

    def __init__(self):
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Count(self, request, context):
        match request.collection:
            case "bad":
                raise InvalidArgumentError("collection is bad, must be good", field="collection")
            case "unspeakable":
                raise InvalidArgumentError("\ud800 is no text")
            case "aborts":
                await context.abort(grpc.StatusCode.ABORTED, "by hand")
            case "busy":
                raise OverloadedError("queue is full", retry_after=1.5)
            case "defect":
                raise RuntimeError("a secret detail")
            case "slow":
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return indexer_pb2.CountResponse(points=7)

    @long_running
    async def Compact(self, request, context):
        await asyncio.sleep(0.3)
        return indexer_pb2.CompactResponse(segments_after=1)

    async def Scan(self, request, context):
        yield indexer_pb2.ScanResponse()
        if request.collection == "bad":
            raise InvalidArgumentError("after is bad", field="after")
        yield indexer_pb2.ScanResponse()


@pytest.fixture(params=[(), ("/vitrine.v1.Indexer/Count", "/vitrine.v1.Indexer/Compact")], ids=["rpc", "multiplexed"])
def serving(request, example_settings):
    """Everything holds for a call by itself as for one that comes with others on a stream."""

    @asynccontextmanager
    async def serving(limit=8, deadline=30.0):
        behaviour = Behaviour()
        in_flight = InFlight(limit)
        interceptor = ServiceInterceptor(in_flight, deadline)
        server = new_server(example_settings(), interceptor)
        register_multiplex(server, interceptor, in_flight, asyncio.Event(), example_settings())
        indexer_pb2_grpc.add_IndexerServicer_to_server(behaviour, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with MultiplexChannel(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), request.param) as channel:
            yield indexer_pb2_grpc.IndexerStub(channel), behaviour
        await server.stop(None)
        await asyncio.wait_for(in_flight.wait_idle(), 10)  # no place is lost, however calls end

    return serving


async def in_flight(count):
    while REGISTRY.get_sample_value("vitrine_rpcs_in_flight") != count:
        await asyncio.sleep(0.001)


def count(collection="good"):
    return indexer_pb2.CountRequest(collection=collection)


def handled(method, code):
    labels = {"grpc_service": "vitrine.v1.Indexer", "grpc_method": method, "grpc_code": code}
    kind = "unary" if method == "Count" else "server_stream"
    return REGISTRY.get_sample_value("grpc_server_handled_total", {"grpc_type": kind, **labels}) or 0.0


async def test_errors_travel_with_their_details(serving):
    async with serving() as (stub, _):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("bad"))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidArgumentError)
        assert error.message == "collection is bad, must be good"
        assert [violation.field for violation in error.violations] == ["collection"]

        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("busy"))
        error = from_rpc_error(caught.value)
        assert isinstance(error, OverloadedError)
        assert error.retry_after == 1.5


async def test_a_defect_is_internal_and_keeps_its_secrets(serving):
    async with serving() as (stub, _):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("defect"), metadata=(("x-request-id", "req-42"),))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InternalError)
    assert "secret" not in error.message
    assert "req-42" in error.message


@pytest.mark.parametrize("collection", ["bad", "defect", "unspeakable", "aborts"])
async def test_however_a_call_ends_its_place_is_free_again(serving, collection):
    async with serving(limit=1) as (stub, _):
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                await stub.Count(count(collection))
            assert caught.value.code() != grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.wait_for(in_flight(0), 10)
        assert (await stub.Count(count())).points == 7


async def test_refused_calls_say_under_which_id_they_are_logged(serving):
    async with serving() as (stub, _):
        metadata = (("x-request-id", "req-42"),)
        with pytest.raises(grpc.RpcError) as unary:
            await stub.Count(count("bad"), metadata=metadata)
        with pytest.raises(grpc.RpcError) as stream:
            async for _ in stub.Scan(indexer_pb2.ScanRequest(collection="bad"), metadata=metadata):
                pass
        for caught in (unary, stream):
            assert dict(caught.value.trailing_metadata())["x-request-id"] == "req-42"


async def test_a_refused_call_leaves_nothing_to_the_garbage_collector(serving):
    async with serving() as (stub, _):
        await asyncio.gather(stub.Count(count("bad")), return_exceptions=True)
        with no_garbage_collection() as alive:
            await asyncio.gather(*(stub.Count(count("bad")) for _ in range(5)), return_exceptions=True)
            left = await left_behind(alive, InvalidArgumentError)
    assert left == []


async def test_a_stream_can_fail_after_its_first_message(serving):
    async with serving() as (stub, _):
        assert len([page async for page in stub.Scan(indexer_pb2.ScanRequest(collection="good"))]) == 2
        received = []
        with pytest.raises(grpc.RpcError) as caught:
            async for page in stub.Scan(indexer_pb2.ScanRequest(collection="bad")):
                received.append(page)
        assert len(received) == 1
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_call_without_deadline_gets_one(serving):
    async with serving(deadline=0.05) as (stub, behaviour):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("slow"))
        assert isinstance(from_rpc_error(caught.value), DeadlineError)
        await asyncio.wait_for(behaviour.cancelled.wait(), 10)


async def test_work_of_a_caller_who_left_is_cancelled(serving):
    async with serving() as (stub, behaviour):
        call = stub.Count(count("slow"))
        await asyncio.wait_for(in_flight(1), 10)
        call.cancel()
        await asyncio.wait_for(behaviour.cancelled.wait(), 10)
        await asyncio.wait_for(in_flight(0), 10)


async def test_calls_over_the_limit_are_refused_with_advice_and_leave_no_trace(serving):
    async with serving(limit=2) as (stub, behaviour):
        held = [asyncio.ensure_future(stub.Count(count("slow"))) for _ in range(2)]
        await asyncio.wait_for(in_flight(2), 10)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count())
        error = from_rpc_error(caught.value)
        assert isinstance(error, OverloadedError)
        assert "max_concurrent_rpcs: 2" in error.message
        assert error.retry_after
        behaviour.release.set()
        assert [answer.points for answer in await asyncio.gather(*held)] == [7, 7]
        await asyncio.wait_for(in_flight(0), 10)
        assert (await stub.Count(count())).points == 7


async def test_metrics_count_calls_by_code(serving):
    async with serving() as (stub, _):
        before = {code: handled("Count", code) for code in ("OK", "INVALID_ARGUMENT", "INTERNAL")}
        await stub.Count(count())
        for name in ("bad", "defect"):
            with pytest.raises(grpc.RpcError):
                await stub.Count(count(name))
        after = {code: handled("Count", code) for code in before}
    assert {code: after[code] - before[code] for code in before} == {"OK": 1, "INVALID_ARGUMENT": 1, "INTERNAL": 1}


async def test_long_running_methods_take_as_long_as_their_caller_allows(serving):
    async with serving(deadline=0.1) as (stub, _):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("slow"))
        assert isinstance(from_rpc_error(caught.value), DeadlineError)
        assert (await stub.Compact(indexer_pb2.CompactRequest(), timeout=20)).segments_after == 1
        assert (await stub.Compact(indexer_pb2.CompactRequest())).segments_after == 1
