"""How long is a shard away that was killed while it was written to?"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.embedder.child import ChildError
from bench.index import wire
from bench.index.datasets import Dataset
from bench.index.setup import EF, Bench
from bench.index.shard import PER_REQUEST, Shard, writing_job
from vitrine.v1 import indexer_pb2

_WRITE_SECONDS = 2.0


async def measure(bench: Bench, data: Dataset, shard: Shard) -> dict[str, Any]:
    """Kills the shard with SIGKILL amid writes and starts it again, `rounds` times; restarts it in order once too.

    Returns:
        `killed_to_serving_s` of each round (the service says SERVING), the same in order as `stopped_to_serving_s`,
        and `points` and `first_search_ms` after the last.

    Raises:
        RuntimeError: Points are lost.
    """
    kills: list[float] = []
    spare = len(data.bucket) - data.count
    per_s = min(bench.pace.writes_per_s, spare / (2 * _WRITE_SECONDS))  # so that the kill comes amid
    for _ in range(bench.pace.rounds):
        before = await shard.count()
        writing = asyncio.create_task(
            bench.writer.do(
                mode="upsert",
                address=shard.address,
                first=data.count,
                count=spare,
                per_request=PER_REQUEST,
                per_s=per_s,
                **writing_job(data, bench.scratch),
            )
        )
        await asyncio.sleep(_WRITE_SECONDS)
        kills.append(round(await shard.restart(kill=True), 2))
        try:
            await writing
        except ChildError as error:
            if "AioRpcError" not in str(error):  # its stream is meant to die with the shard
                raise
        else:
            raise RuntimeError("the writer ended before the shard was killed")
        if (after := await shard.count()) < before:
            raise RuntimeError(f"{before} points before the kill, {after} after it")
        bench.say(f"recovery: killed amid writes, serving {kills[-1]} s later with {after} points")
    stopped = round(await shard.restart(), 2)
    (request,) = wire.search_requests(data.queries[:1], ef=EF)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await shard.stub.Search(indexer_pb2.IndexerSearchRequest.FromString(request))
    return {
        "killed_to_serving_s": kills,
        "stopped_to_serving_s": stopped,
        "points": await shard.count(),
        "first_search_ms": round(1000 * (loop.time() - began), 2),
    }
