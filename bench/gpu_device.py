"""What the device, and the decoders that feed it, can do without a service: the in-process half of `bench.gpu`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.peers.work import copy_of
from models.card import ModelCard, load_card
from services.embedder.crop import Crop
from services.embedder.decode import Decoder, PixelBudget
from services.embedder.model import EmbeddingModel
from services.embedder.resize import Resizer
from services.embedder.session import Provider, Session, cpu_provider, cuda_provider, tensorrt_provider
from services.embedder.settings import EmbedderSettings
from services.runtime.server import StartError


@dataclass(frozen=True)
class Variant:
    """One way to run the model."""

    label: str
    precision: str
    provider: Provider


def variants(settings: EmbedderSettings, model_dir: Path, engine_cache: Path) -> list[Variant]:
    """Returns what is worth comparing on the settings' device; `bare` is ONNX Runtime called without bound memory."""
    copies = {each for each in ("int8", "fp16") if copy_of(model_dir, each)}
    if settings.provider == "cpu":
        cpu = cpu_provider()
        found = [Variant("fp32 bare", "fp32", cpu), Variant("fp32 bound", "fp32", replace(cpu, bound=True))]
        return found + [Variant("int8 bare", "int8", cpu)] * ("int8" in copies)
    limit = settings.gpu_mem_limit_bytes

    def cuda(**options: bool) -> Provider:
        return cuda_provider(settings.device_id, limit, **options)

    def tensorrt(fp16: bool = False) -> Provider:
        return tensorrt_provider(cuda(), engine_cache, settings.tensorrt_workspace_bytes, fp16=fp16)

    found = [
        Variant("fp32 bare", "fp32", replace(cuda(), bound=False)),
        Variant("fp32 bound", "fp32", cuda()),
        Variant("fp32 graphs", "fp32", cuda(cuda_graphs=True)),
        Variant("tf32 bound", "fp32", cuda(tf32=True)),
        Variant("tf32 graphs", "fp32", cuda(tf32=True, cuda_graphs=True)),
        Variant("fp32 tensorrt", "fp32", tensorrt()),
        Variant("fp32 tensorrt, fp16 layers", "fp32", tensorrt(fp16=True)),
    ]
    if "fp16" in copies:
        found += [
            Variant("fp16 bound", "fp16", cuda(fp16=True)),
            Variant("fp16 graphs", "fp16", cuda(fp16=True, cuda_graphs=True)),
            Variant("fp16 tensorrt", "fp16", tensorrt()),
        ]
    return found


def rates_by_batch(
    model_dir: Path,
    card: ModelCard,
    candidates: Sequence[Variant],
    sizes: Sequence[int],
    *,
    threads: int,
    rounds: int,
    seconds: float,
) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Returns images per second by variant and batch size (medians over interleaved rounds), and why others failed."""
    sessions: dict[str, Session] = {}
    failed: dict[str, str] = {}
    for each in candidates:
        try:
            sessions[each.label] = _open(model_dir, card, each, sizes, threads)
        except StartError as error:
            failed[each.label] = str(error)
    runs: dict[str, dict[int, list[float]]] = {label: {size: [] for size in sizes} for label in sessions}
    side = card.input
    random = np.random.default_rng(0)
    batches = {size: random.integers(0, 256, (size, side.height, side.width, 3), np.uint8) for size in sizes}
    for round_ in range(rounds + 1):
        for label, session in sessions.items():
            for size in sizes:
                rate = size * _per_second(partial(session.run, batches[size]), seconds)
                if round_:  # the first warms up
                    runs[label][size].append(rate)
    medians = {label: {size: float(np.median(rates)) for size, rates in each.items()} for label, each in runs.items()}
    return medians, failed


def decode_rate(
    settings: EmbedderSettings, card: ModelCard, files: Sequence[bytes], threads: int, seconds: float
) -> float:
    """Returns files decoded per second by that many threads, with nothing after them."""
    decode = _decoder(settings, card)
    end = time.perf_counter() + seconds

    def work(number: int) -> int:
        done = 0
        for data in cycle(files[number % len(files) :]):
            decode(data)
            done += 1
            if time.perf_counter() >= end:
                break
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads))) / (time.perf_counter() - began)


def bare_loop(model: EmbeddingModel, settings: EmbedderSettings, files: Sequence[bytes], seconds: float) -> float:
    """Returns images per second of decoders that feed the model's lanes through a queue, in this process.

    The same decoder, session, lanes and batch sizes as the service's, without network, requests and answers.
    """
    decode = _decoder(settings, model.card)
    size = model.batching.sizes[-1]
    ready: queue.Queue[np.ndarray] = queue.Queue(2 * size * model.batching.lanes)
    stop = threading.Event()

    def feed(number: int) -> None:
        for data in cycle(files[number % len(files) :]):
            pixels = decode(data)
            while not stop.is_set():
                try:
                    ready.put(pixels, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stop.is_set():
                return

    def run() -> int:
        done = 0
        while time.perf_counter() < end:
            batch = [ready.get() for _ in range(size)]
            model.run(np.stack(batch))
            done += size
        return done

    feeders, lanes = settings.resolved_decode_threads, model.batching.lanes
    with ThreadPoolExecutor(feeders + lanes) as pool:
        feeding = [pool.submit(feed, number) for number in range(feeders)]
        began = time.perf_counter()
        end = began + seconds
        running = [pool.submit(run) for _ in range(lanes)]
        total = sum(each.result() for each in running)
        took = time.perf_counter() - began
        stop.set()
        for each in feeding:
            each.result()
    return total / took


def _open(model_dir: Path, card: ModelCard, variant: Variant, sizes: Sequence[int], threads: int) -> Session:
    outputs = card.outputs
    folder = copy_of(model_dir, variant.precision)
    assert folder is not None, f"{model_dir} has no {variant.precision} copy"
    return Session(
        folder / load_card(folder).model.file,
        variant.provider,
        threads,
        input_name=card.input.tensor,
        embedding_name=outputs.embedding.tensor,
        logits_name=outputs.logits.tensor if outputs.logits else None,
        batch_sizes=sizes,
    )


def _decoder(settings: EmbedderSettings, card: ModelCard) -> Callable[[bytes], np.ndarray]:
    decoder = Decoder(settings.image_limits, Resizer(card), PixelBudget(settings.max_inflight_pixels))
    return lambda data: decoder(data, Crop()).pixels


def _per_second(call: Callable[[], object], seconds: float) -> float:
    began = time.perf_counter()
    calls = 0
    while not calls or time.perf_counter() - began < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - began)
