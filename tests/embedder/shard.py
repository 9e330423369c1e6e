"""An index shard that fails when the test says so; the real one is used wherever nothing has to fail."""

import asyncio

import grpc

from services.runtime.interceptor import InFlight, ServiceInterceptor
from vitrine.errors import NotFoundError
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class FailingShard(indexer_pb2_grpc.IndexerServicer):
    """Keeps points in memory; `script` decides, stream by stream, how many acks it gives and how it ends then."""

    def __init__(self, *script):
        self.script = list(script)
        self.spec = None
        self.received = []  # every item of every stream, in order
        self.acked = []
        self.may_ack = asyncio.Event()
        self.may_ack.set()
        self.streams = 0
        self.port = 0
        self._server = None

    async def start(self):
        self._server = grpc.aio.server(
            interceptors=[ServiceInterceptor(InFlight(100), 30)], options=[("grpc.so_reuseport", 0)]
        )
        indexer_pb2_grpc.add_IndexerServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def stop(self):
        await self._server.stop(0)

    async def __aenter__(self):
        return await self.start()

    async def __aexit__(self, *_):
        await self.stop()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    async def CreateCollection(self, request, context):
        self.spec = request.spec
        return indexer_pb2.CreateCollectionResponse(created=True)

    async def DescribeCollection(self, request, context):
        if self.spec is None or self.spec.name != request.collection:
            raise NotFoundError(f"collection {request.collection} does not exist")
        return indexer_pb2.DescribeCollectionResponse(collection=indexer_pb2.CollectionInfo(spec=self.spec))

    async def Upsert(self, request_iterator, context):
        self.streams += 1
        acks, ending = self.script.pop(0) if self.script else (None, None)
        given = 0
        async for request in request_iterator:
            for item in request.items:
                self.received.append(item)
                if given == acks:
                    if ending is not None:
                        await context.abort(ending, "as the test wants it")
                    return
                await self.may_ack.wait()
                given += 1
                self.acked.append(item)
                yield indexer_pb2.UpsertResponse(
                    results=[indexer_pb2.UpsertResult(sequence=item.sequence, generation=len(self.acked))]
                )
