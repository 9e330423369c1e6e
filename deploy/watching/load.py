"""A small load of everything a Vitrine does, so that every figure moves: for tests and for pictures, no benchmark."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc

from services.local.stack import ROOT, Stack
from vitrine import AsyncVitrine
from vitrine.channels import open_channel
from vitrine.errors import VitrineError
from vitrine.v1 import common_pb2, indexer_pb2, indexer_pb2_grpc

CATALOGUE = ROOT / "examples" / "catalogue"
COLLECTION = "shop"
_SOLD_OUT = "S0001"


class Load:
    """Searches, writes and mistakes against a stack that runs; `async with` ingests the sample catalogue and begins."""

    def __init__(self, stack: Stack, *, shoppers: int = 2, pause: float = 0.05) -> None:
        """`shoppers` search one after the other each, with a pause of so many seconds."""
        self._stack = stack
        self._shoppers = shoppers
        self._pause = pause
        self._photos = [path.read_bytes() for path in sorted((CATALOGUE / "queries").glob("*.jpg"))]
        self._leaving = AsyncExitStack()

    async def __aenter__(self) -> Load:
        await self.vitrine("ingest", CATALOGUE / "products.csv", "--collection", COLLECTION)
        client = await self._leaving.enter_async_context(AsyncVitrine(self._stack.gateway, caller="load"))
        channel = await self._leaving.enter_async_context(open_channel(self._stack.indexers[0]))
        indexer: indexer_pb2_grpc.IndexerAsyncStub = indexer_pb2_grpc.IndexerStub(channel)
        loops = [self._shop(client, seed) for seed in range(self._shoppers)]
        loops += [self._repeat(3.0, self._write), self._repeat(2.0, lambda: self._delete(indexer))]
        loops += [self._repeat(1.0, self._browse), self._repeat(5.0, lambda: self._keep_house(indexer))]
        tasks = [asyncio.create_task(loop) for loop in loops]
        self._leaving.push_async_callback(_cancel, tasks)
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self._leaving.aclose()

    async def vitrine(self, *arguments: object) -> None:
        """Runs the command line against the stack.

        Raises:
            RuntimeError: It failed; with what it said.
        """
        where = ("--gateway", self._stack.gateway, "--embedder", self._stack.embedder)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "vitrine.cli", *where, "--indexers", ",".join(self._stack.indexers), *map(str, arguments)),
            env={**os.environ, "PYTHONPATH": str(ROOT / "clients")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise RuntimeError(said.decode())

    async def _shop(self, client: AsyncVitrine, seed: int) -> None:
        chance = random.Random(seed)
        for number in itertools.count():
            photo = chance.choice(self._photos) + number.to_bytes(4) + seed.to_bytes(4)  # new to every cache
            with suppress(VitrineError):  # a shard may be away on purpose
                match number % 8:
                    case 0:
                        await client.search(COLLECTION, image=photo, filter="price < 200")
                    case 1:
                        await client.search(COLLECTION, image=photo, filter='category = "Kitchen"')
                    case 2:
                        await client.search(COLLECTION, product_id=f"S{chance.randrange(2, 100):04}")
                    case 3:
                        await client.search(COLLECTION, text="armchair office")
                    case 4 if not number % 3:
                        await client.search("nowhere", image=photo)
                    case 5 if not number % 3:
                        await client.search(COLLECTION, image=b"not a picture")
                    case _:
                        await client.search(COLLECTION, image=photo, k=20)
            await asyncio.sleep(self._pause)

    async def _write(self) -> None:
        """Ingests new pictures of some products, and one that is none; changes prices."""
        with tempfile.TemporaryDirectory() as folder:
            chosen = random.sample(range(2, 100), 15)
            items, prices = Path(folder) / "items.csv", Path(folder) / "prices.csv"
            for number in chosen:
                picture = (CATALOGUE / "gallery" / f"S{number:04}_0.jpg").read_bytes()
                (Path(folder) / f"{number}.jpg").write_bytes(picture + os.urandom(8))
            rows = [f"S{number:04},{number}.jpg,{number}.25" for number in chosen]
            items.write_text("\n".join(("product_id,images,price", *rows, "BROKEN,items.csv,1")))
            prices.write_text("\n".join(("product_id,price", *(f"S{number:04},{number}.5" for number in chosen))))
            version = time.time_ns() // 1_000_000
            with suppress(RuntimeError):  # the one that is no picture: the command says so
                await self.vitrine("ingest", items, "--collection", COLLECTION, "--version", version)
            with suppress(RuntimeError):  # a shard is away
                await self.vitrine("attributes", COLLECTION, prices, "--version", version + 1)

    async def _delete(self, indexer: indexer_pb2_grpc.IndexerAsyncStub) -> None:
        key = common_pb2.PointKey(product_id=_SOLD_OUT)
        await indexer.Delete(indexer_pb2.DeleteRequest(collection=COLLECTION, keys=[key]), timeout=10)

    async def _keep_house(self, indexer: indexer_pb2_grpc.IndexerAsyncStub) -> None:
        await indexer.Compact(indexer_pb2.CompactRequest(collection=COLLECTION), timeout=60)
        name = f"s{time.time_ns()}"
        await indexer.Snapshot(indexer_pb2.SnapshotRequest(collection=COLLECTION, name=name), timeout=60)

    async def _browse(self) -> None:
        def fetch() -> None:
            for path in (f"/v1/similar/S0002?collection={COLLECTION}", "/v1/similar/nothing?collection=nowhere"):
                with suppress(OSError), urllib.request.urlopen(self._stack.page + path, timeout=10) as answer:  # noqa: S310
                    answer.read()

        await asyncio.to_thread(fetch)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(grpc.RpcError):  # the shard may be away on purpose
                await work()
            await asyncio.sleep(seconds)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
