"""Calls on a stream: what differs from an RPC for each (`test_interceptor` has what does not)."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc.aio import UsageError
from grpc.aio._call import StreamStreamCall
from prometheus_client import REGISTRY

from services.runtime.guard import Guard
from services.runtime.identities import Directory, Identity, Scope
from services.runtime.interceptor import InFlight, ServiceInterceptor
from services.runtime.multiplex.service import register_multiplex
from services.runtime.server import new_server
from tests.watching import left_behind, no_garbage_collection
from vitrine.callers import current_caller
from vitrine.errors import UnauthenticatedError, UnavailableError, from_rpc_error
from vitrine.multiplex.channel import MultiplexChannel
from vitrine.multiplex.limits import MAX_ANSWER_BYTES, MAX_CALL_BYTES
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc, multiplex_pb2, multiplex_pb2_grpc

COUNT = "/vitrine.v1.Indexer/Count"
DESCRIBE = "/vitrine.v1.Indexer/DescribeCollection"


class Servicer(indexer_pb2_grpc.IndexerServicer):
    """Its collection name says what to do, and how long the answer is."""

    def __init__(self):
        self.callers = []
        self.release = asyncio.Event()

    async def Count(self, request, context):
        self.callers.append(current_caller())
        if request.collection.startswith("slow"):
            await self.release.wait()
        if request.collection == "away":
            raise UnavailableError("a shard is away")
        return indexer_pb2.CountResponse(points=len(request.collection))

    async def DescribeCollection(self, request, context):
        response = indexer_pb2.DescribeCollectionResponse()
        response.collection.spec.name = "x" * int(request.collection)
        return response


class Server:
    def __init__(self, make_settings):
        self.servicer = Servicer()
        self.in_flight = InFlight(100)
        self.draining = asyncio.Event()
        self._make_settings = make_settings

    async def start(self, *, guard=None, multiplexed=True, **settings):
        settings = self._make_settings(**settings)
        interceptor = ServiceInterceptor(self.in_flight, 30.0, guard)
        self.server = new_server(settings, interceptor)
        if multiplexed:
            register_multiplex(self.server, interceptor, self.in_flight, self.draining, settings)
        indexer_pb2_grpc.add_IndexerServicer_to_server(self.servicer, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()


@pytest.fixture
def serving(example_settings):
    @asynccontextmanager
    async def serving(**options):
        server = Server(example_settings)
        await server.start(**options)
        try:
            async with MultiplexChannel(grpc.aio.insecure_channel(server.address), [COUNT, DESCRIBE]) as channel:
                yield server, indexer_pb2_grpc.IndexerStub(channel)
        finally:
            await server.server.stop(None)

    return serving


@asynccontextmanager
async def replicas(make_settings, number=2, **options):
    """Servers behind one name, and a client."""
    servers = [Server(make_settings) for _ in range(number)]
    for server in servers:
        await server.start()
    name = "ipv4:" + ",".join(server.address for server in servers)
    round_robin = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]
    try:
        async with MultiplexChannel(
            grpc.aio.insecure_channel(name, options=round_robin), [COUNT], **options
        ) as channel:
            stub = indexer_pb2_grpc.IndexerStub(channel)
            await until_all_are_asked(stub, servers)
            yield servers, stub
    finally:
        await asyncio.gather(*(server.server.stop(None) for server in servers))


async def until_all_are_asked(stub, servers):
    async with asyncio.timeout(30):
        while not all(server.servicer.callers for server in servers):
            await asyncio.gather(*(stub.Count(count(), timeout=20) for _ in range(4)))


@asynccontextmanager
async def exchange(server, **options):
    """A stream of calls without our client."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield multiplex_pb2_grpc.MultiplexStub(channel).Exchange(**options)


def call(number, method=COUNT, collection="four", **fields):
    request = indexer_pb2.CountRequest(collection=collection).SerializeToString()
    return multiplex_pb2.Call(id=number, method=method, **({"request": request} | fields))


async def answers(stream, count):
    found = {}
    while len(found) < count:
        for answer in (await asyncio.wait_for(stream.read(), 10)).answers:
            found[answer.id] = answer
    return found


def count(collection="four"):
    return indexer_pb2.CountRequest(collection=collection)


def streams(what="started", **more):
    labels = {"grpc_type": "bidi_stream", "grpc_service": "vitrine.v1.Multiplex", "grpc_method": "Exchange", **more}
    return REGISTRY.get_sample_value(f"grpc_server_{what}_total", labels) or 0.0


def ended(code):
    return streams("handled", grpc_code=code)


def handled(code):
    labels = {"grpc_type": "unary", "grpc_service": "vitrine.v1.Indexer", "grpc_method": "Count", "grpc_code": code}
    return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0.0


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_calls_made_together_share_messages_and_each_gets_its_own_answer(serving):
    async with serving() as (_, stub):
        before = streams(), streams("msg_received")
        found = await asyncio.gather(*(stub.Count(count("x" * length)) for length in range(1, 101)))
        assert [answer.points for answer in found] == list(range(1, 101))
        assert streams() - before[0] == 1
        assert streams("msg_received") - before[1] < 50


async def test_every_call_is_its_own_callers(serving):
    async with serving() as (server, stub):
        names = [f"caller-{number}" for number in range(20)]
        await asyncio.gather(*(stub.Count(count(), metadata=(("x-vitrine-client", name),)) for name in names))
        assert sorted(server.servicer.callers) == sorted(names)


async def test_what_is_large_goes_and_comes_by_itself(serving):
    async with serving() as (_, stub):
        before = handled("OK")
        assert (await stub.Count(count("x" * 2 * MAX_CALL_BYTES))).points == 2 * MAX_CALL_BYTES
        assert handled("OK") - before == 1
        large = indexer_pb2.DescribeCollectionRequest(collection=str(2 * MAX_ANSWER_BYTES))
        assert len((await stub.DescribeCollection(large, timeout=20)).collection.spec.name) == 2 * MAX_ANSWER_BYTES
        with pytest.raises(grpc.RpcError) as caught:
            await stub.DescribeCollection(indexer_pb2.DescribeCollectionRequest(collection=str(2**26)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.Count(count())).points == 4


async def test_a_server_that_takes_none_on_a_stream_is_asked_one_by_one(serving):
    async with serving(multiplexed=False) as (_, stub):
        for _ in range(3):
            found = await asyncio.gather(*(stub.Count(count("x" * length), timeout=20) for length in range(1, 21)))
            assert [answer.points for answer in found] == list(range(1, 21))
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("slow"), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_deadline_passes_on_both_sides(serving):
    async with serving() as (_, stub):
        before = handled("DEADLINE_EXCEEDED")
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("slow"), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: handled("DEADLINE_EXCEEDED") - before == 1)


async def test_calls_under_way_are_lost_with_their_server(serving):
    async with serving() as (server, stub):
        asking = [asyncio.ensure_future(stub.Count(count("slow"))) for _ in range(3)]
        await until(lambda: len(server.servicer.callers) == 3)
        await server.server.stop(None)
        for error in await asyncio.gather(*asking, return_exceptions=True):
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_closing_the_channel_cancels_what_is_under_way(serving):
    async with serving() as (server, stub):
        async with MultiplexChannel(grpc.aio.insecure_channel(server.address), [COUNT]) as channel:
            asking = asyncio.ensure_future(indexer_pb2_grpc.IndexerStub(channel).Count(count("slow")))
            await until(lambda: server.servicer.callers)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 10)
        assert (await stub.Count(count())).points == 4


async def test_a_channel_that_is_closed_leaves_in_order(serving):
    async with serving() as (server, _):
        before = ended("OK")
        async with MultiplexChannel(grpc.aio.insecure_channel(server.address), [COUNT]) as channel:
            assert (await indexer_pb2_grpc.IndexerStub(channel).Count(count(), timeout=20)).points == 4
        await until(lambda: ended("OK") > before)


async def test_a_closed_channel_takes_no_calls(serving):
    async with serving() as (server, _):
        channel = MultiplexChannel(grpc.aio.insecure_channel(server.address), [COUNT])
        stub = indexer_pb2_grpc.IndexerStub(channel)
        assert (await stub.Count(count(), timeout=20)).points == 4
        await channel.close()
        with pytest.raises(UsageError, match="closed"):
            await stub.Count(count())


async def test_a_server_that_drains_answers_what_it_has_and_is_left(serving):
    async with serving() as (server, stub):
        asking = asyncio.ensure_future(stub.Count(count("slow")))
        await until(lambda: server.servicer.callers)
        server.draining.set()
        idle = asyncio.ensure_future(server.in_flight.wait_idle())
        await asyncio.sleep(0.1)
        assert not idle.done()
        server.servicer.release.set()
        assert (await asyncio.wait_for(asking, 10)).points == 4
        await asyncio.wait_for(idle, 10)


async def test_nothing_is_lost_when_a_stream_is_renewed(serving):
    async with serving(max_connection_age_seconds=0.05) as (_, stub):
        before = streams()
        async with asyncio.timeout(30):
            while streams() - before < 5:
                found = await asyncio.gather(*(stub.Count(count("x" * length), timeout=20) for length in range(1, 9)))
                assert [answer.points for answer in found] == list(range(1, 9))


async def test_a_client_that_does_not_leave_is_cut_off_and_answered(serving, monkeypatch):
    monkeypatch.setattr("services.runtime.multiplex.service._LEAVE_SECONDS", 0.1)
    async with serving() as (server, _), exchange(server) as stream:
        await stream.write(multiplex_pb2.ExchangeRequest(calls=[call(1, collection="slow")]))
        await until(lambda: server.servicer.callers)
        server.draining.set()
        while not (await asyncio.wait_for(stream.read(), 10)).going_away:
            pass
        await asyncio.sleep(0.3)
        server.servicer.release.set()
        assert (await answers(stream, 1))[1].response
        assert await asyncio.wait_for(stream.read(), 10) is grpc.aio.EOF
        await asyncio.wait_for(server.in_flight.wait_idle(), 10)


async def test_only_so_many_are_taken_at_a_time(serving):
    async with serving(max_streams_per_connection=2) as (server, _), exchange(server) as stream:
        calls = [call(number, collection="slow") for number in range(1, 6)]
        await stream.write(multiplex_pb2.ExchangeRequest(calls=calls))
        await until(lambda: len(server.servicer.callers) == 2)
        await asyncio.sleep(0.1)
        assert len(server.servicer.callers) == 2
        server.servicer.release.set()
        assert set(await answers(stream, 5)) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (call(1, method="/vitrine.v1.Indexer/Nothing"), "UNIMPLEMENTED"),
        (call(1, method="/vitrine.v1.Indexer/Upsert"), "UNIMPLEMENTED"),
        (call(1, method="/vitrine.v1.Multiplex/Exchange"), "UNIMPLEMENTED"),
        (call(1, method="/grpc.health.v1.Health/Check"), "UNIMPLEMENTED"),
        (call(1, method=""), "UNIMPLEMENTED"),
        (call(1, request=b"\xff\xff"), "INVALID_ARGUMENT"),
        (call(1, request=bytes(MAX_CALL_BYTES + 1)), "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_call_is_refused_and_the_others_go_on(serving, wrong, code):
    async with serving() as (server, _), exchange(server) as stream:
        await stream.write(multiplex_pb2.ExchangeRequest(calls=[wrong, call(2)]))
        found = await answers(stream, 2)
        assert found[1].status.code == grpc.StatusCode[code].value[0]
        assert found[2].response


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 1e300])
async def test_odd_deadlines_do_no_harm(serving, seconds):
    async with serving() as (server, _), exchange(server) as stream:
        await stream.write(multiplex_pb2.ExchangeRequest(calls=[call(1, timeout_seconds=seconds)]))
        assert (await answers(stream, 1))[1].response


async def test_a_call_and_its_cancellation_may_come_together(serving):
    async with serving() as (server, _), exchange(server) as stream:
        await stream.write(multiplex_pb2.ExchangeRequest(calls=[call(1, collection="slow")], cancelled=[7]))
        await stream.write(multiplex_pb2.ExchangeRequest(calls=[call(2)], cancelled=[1]))
        await stream.done_writing()
        assert set(await answers(stream, 1)) == {2}
        async with asyncio.timeout(10):
            while await stream.read() is not grpc.aio.EOF:
                pass
        await asyncio.wait_for(server.in_flight.wait_idle(), 10)


async def test_an_id_stands_for_one_call_at_a_time(serving):
    async with serving() as (server, _), exchange(server) as stream:
        calls = [call(1, collection="slow"), call(1)]
        await stream.write(multiplex_pb2.ExchangeRequest(calls=calls))
        server.servicer.release.set()
        assert (await answers(stream, 1))[1].response
        with pytest.raises(grpc.RpcError, match=r"calls\.id: 1 is under way") as caught:
            await asyncio.wait_for(stream.read(), 10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_call_is_asked_who_makes_it(serving):
    token = "a-token-of-twenty-characters"
    reader = Identity("reader", scopes=frozenset({Scope.READ}), collections=("four",))
    guard = Guard(Directory(tokens=[(hashlib.sha256(token.encode()).digest(), reader)]))
    known = (("authorization", f"Bearer {token}"),)
    said = [multiplex_pb2.Header(key=key, value=value) for key, value in known]
    async with serving(guard=guard) as (server, stub):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count())
        assert isinstance(from_rpc_error(caught.value), UnauthenticatedError)
        assert (await stub.Count(count(), metadata=known)).points == 4
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Count(count("other"), metadata=known)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        async with exchange(server, metadata=known) as stream:
            calls = [call(1), call(2, metadata=said), call(3, metadata=said, collection="other")]
            await stream.write(multiplex_pb2.ExchangeRequest(calls=calls))
            found = await answers(stream, 3)
        assert found[1].status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
        assert found[2].response
        assert found[3].status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
        async with exchange(server) as stream:
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_who_may_not_call_is_told_what_and_not_that_of_the_stream(serving):
    token = "a-token-of-twenty-characters"
    writer = Identity("writer", scopes=frozenset({Scope.WRITE}))
    guard = Guard(Directory(tokens=[(hashlib.sha256(token.encode()).digest(), writer)]))
    async with serving(guard=guard) as (_, stub):
        with pytest.raises(grpc.RpcError, match="Indexer/Count needs the scope read") as caught:
            await stub.Count(count(), metadata=(("authorization", f"Bearer {token}"),))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_calls_go_to_every_server_behind_a_name_and_where_the_fewest_are(example_settings):
    async with replicas(example_settings, number=3) as (servers, stub):
        for server in servers:
            server.servicer.callers.clear()
        held = [asyncio.ensure_future(stub.Count(count("slow"), timeout=60)) for _ in range(12)]
        await until(lambda: sum(len(server.servicer.callers) for server in servers) == 12)
        assert [len(server.servicer.callers) for server in servers] == [4, 4, 4]
        servers[0].servicer.release.set()
        await until(lambda: sum(call.done() for call in held) == 4)
        await asyncio.gather(*(stub.Count(count(), timeout=20) for _ in range(4)))
        assert [len(server.servicer.callers) for server in servers] == [8, 4, 4]
        for server in servers:
            server.servicer.release.set()
        assert [answer.points for answer in await asyncio.gather(*held)] == [4] * 12


async def test_a_call_that_lost_its_server_is_made_again_where_it_may(example_settings):
    async with replicas(example_settings, retried=[COUNT]) as (servers, stub):
        held = [asyncio.ensure_future(stub.Count(count("slow"), timeout=60)) for _ in range(8)]
        await until(lambda: sum(server.servicer.callers.count("") for server in servers) >= 8)
        servers[1].servicer.release.set()
        await servers[0].server.stop(None)
        assert [answer.points for answer in await asyncio.gather(*held)] == [4] * 8
        assert (await stub.Count(count(), timeout=20)).points == 4


async def test_a_call_that_may_not_be_made_twice_is_lost_with_its_server(example_settings):
    async with replicas(example_settings) as (servers, stub):
        held = [asyncio.ensure_future(stub.Count(count("slow"), timeout=60)) for _ in range(8)]
        await until(lambda: sum(server.servicer.callers.count("") for server in servers) >= 8)
        servers[1].servicer.release.set()
        await servers[0].server.stop(None)
        found = await asyncio.gather(*held, return_exceptions=True)
        lost = [each for each in found if isinstance(each, grpc.RpcError)]
        assert {each.code() for each in lost} == {grpc.StatusCode.UNAVAILABLE}
        assert 0 < len(lost) < 8


async def test_calls_made_again_are_a_share_of_all(example_settings):
    async with replicas(example_settings, retried=[COUNT]) as (servers, stub):
        for server in servers:
            server.servicer.callers.clear()
        for _ in range(200):
            with pytest.raises(grpc.RpcError, match="a shard is away"):
                await stub.Count(count("away"), timeout=20)
        assert 210 <= sum(len(server.servicer.callers) for server in servers) <= 232


async def test_a_server_can_do_without(example_settings, running):
    settings = example_settings(multiplex=False)
    async with running(settings):
        address = f"127.0.0.1:{settings.port}"
        async with MultiplexChannel(grpc.aio.insecure_channel(address), [COUNT]) as channel:
            before = streams()
            assert (await indexer_pb2_grpc.IndexerStub(channel).Count(count(), timeout=20)).points == 7
        assert streams() == before


async def test_a_closed_channel_leaves_no_call_to_the_garbage_collector(serving):
    """One that is left keeps its connection alive, which goes on trying to reach a server that is gone."""
    async with serving() as (server, _):
        with no_garbage_collection() as alive:
            async with MultiplexChannel(grpc.aio.insecure_channel(server.address), [COUNT]) as channel:
                stub = indexer_pb2_grpc.IndexerStub(channel)
                assert (await stub.Count(count(), timeout=20)).points == 4
                with pytest.raises(grpc.RpcError):
                    await stub.Count(count("slow"), timeout=0.05)
            left = await left_behind(alive, StreamStreamCall)
    assert left == []
