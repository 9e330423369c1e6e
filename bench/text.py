"""`python -m bench.text [--json] [--products N]`: what the text index costs, and how fast words are found.

Two shards, one with and one without text index, take the same points (three images a product, ten words of a made
vocabulary, 256 dimensions) in turns, as fast as they can, while one caller searches by vector. Then words are searched.
The last line is one JSON object; medians over rounds of interleaved pairs:

    upsert_over_without           points/s written with a text index / without one
    search_p99_over_without       p99 of the searches by vector made meanwhile, likewise
    upsert_per_s, without_per_s   the points/s behind it
    shard_cpu_over_without        CPU time that the shard itself took for the writes, likewise
    process_cpu_us                CPU time of the text process for a point, beside that
    shard_cpu_us                  CPU time of the shard for a point, without a text index
    catch_up_s                    from the last ack to a text search that sees it, longest
    text_p50_ms, text_p99_ms      searches of two words, one caller, nothing written meanwhile
    fresh_p50_ms, fresh_p99_ms    from the ack of one product to its being found by its words

The load generator runs on the same cores as the shards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from bench.statistics import median, paired_ratio, percentile_ms
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from vitrine import vectors
from vitrine.attributes import map_to_proto
from vitrine.channels import open_channel
from vitrine.v1 import common_pb2, indexer_pb2, indexer_pb2_grpc

COLLECTION = "bench"
FINGERPRINT = "b" * 64
DIM = 256
IMAGES = 3
VOCABULARY = 5_000
WORDS = 10
PER_REQUEST = 64
ROUNDS = 5
SEARCHES = 300
FRESH = 50

console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)


@dataclass
class Runs:
    """What one of the shards showed: points per second and p99 in milliseconds by round, seconds to catch up."""

    per_s: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    catch_up: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """Of the shard, for a point."""


class Words:
    """Titles whose words are as unevenly common as those of a language (Zipf)."""

    def __init__(self) -> None:
        self._rng = random.Random(1)
        self._words = ["".join(self._rng.choices("bcdfghklmnprst", k=6)) for _ in range(VOCABULARY)]
        self._weights = [1 / (rank + 10) for rank in range(VOCABULARY)]

    def draw(self, count: int) -> str:
        """Returns so many words."""
        return " ".join(self._rng.choices(self._words, self._weights, k=count))


def product(product_id: str, title: str, rows: np.ndarray) -> list[indexer_pb2.Point]:
    """Returns the points of a product; `rows` is float32 of shape [images, DIM]."""
    return [
        indexer_pb2.Point(
            key=common_pb2.PointKey(product_id=product_id, image_id=str(image)),
            vector=vectors.to_proto(row, FINGERPRINT),
            attributes=map_to_proto({"title": title, "price": 9.5, "in_stock": True}),
        )
        for image, row in enumerate(rows)
    ]


async def upsert(stub: indexer_pb2_grpc.IndexerAsyncStub, points: list[indexer_pb2.Point]) -> int:
    """Writes points; returns the generation that has them all."""

    async def requests() -> AsyncIterator[indexer_pb2.UpsertRequest]:
        for start in range(0, len(points), PER_REQUEST):
            items = [indexer_pb2.UpsertItem(point=each) for each in points[start : start + PER_REQUEST]]
            yield indexer_pb2.UpsertRequest(collection=COLLECTION, items=items)

    generation = 0
    async for response in stub.Upsert(requests()):
        for result in response.results:
            if result.status.code:
                raise RuntimeError(f"a point was not stored: {result}")
            generation = max(generation, result.generation)
    return generation


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the CPU time that a process has taken itself."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def write(
    stub: indexer_pb2_grpc.IndexerAsyncStub,
    shard: psutil.Process,
    points: list[indexer_pb2.Point],
    runs: Runs,
    *,
    text: bool,
) -> None:
    """Writes points as fast as they are taken, while one caller searches by vector."""
    request = indexer_pb2.IndexerSearchRequest(
        collection=COLLECTION, queries=[indexer_pb2.VectorQuery(vector=points[0].vector, k=10)]
    )
    latencies: list[float] = []

    async def search() -> None:
        while True:
            started = time.perf_counter()
            await stub.Search(request)
            latencies.append(time.perf_counter() - started)

    searching = asyncio.create_task(search())
    started, cpu = time.perf_counter(), cpu_seconds(shard)
    await upsert(stub, points)
    ended = time.perf_counter()
    runs.cpu_us.append((cpu_seconds(shard) - cpu) / len(points) * 1e6)
    searching.cancel()
    await asyncio.gather(searching, return_exceptions=True)
    runs.per_s.append(len(points) / (ended - started))
    runs.p99_ms.append(percentile_ms(latencies, 99))
    if text:
        await stub.SearchText(indexer_pb2.SearchTextRequest(collection=COLLECTION, text="nothing", k=1), timeout=300)
        runs.catch_up.append(time.perf_counter() - ended)


async def text_seconds(stub: indexer_pb2_grpc.IndexerAsyncStub, words: Words) -> list[float]:
    """Times searches of two words."""
    latencies = []
    for _ in range(SEARCHES):
        request = indexer_pb2.SearchTextRequest(collection=COLLECTION, text=words.draw(2), k=10)
        started = time.perf_counter()
        await stub.SearchText(request)
        latencies.append(time.perf_counter() - started)
    return latencies


async def fresh_seconds(stub: indexer_pb2_grpc.IndexerAsyncStub, rng: np.random.Generator) -> list[float]:
    """Times how long a product takes from its ack until it is found by its words."""
    latencies = []
    for number in range(FRESH):
        await upsert(stub, product("fresh", f"fresh{number}", rng.normal(size=(1, DIM)).astype(np.float32)))
        started = time.perf_counter()
        request = indexer_pb2.SearchTextRequest(collection=COLLECTION, text=f"fresh{number}", k=1)
        answer = await stub.SearchText(request)
        latencies.append(time.perf_counter() - started)
        if [hit.key.product_id for hit in answer.hits] != ["fresh"]:
            raise RuntimeError(f"what was acknowledged is not found: {answer}")
    return latencies


async def measure(products: int, folder: Path) -> dict[str, float | int | None]:
    """Runs everything; returns the figures."""
    ports = Ports.free(2)
    supervisor = Supervisor(ROOT, folder / "logs")
    specs = [
        ProcessSpec(
            f"indexer-{name}",
            "services.indexer",
            f"127.0.0.1:{port}",
            {
                "VITRINE_INDEXER_PORT": str(port),
                "VITRINE_INDEXER_METRICS_PORT": str(ports.metrics[port]),
                "VITRINE_INDEXER_DATA_DIR": str(folder / name),
                "VITRINE_INDEXER_TEXT_INDEX": "true" if name == "with" else "false",
            },
        )
        for name, port in zip(("with", "without"), ports.indexers, strict=True)
    ]
    words, rng = Words(), np.random.default_rng(1)
    await supervisor.start(*specs)
    try:
        async with open_channel(specs[0].address) as one, open_channel(specs[1].address) as other:
            stubs: list[indexer_pb2_grpc.IndexerAsyncStub] = [
                indexer_pb2_grpc.IndexerStub(channel) for channel in (one, other)
            ]
            spec = indexer_pb2.CollectionSpec(
                name=COLLECTION,
                vector=indexer_pb2.VectorSpec(dim=DIM, metric=indexer_pb2.METRIC_COSINE, fingerprint=FINGERPRINT),
                shard_count=1,
            )
            for stub in stubs:
                await stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=spec))
            runs = [Runs(), Runs()]
            shards = [psutil.Process(supervisor.processes[each.name].process.pid) for each in specs]
            for number in range(ROUNDS):
                start, end = products * number // ROUNDS, products * (number + 1) // ROUNDS
                points = [
                    each
                    for name in range(start, end)
                    for each in product(
                        f"p{name}", words.draw(WORDS), rng.normal(size=(IMAGES, DIM)).astype(np.float32)
                    )
                ]
                for side in (0, 1) if number % 2 else (1, 0):
                    await write(stubs[side], shards[side], points, runs[side], text=side == 0)
                console.print(
                    f"round {number + 1}: {runs[0].per_s[-1]:,.0f} points/s with a text index, "
                    f"{runs[1].per_s[-1]:,.0f} without; caught up after {runs[0].catch_up[-1]:.2f} s"
                )
            process_cpu = sum(
                cpu_seconds(child)
                for child in shards[0].children()
                if "services.indexer.text.process" in child.cmdline()
            )
            found = await text_seconds(stubs[0], words)
            fresh = await fresh_seconds(stubs[0], rng)
    finally:
        await supervisor.stop()
    return {
        "products": products,
        "points": IMAGES * products,
        "upsert_over_without": paired_ratio(runs[0].per_s, runs[1].per_s),
        "search_p99_over_without": paired_ratio(runs[0].p99_ms, runs[1].p99_ms),
        "upsert_per_s": median(runs[0].per_s, 0),
        "without_per_s": median(runs[1].per_s, 0),
        "shard_cpu_over_without": paired_ratio(runs[0].cpu_us, runs[1].cpu_us),
        "process_cpu_us": round(process_cpu / (IMAGES * products) * 1e6, 1),
        "shard_cpu_us": median(runs[1].cpu_us, 1),
        "catch_up_s": round(max(runs[0].catch_up), 2),
        "text_p50_ms": percentile_ms(found, 50),
        "text_p99_ms": percentile_ms(found, 99),
        "fresh_p50_ms": percentile_ms(fresh, 50),
        "fresh_p99_ms": percentile_ms(fresh, 99),
    }


def main() -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.text", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    parser.add_argument("--products", type=int, default=25_000, help="products, of three images each")
    arguments = parser.parse_args()
    console.quiet = arguments.json
    with tempfile.TemporaryDirectory(prefix="vitrine-text-") as folder:
        result = asyncio.run(measure(arguments.products, Path(folder)))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
