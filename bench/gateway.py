"""`python -m bench.gateway [--json]`: what the gateway adds to a search, and what it takes from the throughput.

The same searches of the sample catalogue (several copies of it, as different products) go through the gateway and,
in turns (one caller: search by search), are made directly: `AsyncVitrine.direct` embeds, asks the shards and merges in
the caller's own process. Once with photos (an image of some 12 kB travels once more, and the model works), once with
vectors (the shards only, so that the gateway's part is largest). The last line is one JSON object; medians over rounds:

    overhead_p50_ms               p50 through the gateway - p50 directly, one caller; the larger of photos and vectors
    throughput_over_direct        searches/s through the gateway / directly, 16 callers; the smaller of the two
    image, vector                 both by kind, and the figures behind them

The load generator runs on the same cores as the services, and directly it does the gateway's work as well.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import uvloop
from rich.console import Console

from bench.end_to_end import ingest, read_images, read_queries
from bench.statistics import median, paired_ratio, percentile_ms
from services.local.stack import ROOT, Ports, Stack
from vitrine import AsyncVitrine
from vitrine.channels import open_channel
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc

COLLECTION = "bench"
COPIES = 4
ROUNDS = 5
WARM_UP = 30
MANY = 16
# Searches in a round: by one caller each way, by many each way.
COUNTS = {"image": (60, 200), "vector": (300, 1200)}
WAYS = ("gateway", "direct")

Query: TypeAlias = dict[str, Any]

console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)


@dataclass
class Runs:
    """What one way of searching showed, by round: p50 in milliseconds of one and of many, searches/s of many."""

    p50_ms: list[float] = field(default_factory=list)
    many_p50_ms: list[float] = field(default_factory=list)
    many_per_s: list[float] = field(default_factory=list)


async def alone(clients: dict[str, AsyncVitrine], queries: Sequence[Query], count: int) -> dict[str, list[float]]:
    """Makes every one of `count` searches both ways, one after the other; returns seconds by way."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number, query in enumerate(itertools.islice(itertools.cycle(queries), count)):
        for way in WAYS if number % 2 else WAYS[::-1]:
            seconds[way].append(await timed(clients[way], query))
    return seconds


async def together(client: AsyncVitrine, queries: Sequence[Query], count: int) -> tuple[list[float], float]:
    """Makes `count` searches from many closed loops; returns their seconds, and searches per second."""
    seconds: list[float] = []
    work = itertools.islice(itertools.cycle(queries), count)

    async def caller() -> None:
        for query in work:
            seconds.append(await timed(client, query))  # noqa: PERF401 - as they come, from all callers

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(MANY)))
    return seconds, count / (time.perf_counter() - started)


async def timed(client: AsyncVitrine, query: Query) -> float:
    """Makes one search; returns its seconds."""
    started = time.perf_counter()
    answer = await client.search(COLLECTION, **query)
    seconds = time.perf_counter() - started
    if answer.degraded:
        raise RuntimeError(f"a search was degraded: {answer.degraded}")
    return seconds


async def read_vectors(embedder: str, photos: Sequence[bytes]) -> list[Query]:
    """Returns the queries by vector that do what those by photo do."""
    async with open_channel(embedder) as channel:
        stub: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(channel)
        request = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=photo) for photo in photos])
        return [{"vector": result.vector} for result in (await stub.Embed(request)).results]


async def check_same(clients: dict[str, AsyncVitrine], query: Query) -> None:
    """Both ways must do the same work before anything is timed."""
    gateway, direct = [await clients[way].search(COLLECTION, **query) for way in WAYS]
    if gateway.products != direct.products or gateway.degraded:
        raise RuntimeError("the gateway and the direct search do not answer alike")


async def measure(catalogue: Path, shards: int, rounds: int) -> dict[str, object]:
    """Runs the whole benchmark on a stack of its own."""
    images = [
        (f"{product_id}-{copy}", image_id, data)
        for copy in range(COPIES)
        for product_id, image_id, data in read_images(catalogue)
    ]
    photos = read_queries(catalogue)
    runs = {kind: {way: Runs() for way in WAYS} for kind in COUNTS}
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as data:
        # Its pictures come again and again, which those of a real day do not: without the cache of vectors.
        # And nothing is refused where the machine is busy with others.
        environment = {
            "VITRINE_EMBEDDER_CACHE_MEMORY_BYTES": "0",
            "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_SECONDS": "60",
        }
        stack = Stack(Path(data), shards=shards, ports=Ports.free(shards), environment=environment)
        async with stack.supervisor:
            await stack.start()
            await ingest(stack.embedder, COLLECTION, images)
            queries: dict[str, list[Query]] = {
                "image": [{"image": photo} for photo in photos],
                "vector": await read_vectors(stack.embedder, photos[:32]),
            }
            async with (
                AsyncVitrine(stack.gateway) as gateway,
                AsyncVitrine.direct(stack.embedder, stack.indexers) as direct,
            ):
                clients = {"gateway": gateway, "direct": direct}
                for kind in queries:
                    await check_same(clients, queries[kind][0])
                    await alone(clients, queries[kind], WARM_UP)
                for round_ in range(rounds):
                    for kind, (few, many) in COUNTS.items():
                        for way, seconds in (await alone(clients, queries[kind], few)).items():
                            runs[kind][way].p50_ms.append(percentile_ms(seconds, 50))
                        for way in WAYS if round_ % 2 else WAYS[::-1]:
                            seconds, rate = await together(clients[way], queries[kind], many)
                            runs[kind][way].many_p50_ms.append(percentile_ms(seconds, 50))
                            runs[kind][way].many_per_s.append(rate)
                    console.print(f"round {round_ + 1} of {rounds}", highlight=False)
    return summarise(runs, images=len(images), shards=shards, rounds=rounds)


def summarise(runs: dict[str, dict[str, Runs]], *, images: int, shards: int, rounds: int) -> dict[str, object]:
    """Returns medians over the rounds, under the documented keys."""
    kinds: dict[str, dict[str, float | None]] = {}
    for kind, by_way in runs.items():
        gateway, direct = (by_way[way] for way in WAYS)
        kinds[kind] = {
            "overhead_p50_ms": median(
                [ours - theirs for ours, theirs in zip(gateway.p50_ms, direct.p50_ms, strict=True)]
            ),
            "throughput_over_direct": paired_ratio(gateway.many_per_s, direct.many_per_s),
        }
        for way in WAYS:
            kinds[kind][f"{way}_p50_ms"] = median(by_way[way].p50_ms)
            kinds[kind][f"{way}_c16_per_s"] = median(by_way[way].many_per_s, 1)
            kinds[kind][f"{way}_c16_p50_ms"] = median(by_way[way].many_p50_ms)
        told = ", ".join(f"{name} {value}" for name, value in kinds[kind].items())
        console.print(f"{kind:>6}: {told}", highlight=False)
    return {
        "benchmark": "gateway",
        "cores": os.cpu_count(),
        "images": images,
        "shards": shards,
        "rounds": rounds,
        "overhead_p50_ms": max(kind["overhead_p50_ms"] or 0.0 for kind in kinds.values()),
        "throughput_over_direct": min(kind["throughput_over_direct"] or 0.0 for kind in kinds.values()),
        **kinds,
    }


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--catalogue", type=Path, default=ROOT / "examples" / "catalogue")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    arguments = parser.parse_args()
    console.quiet = arguments.json
    # The gateway's own event loop, so that the direct way is not slowed down by another.
    print(json.dumps(uvloop.run(measure(arguments.catalogue, arguments.shards, arguments.rounds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
