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
        """Runs one batch; it is not called again before it has answered."""


@dataclass(frozen=True)
class Inference:
    """What the model said of one image, and how long that took."""

    embedding: NDArray[np.float32]
    """[dim], norm 1."""
    logits: NDArray[np.float32] | None
    """[classes], or None where the model has no classifier."""
    queue_seconds: float
    model_seconds: float


@dataclass(eq=False)
class _Waiting:
    pixels: NDArray[np.uint8]
    priority: Priority
    deadline: float | None
    since: float
    answer: asyncio.Future[Inference]


class Batcher:
    """Feeds one device. How much may wait is bounded by whoever submits (`services.embedder.gate`).

    A batch takes all interactive images first. Where any is on board, bulk images only fill places that would be
    padding, so that a shopper never pays for a catalogue job; otherwise bulk images fill the batch.
    """

    def __init__(
        self, run_batch: BatchRunner, sizes: Sequence[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`run_batch` decides when the device is free, which is all the timing there is; tests bring their own."""
        self._run_batch = run_batch
        self._sizes = tuple(sizes)
        self._clock = clock
        self._queue: TwoClassQueue[_Waiting] = TwoClassQueue()
        self._arrived = asyncio.Event()
        self.seconds_per_image = 0.0
        """Running mean of device time for one image; 0 before the first batch."""

    def __len__(self) -> int:
        """Images waiting, those nobody waits for any more included."""
        return len(self._queue)

    async def submit(self, pixels: NDArray[np.uint8], priority: Priority, deadline: float | None = None) -> Inference:
        """Waits for one image [h, w, 3] to go through the model.

        Cancelling the wait drops the image if its batch has not left. `deadline` is in the clock's time.

        Raises:
            DeadlineError: The deadline passed while it waited.
            InternalError: The model failed on its batch.
            UnavailableError: The service stopped.
        """
        answer: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        self._queue.push(priority, _Waiting(pixels, priority, deadline, self._clock(), answer))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Forms and runs batches until cancelled; what waits then is told that the service is gone."""
        try:
            while True:
                await self._arrived.wait()
                if batch := self._collect():
                    await self._process(batch)
                else:
                    self._arrived.clear()
        finally:
            while (waiting := self._queue.pop()) is not None:
                _refuse(waiting, UnavailableError("the embedder is stopping"))

    def _collect(self) -> list[_Waiting]:
        batch = self._take(Priority.INTERACTIVE, self._sizes[-1])
        room = (self._padded(len(batch)) if batch else self._sizes[-1]) - len(batch)
        return batch + self._take(Priority.BULK, room)

    def _take(self, priority: Priority, most: int) -> list[_Waiting]:
        """Takes up to `most` images of a class that somebody still waits for."""
        taken: list[_Waiting] = []
        while len(taken) < most and (waiting := self._queue.pop(priority)) is not None:
            if waiting.answer.done():
                metrics.DROPPED.labels(priority, "cancelled").inc()
            elif waiting.deadline is not None and waiting.deadline <= self._clock():
                metrics.DROPPED.labels(priority, "expired").inc()
                _refuse(waiting, DeadlineError("the deadline passed before the image reached the model"))
            else:
                taken.append(waiting)
        return taken

    def _padded(self, count: int) -> int:
        return next(size for size in self._sizes if size >= count)

    async def _process(self, batch: list[_Waiting]) -> None:
        size = self._padded(len(batch))
        metrics.BATCH_IMAGES.observe(len(batch))
        metrics.PADDING.inc(size - len(batch))
        pixels = np.zeros((size, *batch[0].pixels.shape), np.uint8)
        for place, waiting in enumerate(batch):
            pixels[place] = waiting.pixels
        began = self._clock()
        try:
            outputs = await self._run_batch(pixels)
        except asyncio.CancelledError:
            for waiting in batch:
                _refuse(waiting, UnavailableError("the embedder is stopping"))
            raise
        except Exception:
            log.exception("batch failed", images=len(batch))
            for waiting in batch:
                _refuse(waiting, InternalError("the model failed on this batch"))
            return
        seconds = self._clock() - began
        self._learn(seconds / len(batch))
        for place, waiting in enumerate(batch):
            if not waiting.answer.done():
                logits = None if outputs.logits is None else outputs.logits[place]
                waiting.answer.set_result(Inference(outputs.embeddings[place], logits, began - waiting.since, seconds))

    def _learn(self, seconds: float) -> None:
        mean = self.seconds_per_image
        self.seconds_per_image = mean + _SMOOTHING * (seconds - mean) if mean else seconds


def _refuse(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
