"""`python -m bench.gpu [--provider cuda] [--quick] [--json]`: what a GPU gives, and what the service makes of it.

Prints images per second by batch size for every way to run the model that this machine has, what the decoders can
feed, and the service under closed loops next to the same work in a bare loop in one process. The last line is one JSON
object:

    images_per_s        by variant and batch size: pixels in memory to vectors in memory, one caller
    unavailable         variants that cannot run here, and why
    decode_per_s        640-pixel JPEG files decoded, on one thread and on all cores: no GPU is fed faster than that
    decode_over_model   the latter over the model's best rate; below 1, the decoders are the limit
    bare_per_s          decoders feeding the model in one process
    service             by callers: per_s, p50_ms, p99_ms; the load generator runs on the same cores
    service_over_bare   the service's best over bare_per_s

`--provider cpu` runs the same code where no GPU is. Other settings of the service come from its environment variables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

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

SIZES = {"cpu": (1, 4), "cuda": (1, 4, 8, 16, 32, 64, 128), "tensorrt": (1, 4, 8, 16, 32, 64, 128)}
CALLERS = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128, 512), "tensorrt": (1, 8, 32, 128, 512)}
ENGINES = ROOT / ".vitrine" / "tensorrt"

console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


async def under_load(
    environment: dict[str, str], folder: Path, images: Path, dim: int, callers: tuple[int, ...], seconds: float
) -> dict[int, dict[str, float]]:
    """Returns throughput and latency of a service of its own by number of callers, one load after the other."""
    ports = Ports.free(0)
    address = f"127.0.0.1:{ports.embedder}"
    settings = {
        **environment,
        "VITRINE_EMBEDDER_PORT": str(ports.embedder),
        "VITRINE_EMBEDDER_METRICS_PORT": str(ports.metrics[ports.embedder]),
        # Nobody is to be refused: what is asked is how fast, not how many.
        "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_ITEMS": str(max(64, 2 * max(callers))),
        "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_BYTES": str(2**32),
        "VITRINE_EMBEDDER_MAX_CONCURRENT_RPCS": str(max(64, 2 * max(callers))),
    }
    # One Python process cannot ask as fast as a GPU answers.
    processes = max(1, (os.cpu_count() or 1) // 4)
    results: dict[int, dict[str, float]] = {}
    async with AsyncExitStack() as stack:
        # TensorRT may have engines to build.
        supervisor = await stack.enter_async_context(Supervisor(ROOT, folder / "logs", start_timeout=1800.0))
        await supervisor.start(ProcessSpec("embedder", "services.embedder", address, settings))
        clients = [
            await stack.enter_async_context(Child("bench.embedder.load", folder / f"load-{number}.log"))
            for number in range(processes)
        ]
        for count in callers:
            shares = [len(range(number, count, processes)) for number in range(processes)]
            answers = await asyncio.gather(
                *(
                    client.do(
                        mode="closed",
                        protocol="grpc",
                        address=address,
                        images=str(images),
                        dim=dim,
                        callers=share,
                        seconds=seconds,
                        warm_seconds=1.0,
                    )
                    for client, share in zip(clients, shares, strict=True)
                    if share
                )
            )
            refused = {code: number for answer in answers for code, number in answer["refused"].items()}
            if refused:
                raise RuntimeError(f"{count} callers were refused: {refused}")
            latencies = [each for answer in answers for each in answer["latencies"]]
            results[count] = {
                "per_s": sum(answer["per_s"] for answer in answers),
                "p50_ms": percentile_ms(latencies, 50),
                "p99_ms": percentile_ms(latencies, 99),
            }
    return results


async def measure(model_dir: Path, provider: str, quick: bool) -> dict[str, object]:
    """Runs the whole benchmark."""
    keep_freed_memory()
    seconds, rounds = (0.5, 1) if quick else (2.0, 5)
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
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as scratch:
        folder, images = Path(scratch), Path(scratch) / "images"
        images.mkdir()
        make_images(images)
        files = read_images(images)
        decode = {
            n: median([decode_rate(settings, card, files, n, seconds) for _ in range(rounds)]) for n in (1, cores)
        }
        bare: list[float] = []
        loads: list[dict[int, dict[str, float]]] = []
        for _ in range(rounds):
            bare.append(bare_loop(model, settings, files, 2 * seconds))
            loads.append(await under_load(environment, folder, images, model.dim, callers, 2 * seconds))
    service = {
        count: {key: median([load[count][key] for load in loads]) for key in ("per_s", "p50_ms", "p99_ms")}
        for count in callers
    }
    best = [max(each["per_s"] for each in load.values()) for load in loads]
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
        "service": service,
        "service_over_bare": median([one / other for one, other in zip(best, bare, strict=True)], 3),
    }


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
    table = Table("callers", "images/s", "p50 ms", "p99 ms", title=f"service ({result['provider']})")
    for count, each in service.items():
        table.add_row(str(count), f"{each['per_s']:.0f}", f"{each['p50_ms']}", f"{each['p99_ms']}")
    console.print(table)
    for name in ("decode_per_s", "decode_over_model", "bare_per_s", "service_over_bare"):
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
