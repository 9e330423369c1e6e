"""`python -m bench.gpu [--provider cuda] [--quick] [--json]`: what a GPU gives, and what the service makes of it.

Prints images per second by batch size for every way to run the model that this machine has, what the decoders can
feed, and the service under closed loops next to the same work in a bare loop in one process. The last line is one JSON
object:

    images_per_s        by variant and batch size: pixels in memory to vectors in memory, one caller
    unavailable         variants that cannot run here, and why
    decode_per_s        640-pixel JPEG files decoded, on one thread and on all cores: no GPU is fed faster than that
    decode_over_model   the latter over the model's best rate; below 1, the decoders are the limit
    bare_per_s          decoders feeding the model in one process
    service             by processes that share the device, then by callers: per_s, p50_ms, p99_ms; the load generator
                        runs on the same cores
    service_over_bare   by processes: the service's best over bare_per_s
    beside_bulk         the same of 4 interactive callers, one process, while a bulk stream runs; bulk_per_s is its

`--provider cpu` runs the same code where no GPU is. Other settings of the service come from its environment variables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import onnxruntime
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from bench.embedder.child import Child
from bench.embedder.images import make_images, read_images
from bench.gpu_device import bare_loop, decode_rate, rates_by_batch, variants
from bench.statistics import median, percentile_ms
from services.embedder.gpu import watch_gpu
from services.embedder.memory import keep_freed_memory
from services.embedder.model import EmbeddingModel
from services.embedder.settings import EmbedderSettings
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from services.runtime.logs import configure_logs
from services.runtime.settings import load_settings

SIZES = {"cpu": (1, 4), "cuda": (1, 8, 32, 128), "tensorrt": (1, 8, 32, 128)}
CALLERS = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128), "tensorrt": (1, 8, 32, 128)}
PROCESSES = {"cpu": (1, 2), "cuda": (1, 4, 8), "tensorrt": (1, 4, 8)}
BESIDE_BULK = 4
ENGINES = ROOT / ".vitrine" / "tensorrt"

console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


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
        clients = self._clients[: max(1, len(self._clients) - 1)]
        shares = [len(range(number, callers, len(clients))) for number in range(len(clients))]
        answers = await asyncio.gather(
            *(
                self._do(number, mode="closed", protocol="lean-grpc", callers=share, seconds=seconds, warm_seconds=0.3)
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


async def measure(model_dir: Path, provider: str, quick: bool) -> dict[str, object]:
    """Runs the whole benchmark."""
    keep_freed_memory()
    # A GPU's rate hardly varies, and one that is lent is lent for minutes.
    seconds, load_seconds, rounds = (0.2, 0.5, 1) if quick else (0.25, 1.0, 3)
    engines = ENGINES if provider == "tensorrt" else None
    overrides = {"provider": provider, "model_dirs": [model_dir], "tensorrt_cache_dir": engines}
    settings = load_settings(EmbedderSettings, **overrides)
    environment = {"VITRINE_EMBEDDER_PROVIDER": provider, "VITRINE_EMBEDDER_MODEL_DIRS": str(model_dir)}
    if engines is not None:
        environment["VITRINE_EMBEDDER_TENSORRT_CACHE_DIR"] = str(engines)
    model = EmbeddingModel(model_dir, settings)
    model.warm_up()
    card = model.card
    gpu = watch_gpu(settings.device_id, CollectorRegistry()) if provider != "cpu" else None

    rates, unavailable = rates_by_batch(
        model_dir,
        card,
        variants(settings, model_dir, ENGINES),
        SIZES[provider][:2] if quick else SIZES[provider],
        threads=settings.intra_op_threads,
        rounds=rounds,
        seconds=seconds,
    )
    callers = CALLERS[provider][:2] if quick else CALLERS[provider]
    processes = PROCESSES[provider][:1] if quick else PROCESSES[provider]
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as scratch:
        folder, images = Path(scratch), Path(scratch) / "images"
        images.mkdir()
        make_images(images)
        files = read_images(images)
        decode = {
            n: median([decode_rate(settings, card, files, n, seconds) for _ in range(rounds)]) for n in (1, cores)
        }
        bare = [bare_loop(model, settings, files, load_seconds) for _ in range(rounds)]
        services = Services(environment, folder, images, model.dim, max(callers))
        loads: dict[int, list[dict[int, dict[str, float]]]] = {}
        beside: list[dict[str, float]] = []
        for count in processes:
            async with services.running(count) as running:
                loads[count] = [
                    {each: await running.closed(each, load_seconds) for each in callers} for _ in range(rounds)
                ]
                if count == 1:
                    beside = [await running.beside_bulk(BESIDE_BULK, load_seconds) for _ in range(rounds)]
    return {
        "benchmark": "gpu",
        "provider": provider,
        "gpu": gpu.name if gpu else None,
        "cores": cores,
        "onnxruntime": onnxruntime.__version__,
        "model": model.name,
        "precision": model.card.precision,
        "quick": quick,
        "images_per_s": {label: {n: round(rate, 1) for n, rate in each.items()} for label, each in rates.items()},
        "unavailable": unavailable,
        "decode_per_s": decode,
        "decode_over_model": round(decode[cores] / max(rate for each in rates.values() for rate in each.values()), 3),
        "bare_per_s": median(bare),
        "service": {
            count: {each: medians([load[each] for load in runs]) for each in callers} for count, runs in loads.items()
        },
        "service_over_bare": {
            count: round(median([max(each["per_s"] for each in load.values()) for load in runs]) / median(bare), 3)
            for count, runs in loads.items()
        },
        "beside_bulk": medians(beside),
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Returns the median of each figure."""
    return {key: median([run[key] for run in runs]) for key in runs[0]}


def show(result: dict[str, object]) -> None:
    """Prints the tables for people."""
    rates, service = result["images_per_s"], result["service"]
    assert isinstance(rates, dict)
    assert isinstance(service, dict)
    sizes = list(next(iter(rates.values())))
    table = Table("images/s by batch", *map(str, sizes), title=f"{result['gpu'] or 'CPU'}, {result['model']}")
    for label, each in rates.items():
        table.add_row(label, *(f"{each[size]:.0f}" for size in sizes))
    console.print(table)
    assert isinstance(result["unavailable"], dict)
    for label, reason in result["unavailable"].items():
        console.print(f"{label}: {reason}", highlight=False)
    for count, loads in service.items():
        title = f"service ({result['provider']}), {count} process{'es' * (count > 1)}"
        table = Table("callers", "images/s", "p50 ms", "p99 ms", title=title)
        for callers, each in loads.items():
            table.add_row(str(callers), f"{each['per_s']:.0f}", f"{each['p50_ms']}", f"{each['p99_ms']}")
        console.print(table)
    for name in ("decode_per_s", "decode_over_model", "bare_per_s", "service_over_bare", "beside_bulk"):
        console.print(f"{name}: {result[name]}", highlight=False)


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--provider", choices=sorted(SIZES), default="cuda")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "build" / "efficientnet-lite0")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    arguments = parser.parse_args()
    configure_logs("bench", "warning", "auto")
    result = asyncio.run(measure(arguments.model, arguments.provider, arguments.quick))
    if not arguments.json:
        show(result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
