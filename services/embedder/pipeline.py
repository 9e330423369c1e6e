"""The way of one image: admission, decoding, batching, model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from services.embedder import metrics
from services.embedder.batching import Batcher, Inference
from services.embedder.crop import Crop
from services.embedder.decode import Decoder, PixelBudget
from services.embedder.decode_pool import DecodePool
from services.embedder.model import EmbeddingModel
from services.embedder.priority import Priority
from services.embedder.resize import Pixels, Resizer
from services.embedder.settings import EmbedderSettings
from services.embedder.timings import Timings
from services.runtime.gate import Gate
from vitrine.errors import InternalError, OverloadedError, VitrineError
from vitrine.v1 import embedder_pb2

log = structlog.get_logger()

_RETRY_AFTER_SECONDS = (0.05, 5.0)


@dataclass
class Embedded:
    """What became of one image."""

    content_hash: bytes
    """sha256 of the bytes received; empty for one that was refused unread."""
    timings: Timings
    embedding: NDArray[np.float32] | None = None
    """[dim], norm 1; None where `error` says why not."""
    logits: NDArray[np.float32] | None = None
    error: VitrineError | None = None


@dataclass
class _Decoded:
    content_hash: bytes
    seconds: float
    pixels: Pixels | None = None
    error: VitrineError | None = None


class Pipeline:
    """Embeds images with one model, within the queue bounds of the settings."""

    def __init__(self, model: EmbeddingModel, settings: EmbedderSettings) -> None:
        self._limits = settings.image_limits
        resizer = Resizer(model.card)
        self._input_bytes = resizer.height * resizer.width * 3
        self._decode = Decoder(self._limits, resizer, PixelBudget(settings.max_inflight_pixels))
        self._decoders: DecodePool[_Decoded] = DecodePool(settings.resolved_decode_threads)
        self._device = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.batcher = Batcher(
            lambda pixels: asyncio.get_running_loop().run_in_executor(self._device, model.run, pixels), model.sizes
        )
        self._gates = {
            Priority.INTERACTIVE: _gate(
                Priority.INTERACTIVE, settings.interactive_queue_items, settings.interactive_queue_bytes
            ),
            Priority.BULK: _gate(Priority.BULK, settings.bulk_queue_items, settings.bulk_queue_bytes),
        }

    async def run(self) -> None:
        """Serves until cancelled."""
        await self.batcher.run()

    def close(self) -> None:
        """Ends the threads."""
        self._decoders.close()
        self._device.shutdown()

    @asynccontextmanager
    async def admit(self, images: int, size: int, priority: Priority) -> AsyncIterator[None]:
        """Holds room for images of `size` bytes in all: bulk work waits for it, interactive work does not.

        Raises:
            OverloadedError: The interactive queue is full.
        """
        gate = self._gates[priority]
        size += images * self._input_bytes
        if priority is Priority.BULK:
            began = time.perf_counter()
            await gate.enter(images, size)
            metrics.ADMISSION_SECONDS.labels(priority).observe(time.perf_counter() - began)
        elif not gate.try_enter(images, size):
            metrics.DROPPED.labels(priority, "queue_full").inc(images)
            raise self._overloaded(gate)
        try:
            yield
        finally:
            gate.leave(images, size)

    async def embed(
        self, image: embedder_pb2.ImageInput, priority: Priority, time_left: float | None = None
    ) -> Embedded:
        """Embeds one admitted image; whatever is wrong with it is in the answer."""
        try:
            embedded = await self._embed(image, priority, time_left)
        except VitrineError as error:  # refused unread
            embedded = Embedded(b"", Timings(), error=error)
        code = embedded.error.code.name if embedded.error else "OK"
        metrics.IMAGES.labels(priority, code).inc()
        return embedded

    async def _embed(self, image: embedder_pb2.ImageInput, priority: Priority, time_left: float | None) -> Embedded:
        arrived = time.monotonic()
        self._limits.check_bytes(len(image.data))
        crop = Crop.from_box(image.box) if image.HasField("box") else Crop()
        decoded = await self._decoders.run(lambda: self._decode_one(image.data, crop), priority)
        waited = time.monotonic() - arrived - decoded.seconds
        embedded = Embedded(decoded.content_hash, Timings(decoded.seconds, waited), error=decoded.error)
        metrics.STAGE_SECONDS.labels("decode", priority).observe(decoded.seconds)
        if decoded.pixels is None:
            return embedded
        deadline = None if time_left is None else arrived + time_left
        try:
            inference: Inference = await self.batcher.submit(decoded.pixels, priority, deadline)
        except VitrineError as error:
            embedded.error = error
            return embedded
        embedded.embedding, embedded.logits = inference.embedding, inference.logits
        embedded.timings.queue += inference.queue_seconds
        embedded.timings.model = inference.model_seconds
        metrics.STAGE_SECONDS.labels("queue", priority).observe(embedded.timings.queue)
        metrics.STAGE_SECONDS.labels("model", priority).observe(inference.model_seconds)
        return embedded

    def _decode_one(self, data: bytes, crop: Crop) -> _Decoded:
        began = time.perf_counter()
        decoded = _Decoded(hashlib.sha256(data).digest(), 0.0)
        try:
            decoded.pixels = self._decode(data, crop)
        except VitrineError as error:
            decoded.error = error
        except Exception:  # a defect, yet one picture's: its neighbours are answered
            log.exception("decoding failed")
            decoded.error = InternalError("decoding failed")
        decoded.seconds = time.perf_counter() - began
        return decoded

    def _overloaded(self, gate: Gate) -> OverloadedError:
        shortest, longest = _RETRY_AFTER_SECONDS
        return OverloadedError(
            f"the interactive queue is full: it holds {gate.items} images of {gate.bytes} bytes, "
            f"interactive_queue_items is {gate.max_items}, interactive_queue_bytes is {gate.max_bytes}",
            retry_after=min(max(gate.items * self.batcher.seconds_per_image, shortest), longest),
        )


def _gate(priority: Priority, max_items: int, max_bytes: int) -> Gate:
    def report(items: int, size: int) -> None:
        metrics.QUEUE_ITEMS.labels(priority).set(items)
        metrics.QUEUE_BYTES.labels(priority).set(size)

    return Gate(max_items, max_bytes, report)
