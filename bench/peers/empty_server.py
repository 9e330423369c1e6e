"""`python -m bench.peers.empty_server`: answers every search with the same bytes. What gRPC itself takes, in Python.

As our services: grpc.aio on uvloop, nothing around a call. Listens at the port that VITRINE_EMPTY_PORT names.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2

from bench.index import wire
from vitrine.v1 import indexer_pb2

PORT = "VITRINE_EMPTY_PORT"
_HITS = 10


class _Searches(grpc.GenericRpcHandler):
    """The one method."""

    def __init__(self) -> None:
        hits = [
            indexer_pb2.ProductHit(key=wire.key(row), score=-float(row), version=1_700_000_000_000)
            for row in range(_HITS)
        ]
        answer = indexer_pb2.IndexerSearchResponse(
            results=[indexer_pb2.VectorQueryResult(hits=hits)], collection=wire.COLLECTION, fingerprint=wire.FINGERPRINT
        ).SerializeToString()

        async def search(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return answer

        behaviour: Callable[..., Awaitable[bytes]] = search
        self._handler = grpc.unary_unary_rpc_method_handler(behaviour)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the handler of a search."""
        return self._handler if handler_call_details.method == wire.SEARCH else None


async def _serve() -> None:
    # Without registered methods, which make every call dearer (services/runtime/server.py).
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Searches(),))
    checker = health.aio.HealthServicer()
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(
            checker.Check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers),))
    server.add_insecure_port(f"127.0.0.1:{os.environ[PORT]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
