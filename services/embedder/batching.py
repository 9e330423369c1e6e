"""Groups images into batches: interactive first, off as soon as the device is free, in a few warmed sizes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from services.embedder import metrics
from services.embedder.priority import Priority, TwoClassQueue
from services.embedder.session import Outputs
from vitrine.errors import DeadlineError, InternalError, UnavailableError

log = structlog.get_logger()

# Weight of the newest batch in the running mean of the time an image takes.
_SMOOTHING = 0.1


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Returns 1, 2, 3, 4, 6, 8, 12, ... and `largest`: steps so small that padding wastes at most a third."""
    steps = {1, largest}
    power = 1
    while power < largest:
        steps |= {size for size in (power, power * 3 // 2) if size < largest}
        power *= 2
    return tuple(sorted(steps))


class BatchRunner(Protocol):
    """The device: takes uint8 [n, h, w, 3], n one of the warmed sizes."""

    def __call__(self, pixels: NDArray[np.uint8]) -> Awaitable[Outputs]:
        """Runs one batch; never more of them at once than the batcher has lanes."""


@dataclass(frozen=True)
class Inference:
    """What the model said of one image, and how long that took."""

    embedding: NDArray[np.float32]
    """[dim], norm 1."""
    logits: NDArray[np.float32] | None
    """[classes], or None where the model has no classifier."""
    queue_seconds: float
    model_seconds: float


@dataclass(frozen=True)
class Batching:
    """How batches are formed."""

    sizes: tuple[int, ...] = (1,)
    """The warmed sizes, ascending; batches are padded to the next."""
    lanes: int = 1
    """Batches that run side by side."""
    wait_seconds: float = 0.0
    """How long a batch that is not full waits for company although the device is free."""


@dataclass(eq=False)
class _Waiting:
    pixels: NDArray[np.uint8]
    priority: Priority
    deadline: float | None
    since: float
    answer: asyncio.Future[Inference]


class Batcher:
    """Feeds one device. How much may wait is bounded by whoever submits (`services.runtime.gate`).

    A batch takes interactive images first. Where any is on board, bulk images only fill places that would be padding,
    so that a shopper never pays for a catalogue job; otherwise bulk images fill the batch. Lanes that are free share
    what waits. Within a class, callers take turns.
    """

    def __init__(
        self,
        run_batch: BatchRunner,
        batching: Batching,
        model: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`run_batch` decides when the device is free, which is all the timing there is: tests bring their own, and
        their own clock and sleep. `model` labels the metrics."""
        self._run_batch = run_batch
        self._batching = batching
        self._model = model
        self._clock = clock
        self._sleep = sleep
        self._queue: TwoClassQueue[_Waiting] = TwoClassQueue()
        self._arrived = asyncio.Event()
        self._busy = 0
        self.seconds_per_image = 0.0
        """Running mean of the time between images while the device is busy; 0 before the first batch."""
        self.succeeded_at: float | None = None
        """When a batch last went through, in the clock's time."""
        self.failures = 0
        """Batches that failed since one went through."""

    def __len__(self) -> int:
        """Images waiting, those nobody waits for any more included."""
        return len(self._queue)

    async def submit(
        self, pixels: NDArray[np.uint8], priority: Priority, deadline: float | None = None, caller: str = ""
    ) -> Inference:
        """Waits for one image [h, w, 3] to go through the model.

        Cancelling the wait drops the image if its batch has not left. `deadline` is in the clock's time.

        Raises:
            DeadlineError: The deadline passed while it waited.
            InternalError: The model failed on its batch.
            UnavailableError: The service stopped.
        """
        answer: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        self._queue.push(priority, _Waiting(pixels, priority, deadline, self._clock(), answer), caller)
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Forms and runs batches until cancelled; what waits then is told that the service is gone."""
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(self._batching.lanes):
                    lanes.create_task(self._lane())
        finally:
            while (waiting := self._queue.pop()) is not None:
                _refuse(waiting, UnavailableError("the embedder is stopping"))

    async def _lane(self) -> None:
        while True:
            await self._arrived.wait()
            if self._batching.wait_seconds and 0 < len(self._queue) < self._batching.sizes[-1]:
                await self._sleep(self._batching.wait_seconds)
            if not (batch := self._collect()):
                self._arrived.clear()
                continue
            self._busy += 1
            metrics.BUSY_LANES.labels(self._model).set(self._busy)
            try:
                await self._process(batch)
            finally:
                self._busy -= 1
                metrics.BUSY_LANES.labels(self._model).set(self._busy)

    def _collect(self) -> list[_Waiting]:
        sizes = self._batching.sizes
        share = -(-len(self._queue) // (self._batching.lanes - self._busy))
        most = min(share, sizes[-1])
        batch = self._take(Priority.INTERACTIVE, most)
        room = (self._padded(len(batch)) if batch else most) - len(batch)
        return batch + self._take(Priority.BULK, room)

    def _take(self, priority: Priority, most: int) -> list[_Waiting]:
        """Takes up to `most` images of a class that somebody still waits for."""
        taken: list[_Waiting] = []
        while len(taken) < most and (waiting := self._queue.pop(priority)) is not None:
            if waiting.answer.done():
                metrics.DROPPED.labels(self._model, priority, "cancelled").inc()
            elif waiting.deadline is not None and waiting.deadline <= self._clock():
                metrics.DROPPED.labels(self._model, priority, "expired").inc()
                _refuse(waiting, DeadlineError("the deadline passed before the image reached the model"))
            else:
                taken.append(waiting)
        return taken

    def _padded(self, count: int) -> int:
        return next(size for size in self._batching.sizes if size >= count)

    async def _process(self, batch: list[_Waiting]) -> None:
        size = self._padded(len(batch))
        metrics.BATCH_IMAGES.labels(self._model).observe(len(batch))
        metrics.PADDING.labels(self._model).inc(size - len(batch))
        began = self._clock()
        try:
            outputs = await self._run_batch(_stacked(batch, size))
        except asyncio.CancelledError:
            for waiting in batch:
                _refuse(waiting, UnavailableError("the embedder is stopping"))
            raise
        except Exception:
            self.failures += 1
            metrics.BATCHES.labels(self._model, "failed").inc()
            log.exception("batch failed", model=self._model, images=len(batch))
            for waiting in batch:
                _refuse(waiting, InternalError("the model failed on this batch"))
            return
        self.succeeded_at = self._clock()
        self.failures = 0
        metrics.BATCHES.labels(self._model, "ok").inc()
        seconds = self.succeeded_at - began
        self._learn(seconds / (len(batch) * self._busy))
        for place, waiting in enumerate(batch):
            if not waiting.answer.done():
                logits = None if outputs.logits is None else outputs.logits[place]
                waiting.answer.set_result(Inference(outputs.embeddings[place], logits, began - waiting.since, seconds))

    def _learn(self, seconds: float) -> None:
        mean = self.seconds_per_image
        self.seconds_per_image = mean + _SMOOTHING * (seconds - mean) if mean else seconds


def _stacked(batch: Sequence[_Waiting], size: int) -> NDArray[np.uint8]:
    """Returns [size, h, w, 3], the rest zeros; a picture alone is not copied."""
    if size == 1:
        return batch[0].pixels[np.newaxis]
    pixels = np.zeros((size, *batch[0].pixels.shape), np.uint8)
    for place, waiting in enumerate(batch):
        pixels[place] = waiting.pixels
    return pixels


def _refuse(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
