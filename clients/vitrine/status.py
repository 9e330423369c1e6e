"""Probes every component of a deployment and sums its collections over the shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from vitrine.errors import VitrineError
from vitrine.shards import ShardSet, call_within
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc, indexer_pb2, search_pb2

Answer = TypeVar("Answer")


async def gather_status(
    embedder: embedder_pb2_grpc.EmbedderAsyncStub, embedder_address: str, shards: ShardSet, timeout: float
) -> search_pb2.GetStatusResponse:
    """Asks the embedder for its model and each shard for its collections, all at once; failures are reported."""
    (model_status, model), shard_probes = await asyncio.gather(
        _probe(
            "embedder",
            embedder_address,
            embedder.GetModel(embedder_pb2.GetModelRequest(), timeout=timeout),
            timeout,
        ),
        asyncio.gather(
            *(
                _probe(
                    f"shard {index}",
                    address,
                    stub.ListCollections(indexer_pb2.ListCollectionsRequest(), timeout=timeout),
                    timeout,
                )
                for index, (address, stub) in enumerate(zip(shards.addresses, shards.stubs, strict=True))
            )
        ),
    )
    response = search_pb2.GetStatusResponse(
        components=[model_status, *(status for status, _ in shard_probes)],
        collections=_sum_collections([answer for _, answer in shard_probes], len(shards)),
    )
    if model is not None:
        response.model = model.name
        response.fingerprint = model.fingerprint
    return response


async def _probe(
    name: str, address: str, call: Awaitable[Answer], timeout: float
) -> tuple[search_pb2.ComponentStatus, Answer | None]:
    status = search_pb2.ComponentStatus(component=name, address=address)
    started = time.perf_counter()
    answer: Answer | None = None
    try:
        answer = await call_within(call, timeout)
        status.healthy = True
    except VitrineError as error:
        status.detail = error.message
    status.seconds = time.perf_counter() - started
    return status, answer


def _sum_collections(
    answers: list[indexer_pb2.ListCollectionsResponse | None], shards_total: int
) -> list[search_pb2.CollectionStatus]:
    sums: dict[str, search_pb2.CollectionStatus] = {}
    for answer in answers:
        for info in answer.collections if answer is not None else ():
            total = sums.setdefault(
                info.spec.name,
                search_pb2.CollectionStatus(
                    name=info.spec.name,
                    dim=info.spec.vector.dim,
                    fingerprint=info.spec.vector.fingerprint,
                    shards_total=shards_total,
                ),
            )
            total.points += info.points
            total.products += info.products
            total.segments += info.segments
            total.fresh_points += info.fresh_points
            total.disk_bytes += info.disk_bytes
            total.shards_answered += 1
    return [sums[name] for name in sorted(sums)]
