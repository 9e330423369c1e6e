"""`python -m bench.end_to_end [--json]`: the whole path through the real services on this machine.

Ingests the sample catalogue (several copies of it, as different products), then searches with its query photos at 1
and at 16 callers, in rounds; prints medians over the rounds. The last line is one JSON object:

    ingest_images_per_s           accepted, embedded, durable and searchable
    search_p50_ms, search_p99_ms  one caller; the photo travels to the gateway, ranked products travel back
    search_c16_p50_ms, search_c16_p99_ms, search_c16_per_s
    share                         of a search at one caller: decode, model, index, merge, rest (gRPC, waiting)

The load generator runs on the same cores as the services.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.statistics import median, percentile_ms
from services.local.stack import ROOT, Ports, Stack
from vitrine import AsyncVitrine, SearchAnswer
from vitrine.channels import open_channel
from vitrine.errors import from_status
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

STAGES = ("decode", "model", "index", "merge")
COPIES = 4
ROUNDS = 3
QUERIES = {1: 150, 16: 480}
WARM_UP = 20

console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)


@dataclass
class Load:
    """What one closed-loop run saw: latencies in seconds, wall time, the answers' own stage times."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: float, answer: SearchAnswer) -> None:
        """Counts one answered search."""
        self.latencies.append(seconds)
        for name in STAGES:
            self.stages[name] = self.stages.get(name, 0.0) + answer.timings.get(name, 0.0)


def read_images(catalogue: Path) -> list[tuple[str, str, bytes]]:
    """Returns (product id, image id, file content) of every image of a catalogue."""
    with (catalogue / "products.csv").open(newline="") as source:
        return [
            (row["product_id"], Path(image).stem, (catalogue / image).read_bytes())
            for row in csv.DictReader(source)
            for image in row["images"].split(";")
        ]


def read_queries(catalogue: Path) -> list[bytes]:
    """Returns the query photos of a catalogue."""
    with (catalogue / "queries.csv").open(newline="") as source:
        return [(catalogue / row["image"]).read_bytes() for row in csv.DictReader(source)]


async def ingest(address: str, collection: str, images: list[tuple[str, str, bytes]]) -> float:
    """Streams images into a new collection; returns seconds from the first send to the last ack."""

    async def requests() -> AsyncIterator[embedder_pb2.IngestRequest]:
        start = embedder_pb2.IngestStart(collection=collection, create_if_missing=True)
        yield embedder_pb2.IngestRequest(start=start)
        for sequence, (product_id, image_id, data) in enumerate(images):
            item = embedder_pb2.IngestItem(
                sequence=sequence,
                key=common_pb2.PointKey(product_id=product_id, image_id=image_id),
                image=embedder_pb2.ImageInput(data=data),
            )
            yield embedder_pb2.IngestRequest(item=item)

    acknowledged = 0
    async with open_channel(address) as channel:
        stub: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(channel)
        started = time.perf_counter()
        async for ack in stub.Ingest(requests()):
            if error := from_status(ack.status):
                raise error
            acknowledged += 1
        seconds = time.perf_counter() - started
    if acknowledged != len(images):
        raise RuntimeError(f"{acknowledged} of {len(images)} images were acknowledged")
    return seconds


async def search(client: AsyncVitrine, collection: str, photos: list[bytes], callers: int, count: int) -> Load:
    """Runs `count` searches from `callers` closed loops."""
    load = Load()
    work = itertools.islice(itertools.cycle(photos), count)

    async def caller() -> None:
        for photo in work:
            started = time.perf_counter()
            answer = await client.search(collection, image=photo)
            load.add(time.perf_counter() - started, answer)
            if answer.degraded:
                raise RuntimeError(f"a search was degraded: {answer.degraded}")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    load.seconds = time.perf_counter() - started
    return load


async def measure(catalogue: Path, shards: int) -> dict[str, object]:
    """Runs the whole benchmark on a stack of its own."""
    images = [
        (f"{product_id}-{copy}", image_id, data)
        for copy in range(COPIES)
        for product_id, image_id, data in read_images(catalogue)
    ]
    photos = read_queries(catalogue)
    rates: list[float] = []
    loads: dict[int, list[Load]] = {callers: [] for callers in QUERIES}
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as data:
        # Its pictures come again and again, which those of a real day do not: without the cache of vectors.
        environment = {"VITRINE_EMBEDDER_CACHE_MEMORY_BYTES": "0"}
        stack = Stack(Path(data), shards=shards, ports=Ports.free(shards), environment=environment)
        async with stack.supervisor:
            await stack.start()
            async with AsyncVitrine(stack.gateway) as client:
                for round_ in range(ROUNDS):
                    collection = f"bench-{round_}"
                    rates.append(len(images) / await ingest(stack.embedder, collection, images))
                    console.print(f"round {round_ + 1} of {ROUNDS}: ingest {rates[-1]:.0f} images/s", highlight=False)
                    await search(client, collection, photos, 1, WARM_UP)
                    for callers, count in QUERIES.items():
                        load = await search(client, collection, photos, callers, count)
                        loads[callers].append(load)
                        console.print(
                            f"  search, {callers:>2} callers: p50 {percentile_ms(load.latencies, 50)} ms, "
                            f"p99 {percentile_ms(load.latencies, 99)} ms, {count / load.seconds:.0f}/s",
                            highlight=False,
                        )
    return summarise(rates, loads, images=len(images), shards=shards)


def summarise(rates: list[float], loads: dict[int, list[Load]], *, images: int, shards: int) -> dict[str, object]:
    """Returns medians over the rounds, under the documented keys."""
    result: dict[str, object] = {
        "benchmark": "end_to_end",
        "cores": os.cpu_count(),
        "images": images,
        "shards": shards,
        "rounds": len(rates),
        "ingest_images_per_s": median(rates, 1),
    }
    for callers, runs in loads.items():
        prefix = "search" if callers == 1 else f"search_c{callers}"
        result[f"{prefix}_p50_ms"] = median([percentile_ms(run.latencies, 50) for run in runs])
        result[f"{prefix}_p99_ms"] = median([percentile_ms(run.latencies, 99) for run in runs])
        result[f"{prefix}_per_s"] = median([len(run.latencies) / run.seconds for run in runs], 1)
    shares = {name: median([run.stages[name] / sum(run.latencies) for run in loads[1]], 3) for name in STAGES}
    result["share"] = {**shares, "rest": round(1 - sum(shares.values()), 3)}
    return result


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m bench.end_to_end", description=__doc__.splitlines()[0])
    parser.add_argument("--catalogue", type=Path, default=ROOT / "examples" / "catalogue")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    arguments = parser.parse_args()
    console.quiet = arguments.json
    print(json.dumps(asyncio.run(measure(arguments.catalogue, arguments.shards))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
