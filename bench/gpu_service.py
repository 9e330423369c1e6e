"""The service on the device, as processes under load: the half of `bench.gpu` that speaks gRPC."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from bench.embedder.child import Child
from bench.statistics import percentile_ms
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor


class Services:
    """Embedders side by side on one GPU, each a process of its own, and processes that load them."""

    def __init__(self, environment: dict[str, str], folder: Path, images: Path, dim: int, callers: int) -> None:
        """`callers`: the most there will be; nobody is to be refused, as what is asked is how fast, not how many."""
        room = str(max(64, 2 * callers))
        self._environment = environment | {
            # Every image reaches the model.
            "VITRINE_EMBEDDER_CACHE_MEMORY_BYTES": "0",
            "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_ITEMS": room,
            "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_BYTES": str(2**32),
            "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_SECONDS": "60",
            "VITRINE_EMBEDDER_MAX_CONCURRENT_RPCS": room,
        }
        self._folder = folder
        self._target = {"images": str(images), "dim": dim}
        self._addresses: list[str] = []
        self._clients: list[Child] = []

    @asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[Self]:
        """Starts `count` embedders; TensorRT may have engines to build."""
        async with AsyncExitStack() as stack:
            supervisor = await stack.enter_async_context(Supervisor(ROOT, self._folder / "logs", start_timeout=1800.0))
            specs = [self._spec(f"embedder-{number}", count) for number in range(count)]
            await supervisor.start(*specs)
            self._addresses = [spec.address for spec in specs]
            # One Python process cannot ask as fast as a GPU answers.
            self._clients = [
                await stack.enter_async_context(Child("bench.embedder.load", self._folder / f"load-{number}.log"))
                for number in range(max(count + 1, (os.cpu_count() or 1) // 4))
            ]
            yield self

    def _spec(self, name: str, count: int) -> ProcessSpec:
        ports = Ports.free(0)
        settings = {
            "VITRINE_EMBEDDER_PORT": str(ports.embedder),
            "VITRINE_EMBEDDER_METRICS_PORT": str(ports.metrics[ports.embedder]),
            "VITRINE_EMBEDDER_DECODE_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        }
        address = f"127.0.0.1:{ports.embedder}"
        return ProcessSpec(name, "services.embedder", address, settings | self._environment)

    async def closed(self, callers: int, seconds: float) -> dict[str, float]:
        """Returns throughput and latency of callers that send the next image when its answer is there."""
        clients = self._clients[:-1]  # the last is for bulk
        shares = [len(range(number, callers, len(clients))) for number in range(len(clients))]
        answers = await asyncio.gather(
            *(
                self._do(
                    number, mode="closed", protocol="lean-stream", callers=share, seconds=seconds, warm_seconds=0.3
                )
                for number, share in enumerate(shares)
                if share
            )
        )
        refused = {code: number for answer in answers for code, number in answer["refused"].items()}
        if refused:
            raise RuntimeError(f"{callers} callers were refused: {refused}")
        latencies = [each for answer in answers for each in answer["latencies"]]
        return {
            "per_s": sum(answer["per_s"] for answer in answers),
            "p50_ms": percentile_ms(latencies, 50),
            "p99_ms": percentile_ms(latencies, 99),
        }

    async def beside_bulk(self, callers: int, seconds: float) -> dict[str, float]:
        """Returns the same while a bulk stream runs at full speed, and what the stream got."""
        stream = asyncio.create_task(
            self._do(len(self._clients) - 1, mode="stream", protocol="grpc", seconds=seconds + 1.5)
        )
        await asyncio.sleep(0.25)
        return {**await self.closed(callers, seconds), "bulk_per_s": (await stream)["per_s"]}

    async def _do(self, number: int, **job: Any) -> dict[str, Any]:
        address = self._addresses[number % len(self._addresses)]
        return await self._clients[number].do(address=address, **self._target, **job)
