"""`python -m bench.gpu [--provider cuda] [--quick] [--json]`: what a GPU gives, and what the service makes of it.

Prints images per second by batch size for every way to run the model that this machine has, what the decoders can
feed, and the service under closed loops next to the same work in a bare loop in one process. The last line is one JSON
object:

    images_per_s        by variant and batch size: pixels in memory to vectors in memory, one caller; `bare` is ONNX
                        Runtime as it comes: one session for all sizes, so each first batch of a size plans anew
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
from pathlib import Path

import onnxruntime
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from bench.embedder.images import make_images, read_images
from bench.gpu_device import bare_loop, decode_rate, rates_by_batch, variants
from bench.gpu_service import Services
from bench.statistics import median
from services.embedder.gpu import watch_gpu
from services.embedder.memory import keep_freed_memory
from services.embedder.model import EmbeddingModel
from services.embedder.settings import EmbedderSettings
from services.local.stack import ROOT
from services.runtime.logs import configure_logs
from services.runtime.settings import load_settings

SIZES = {"cpu": (1, 4), "cuda": (1, 8, 32, 128), "tensorrt": (1, 8, 32, 128)}
CALLERS = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128), "tensorrt": (1, 8, 32, 128)}
PROCESSES = {"cpu": (1, 2), "cuda": (1, 4, 8), "tensorrt": (1, 4, 8)}
BESIDE_BULK = 4
ENGINES = ROOT / ".vitrine" / "tensorrt"

console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


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
        console.print(f"{label}: {reason.strip()}", highlight=False)
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
