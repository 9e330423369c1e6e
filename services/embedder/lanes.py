"""The threads that feed the device: each takes a batch, decodes what is not decoded, runs it, and takes the next."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from services.embedder import cores, metrics
from services.embedder.picture import Picture
from services.embedder.priority import Priority
from services.embedder.scheduler import Batching, Scheduler
from services.embedder.session import Outputs
from vitrine.errors import DeadlineError, InternalError, OverloadedError, UnavailableError, VitrineError

log = structlog.get_logger()

# Weight of the newest batch in the running mean of the time an image takes.
_SMOOTHING = 0.1


class BatchRunner(Protocol):
    """The device."""

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs uint8 [n, h, w, 3], n one of the warmed sizes; blocks. Never called by more threads than lanes."""


@dataclass(frozen=True)
class Inference:
    """What the model said of one image, and how long that took."""

    embedding: NDArray[np.float32]
    """[dim], norm 1."""
    logits: NDArray[np.float32] | None
    """[classes], or None where the model has no classifier."""
    attention: NDArray[np.float32] | None
    """[rows, columns], or None where the model does not say where it looks."""
    model_seconds: float
    """How long its batch ran."""


@dataclass(eq=False)
class Job:
    """One image on its way through the model."""

    picture: Picture
    priority: Priority
    answer: asyncio.Future[Inference]
    deadline: float | None = None
    caller: str = ""
    patience: float | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.answer.done()


_Result = Inference | VitrineError


class Lanes:
    """Feeds one device. How much may wait is bounded by whoever submits (`services.runtime.gate`).

    A lane never waits for the event loop between two batches: it takes the next one itself.
    """

    def __init__(
        self,
        run: BatchRunner,
        batching: Batching,
        model: str = "",
        *,
        too_large: Callable[[Job], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the threads; create it inside the running event loop.

        `run` decides when the device is free, which is all the timing there is: tests bring their own, and their own
        clock. `model` labels the metrics. `too_large` is given, on the event loop, a job whose picture is too large to
        be decoded in a lane.
        """
        self._run_batch = run
        self._batching = batching
        self._model = model
        self._too_large = too_large
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._scheduler: Scheduler[Job] = Scheduler(batching, clock, self._drop)
        self._closing = False
        self.seconds_per_image = 0.0
        """Running mean of the time an image takes that goes through the model, decoding in the lanes included, divided
        by the lanes that are busy: what each image adds to the wait of those behind it. Nothing is learnt from bad
        images, which take next to none: a flood of them must not make the wait for the model look short. 0 before the
        first batch."""
        self.succeeded_at: float | None = None
        """When a batch last went through, in the clock's time."""
        self.failures = 0
        """Batches that failed since one went through."""
        self._meters = _Meters(model)
        self._threads = [
            threading.Thread(target=self._lane, name=f"lane-{number}", daemon=True) for number in range(batching.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Images waiting, those nobody waits for any more included."""
        return len(self._scheduler)

    async def submit(
        self,
        picture: Picture,
        priority: Priority,
        deadline: float | None = None,
        caller: str = "",
        patience: float | None = None,
    ) -> Inference:
        """Waits for one picture to go through the model.

        Cancelling the wait drops it if its batch has not left. `deadline`, and `patience`, after which it is refused if
        its batch has not left, are in the clock's time.

        Raises:
            VitrineError: What is wrong with the picture.
            DeadlineError: The deadline passed while it waited.
            OverloadedError: Its patience ended while it waited.
            InternalError: The model failed on its batch.
            UnavailableError: The service stopped.
        """
        job = Job(picture, priority, self._loop.create_future(), deadline, caller, patience)
        self.push(job)
        return await job.answer

    def push(self, job: Job) -> None:
        """Adds a job, or one that was too large and is decoded now."""
        with self._changed:
            if not self._closing:
                self._scheduler.push(job)
                self._changed.notify()
                return
        _settle(job, UnavailableError("the embedder is stopping"))

    def close(self) -> None:
        """Refuses what waits, lets the running batches end, and ends the threads; blocks."""
        with self._changed:
            self._closing = True
            waiting = self._scheduler.clear()
            self._changed.notify_all()
        stopping = UnavailableError("the embedder is stopping")
        self._deliver([(job, stopping) for job in waiting])
        for thread in self._threads:
            thread.join()

    def _lane(self) -> None:
        cores.step_back()
        while batch := self._next_batch():
            began = self._clock()
            try:
                through, lost = self._process(batch)
                seconds = self._clock() - began
                self._meters.busy_seconds.inc(seconds)
                if through:
                    self._learn((seconds - lost) / (through * max(self._scheduler.busy, 1)))
            except Exception as error:  # a lane must outlive everything
                log.exception("lane failed", model=self._model)
                self._deliver([(job, InternalError(f"the model failed: {type(error).__name__}")) for job in batch])
            finally:
                with self._changed:
                    self._scheduler.done()
                    self._meters.busy.set(self._scheduler.busy)
            del batch  # an idle lane holds no images

    def _next_batch(self) -> Sequence[Job]:
        """Waits for work; empty: the service stops."""
        largest, wait = self._batching.sizes[-1], self._batching.wait_seconds
        with self._changed:
            while not self._closing:
                if wait and 0 < len(self._scheduler) < largest:
                    self._changed.wait_for(lambda: self._closing or len(self._scheduler) >= largest, wait)
                if batch := self._scheduler.take():
                    self._meters.busy.set(self._scheduler.busy)
                    return batch
                self._changed.wait()
        return ()

    def _process(self, batch: Sequence[Job]) -> tuple[int, float]:
        """Answers a batch; returns how many images went through the model, and the seconds lost on others."""
        ready: list[Job] = []
        results: list[tuple[Job, _Result]] = []
        lost = 0.0
        for job in batch:
            began = self._clock()
            try:
                if job.picture.decode(in_lane=self._too_large is not None):
                    ready.append(job)
                    continue
                self._call(self._too_large, job)
            except VitrineError as error:
                results.append((job, error))
            lost += self._clock() - began
        if ready:
            results += self._infer(ready)
        self._deliver(results)
        return sum(isinstance(result, Inference) for _, result in results), lost

    def _infer(self, batch: Sequence[Job]) -> list[tuple[Job, _Result]]:
        size = self._batching.padded(len(batch))
        self._meters.images.observe(len(batch))
        self._meters.padding.inc(size - len(batch))
        began = self._clock()
        try:
            outputs = self._run_batch(_stacked(batch, size))
        except Exception:  # ONNX Runtime's exceptions share no base class
            self.failures += 1
            self._meters.failed.inc()
            log.exception("batch failed", model=self._model, images=len(batch))
            return [(job, InternalError("the model failed on this batch")) for job in batch]
        self.succeeded_at = now = self._clock()
        self.failures = 0
        self._meters.ok.inc()
        seconds = now - began
        return [
            (
                job,
                Inference(
                    outputs.embeddings[place],
                    None if outputs.logits is None else outputs.logits[place],
                    None if outputs.attention is None else outputs.attention[place],
                    seconds,
                ),
            )
            for place, job in enumerate(batch)
        ]

    def _learn(self, seconds: float) -> None:
        mean = self.seconds_per_image
        self.seconds_per_image = mean + _SMOOTHING * (seconds - mean) if mean else seconds

    def _drop(self, job: Job, reason: str) -> None:
        metrics.DROPPED.labels(self._model, job.priority, reason).inc()
        if reason == "expired":
            self._deliver([(job, DeadlineError("the deadline passed before the image reached the model"))])
        elif reason == "waited_too_long":
            wait = len(self._scheduler) * self.seconds_per_image
            refusal = OverloadedError(
                "the image waited too long for the model: more came than it can do", retry_after=wait
            )
            self._deliver([(job, refusal)])

    def _deliver(self, results: Sequence[tuple[Job, _Result]]) -> None:
        if results:
            self._call(_settle_all, results)

    def _call(self, function: Callable[..., None] | None, *arguments: object) -> None:
        assert function is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, and everyone who waited is gone
            log.debug("answer without a loop", model=self._model)


class _Meters:
    """The metrics of one model, looked up once."""

    def __init__(self, model: str) -> None:
        self.busy_seconds = metrics.LANE_BUSY_SECONDS.labels(model)
        self.busy = metrics.BUSY_LANES.labels(model)
        self.images = metrics.BATCH_IMAGES.labels(model)
        self.padding = metrics.PADDING.labels(model)
        self.ok = metrics.BATCHES.labels(model, "ok")
        self.failed = metrics.BATCHES.labels(model, "failed")


def _stacked(batch: Sequence[Job], size: int) -> NDArray[np.uint8]:
    """Returns [size, h, w, 3], the rest zeros; a picture alone is not copied."""
    first = batch[0].picture.taken
    if size == 1:
        return first[np.newaxis]
    pixels = np.zeros((size, *first.shape), np.uint8)
    for place, job in enumerate(batch):
        pixels[place] = job.picture.taken
    return pixels


def _settle_all(results: Sequence[tuple[Job, _Result]]) -> None:
    for job, result in results:
        _settle(job, result)


def _settle(job: Job, result: _Result) -> None:
    if job.answer.done():
        return
    if isinstance(result, VitrineError):
        job.answer.set_exception(result)
    else:
        job.answer.set_result(result)
