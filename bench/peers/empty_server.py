"""`python -m bench.peers.empty_server`: answers every search with the same bytes. What gRPC itself takes, in Python.

As our services: grpc.aio on uvloop, nothing around a call. Listens at the port that VITRINE_EMPTY_PORT names.
"""

from __future__ import annotations

import os

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2

from bench.index import wire
from vitrine.v1 import indexer_pb2

PORT = "VITRINE_EMPTY_PORT"
_HITS = 10


def _answer() -> bytes:
    """Returns what every search is answered: ten hits."""
    hits = [
        indexer_pb2.ProductHit(key=wire.key(row), score=-float(row), version=1_700_000_000_000) for row in range(_HITS)
    ]
    return indexer_pb2.IndexerSearchResponse(
        results=[indexer_pb2.VectorQueryResult(hits=hits)], collection=wire.COLLECTION, fingerprint=wire.FINGERPRINT
    ).SerializeToString()


async def _serve() -> None:
    answer = _answer()

    async def search(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    check = grpc.unary_unary_rpc_method_handler(
        health.aio.HealthServicer().Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    _, service, method = wire.SEARCH.split("/")
    handlers = {service: {method: grpc.unary_unary_rpc_method_handler(search)}, health.SERVICE_NAME: {"Check": check}}
    server = grpc.aio.server()
    # Generic handlers alone: registered methods make every call dearer (services/runtime/server.py).
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items())
    )
    server.add_insecure_port(f"127.0.0.1:{os.environ[PORT]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
