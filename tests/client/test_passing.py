"""What a call passes on to further calls: name, request id; nothing where there is nothing, nothing said twice."""

from contextlib import asynccontextmanager

import grpc

from vitrine.callers import CLIENT_HEADER, set_caller
from vitrine.channels import open_channel
from vitrine.passing import REQUEST_ID, current_request_id
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Listener(indexer_pb2_grpc.IndexerServicer):
    """An indexer that only notes what comes with a call, of every kind of method."""

    def __init__(self):
        self.heard = []

    def _note(self, context):
        metadata = [(key, value) for key, value in context.invocation_metadata() if key.startswith(("x-", "trace"))]
        self.heard.append(sorted(metadata))

    async def Count(self, request, context):
        self._note(context)
        return indexer_pb2.CountResponse()

    async def Scan(self, request, context):
        self._note(context)
        yield indexer_pb2.ScanResponse()

    async def Upsert(self, request_iterator, context):
        self._note(context)
        async for _ in request_iterator:
            yield indexer_pb2.UpsertResponse()


@asynccontextmanager
async def listening():
    server, listener = grpc.aio.server(), Listener()
    indexer_pb2_grpc.add_IndexerServicer_to_server(listener, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield listener, indexer_pb2_grpc.IndexerStub(channel)
    await server.stop(None)


async def test_calls_of_every_kind_carry_name_and_request_id():
    set_caller("app")
    current_request_id.set("req-42")
    async with listening() as (listener, stub):
        await stub.Count(indexer_pb2.CountRequest())
        assert [_ async for _ in stub.Scan(indexer_pb2.ScanRequest())]
        call = stub.Upsert()
        await call.write(indexer_pb2.UpsertRequest())
        await call.done_writing()
        assert [_ async for _ in call]
    assert listener.heard == [[(REQUEST_ID, "req-42"), (CLIENT_HEADER, "app")]] * 3


async def test_nothing_is_added_where_nothing_is_known_and_what_is_said_stays():
    async with listening() as (listener, stub):
        await stub.Count(indexer_pb2.CountRequest())
        set_caller("app")
        await stub.Count(indexer_pb2.CountRequest(), metadata=((CLIENT_HEADER, "somebody else"), ("x-more", "1")))
    assert listener.heard == [[], [("x-more", "1"), (CLIENT_HEADER, "somebody else")]]
