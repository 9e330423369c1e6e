"""The way of one image through one model: admission, decoding, batching, inference, and again for its subject."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from services.embedder import metrics
from services.embedder.cache.cache import Source, VectorCache
from services.embedder.cache.key import VectorSpace
from services.embedder.cache.vector import CachedVector, TopClasses
from services.embedder.cores import Turns
from services.embedder.crop import Crop
from services.embedder.decoding import Decoding
from services.embedder.lanes import Job, Lanes
from services.embedder.model import EmbeddingModel
from services.embedder.picture import Picture
from services.embedder.priority import Priority
from services.embedder.resize import Resizer
from services.embedder.session import Outputs
from services.embedder.settings import EmbedderSettings
from services.embedder.subject import blend, find_subject
from services.embedder.timings import StageMeters, Timings
from services.runtime.gate import Gate
from vitrine.errors import DeadlineError, InvalidArgumentError, OverloadedError, VitrineError
from vitrine.tracing import record_stages
from vitrine.v1 import common_pb2, embedder_pb2

_RETRY_AFTER_SECONDS = (0.05, 5.0)
_WHOLE = Crop()
_CROP = embedder_pb2.SUBJECT_MODE_CROP
_SUBJECT_MODES = frozenset(embedder_pb2.SubjectMode.values())


class Caller(NamedTuple):
    """On whose behalf images are embedded."""

    priority: Priority
    name: str = ""
    """Who it is, for fairness; empty: did not say."""
    deadline: float | None = None
    """In `time.monotonic()`'s terms."""
    images: int = 1
    """How many come in one request, and so wait for each other."""

    @classmethod
    def with_time_left(cls, priority: Priority, name: str, seconds: float | None, images: int = 1) -> Caller:
        """Makes one whose deadline is so many seconds away; None: there is none."""
        return cls(priority, name, None if seconds is None else time.monotonic() + seconds, images)


class ImageFile(NamedTuple):
    """An image as it came, read out of its message: every look at a field of bytes copies it. Make it when admitted."""

    data: bytes
    box: common_pb2.Box | None
    """The part that is wanted, not checked yet; None: all of it."""
    subject: int = embedder_pb2.SUBJECT_MODE_UNSPECIFIED
    """What to do about the subject, not checked yet."""

    @classmethod
    def of(cls, image: embedder_pb2.ImageInput) -> Self:
        """Reads a message."""
        return cls(image.data, image.box if image.HasField("box") else None, image.subject)

    def crop(self) -> Crop:
        """Returns the part that is embedded, or embedded first.

        Raises:
            InvalidArgumentError: The box is not valid, the mode unknown, or both are given.
        """
        if self.subject not in _SUBJECT_MODES:
            raise InvalidArgumentError(f"image.subject is {self.subject}, must be a SubjectMode", field="image.subject")
        if self.box is None:
            return _WHOLE
        if self.subject:
            raise InvalidArgumentError("image.subject and image.box: send one of them", field="image.subject")
        return Crop.from_box(self.box)


class Held(NamedTuple):
    """Room in a queue; leaving the `with` block gives it back."""

    gate: Gate
    passes: int
    size: int
    caller: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.gate.leave(self.passes, self.size, self.caller)


@dataclass
class Embedded:
    """What became of one image."""

    content_hash: bytes
    """sha256 of the bytes received; empty for one that was refused unread."""
    timings: Timings
    embedding: NDArray[np.float32] | None = None
    """[dim], norm 1; None where `error` says why not."""
    classes: TopClasses | None = None
    """The most probable; None where the model has no classifier, or nobody asked."""
    subject: Crop | None = None
    """Where the subject is; None where nothing stands out, the model does not say, or nobody asked."""
    error: VitrineError | None = None


@dataclass
class _Work:
    """One image in work; it goes through the model once or twice."""

    file: ImageFile
    caller: Caller
    embedded: Embedded
    with_classes: bool
    computed: bool = False
    """Whether the model ran for it: not everything came from the cache."""


class Pipeline:
    """Embeds images with one model, within the queue bounds of the settings; create it inside the event loop.

    On a CPU the lanes decode what they run: an image then changes threads once. Large pictures, and on a GPU all of
    them, are decoded beside the lanes.
    """

    def __init__(
        self, model: EmbeddingModel, settings: EmbedderSettings, decoding: Decoding, cache: VectorCache, turns: Turns
    ) -> None:
        self._model = model
        self._decoding = decoding
        self._cache = cache
        self._space = VectorSpace(model.card.fingerprint, model.dim, len(model.labels))
        resizer = Resizer(model.card)
        self._resizer = resizer
        self._decoder = decoding.decoder(resizer)
        self._input_bytes = resizer.height * resizer.width * 3
        self._longest_wait = settings.interactive_queue_seconds
        self._decodes_in_lanes = settings.provider == "cpu"
        self.lanes = Lanes(self._run_batch, model.batching, model.name, too_large=self._decode_beside)
        self._decoding_beside: set[asyncio.Task[None]] = set()
        self._second_passes = 0
        """Images that hold two places for two passes, of which one runs at a time."""
        bounds = {
            Priority.INTERACTIVE: (settings.interactive_queue_items, settings.interactive_queue_bytes),
            Priority.BULK: (settings.bulk_queue_items, settings.bulk_queue_bytes),
        }
        self._gates = {priority: _gate(model.name, priority, *each) for priority, each in bounds.items()}
        self._turns = turns
        self._stages = StageMeters()
        self._answered = {
            (priority, code): metrics.IMAGES.labels(priority, code.name)
            for priority in Priority
            for code in grpc.StatusCode
        }
        metrics.LANES.labels(model.name).set(model.layout.lanes)

    @property
    def held(self) -> int:
        """Images held, in both classes together."""
        return sum(gate.items for gate in self._gates.values())

    def close(self) -> None:
        """Refuses what waits, lets what runs end, ends the threads and lets go of the model's weights; blocks."""
        self.lanes.close()
        self._model.close()

    async def admit(self, images: Sequence[embedder_pb2.ImageInput], caller: Caller) -> Held:
        """Takes room for images, a place for each time that the model may have to run for one.

        Bulk work waits for it, interactive work does not.

        Raises:
            OverloadedError: The interactive queue is full.
        """
        gate = self._gates[caller.priority]
        passes = len(images)
        if self._model.finds_subjects:
            passes += sum(image.subject == _CROP for image in images)
        # Not the length of its data, which would copy them.
        size = sum(image.ByteSize() for image in images) + passes * self._input_bytes
        if caller.priority is Priority.BULK:
            began = time.perf_counter()
            await gate.enter(passes, size, caller.name)
            metrics.ADMISSION_SECONDS.labels(caller.priority).observe(time.perf_counter() - began)
        else:
            if self._gates[Priority.BULK].items:
                self._turns.hurry()
            self._refuse_what_would_wait_too_long(gate, passes, caller)
            if not gate.try_enter(passes, size, caller.name):
                self._count_refused(passes, caller, "queue_full")
                raise self._overloaded(gate, caller.name)
        return Held(gate, passes, size, caller.name)

    async def embed(self, file: ImageFile, caller: Caller, *, with_classes: bool = False) -> Embedded:
        """Embeds one admitted image; whatever is wrong with it is in the answer. A cached vector has its classes."""
        embedded = Embedded(b"", Timings())
        second_pass = self._model.finds_subjects and file.subject == _CROP
        self._second_passes += second_pass
        try:
            self._decoding.limits.check_bytes(len(file.data))
            crop = file.crop()
            embedded.content_hash = await self._decoding.content_hash(file.data, caller.priority, caller.name)
            work = _Work(file, caller, embedded, with_classes or self._cache.enabled)
            vector = await self._vector(work, crop)
            subject = vector.subject if file.subject else None
            if file.subject and self._model.finds_subjects:
                metrics.SUBJECTS.labels("none" if subject is None else "found").inc()
            if second_pass and subject is not None:
                # Decoded again: the first time it may have been decoded too small for this, and a decoded picture is
                # too large to be kept while others wait.
                near = await self._vector(work, subject)
                vector = CachedVector(blend(vector.embedding, near.embedding), near.classes)
            embedded.embedding, embedded.classes, embedded.subject = vector.embedding, vector.classes, subject
            if work.computed:
                self._stages.observe(caller.priority, embedded.timings)
        except VitrineError as error:
            embedded.error = error.with_traceback(None)  # it knows this frame, and so itself and the image
        finally:
            self._second_passes -= second_pass
        self._answered[caller.priority, embedded.error.code if embedded.error else grpc.StatusCode.OK].inc()
        return embedded

    async def _vector(self, work: _Work, crop: Crop) -> CachedVector:
        key = self._space.key(work.embedded.content_hash, crop)

        async def compute() -> CachedVector:
            return await self._compute(work, crop)

        vector, source = await self._cache.get_or_compute(key, work.caller.priority, compute, work.caller.deadline)
        work.computed |= source is Source.COMPUTED
        return vector

    async def _compute(self, work: _Work, crop: Crop) -> CachedVector:
        arrived = time.monotonic()
        decoder, data, caller, timings = self._decoder, work.file.data, work.caller, work.embedded.timings
        picture = Picture(lambda in_lane: decoder.decode_small(data, crop) if in_lane else decoder(data, crop))
        try:
            if not self._decodes_in_lanes:
                await self._decode(picture, caller)
            # Images of one request wait for each other; what was admitted with them must not be refused for that.
            hasty = caller.priority is Priority.INTERACTIVE and caller.images == 1
            patience = arrived + self._longest_wait if hasty else None
            inference = await self.lanes.submit(picture, caller.priority, caller.deadline, caller.name, patience)
        finally:
            timings.decode += picture.seconds
        queued = max(time.monotonic() - arrived - picture.seconds - inference.model_seconds, 0.0)
        timings.model += inference.model_seconds
        timings.queue += queued
        if caller.priority is Priority.INTERACTIVE:
            spent = {"decode": picture.seconds, "queue": queued, "model": inference.model_seconds}
            order = ("queue", "decode", "model") if self._decodes_in_lanes else ("decode", "queue", "model")
            record_stages([(stage, spent[stage]) for stage in order])
        logits = inference.logits if work.with_classes else None
        subject = None
        if inference.attention is not None and crop == _WHOLE and (work.file.subject or self._cache.enabled):
            subject = find_subject(inference.attention, self._resizer.shown(*picture.size))
        return CachedVector(inference.embedding, None if logits is None else TopClasses.from_logits(logits), subject)

    async def _decode(self, picture: Picture, caller: Caller) -> None:
        try:
            await self._decoding.decode(picture, caller.priority, caller.deadline, caller.name)
        except DeadlineError:
            metrics.DROPPED.labels(self._model.name, caller.priority, "expired").inc()
            raise

    def _decode_beside(self, job: Job) -> None:
        """Takes a picture that is too large out of a lane's way, and puts it back decoded."""

        async def decode() -> None:
            try:
                await self._decode(job.picture, Caller(job.priority, job.caller, job.deadline))
            except VitrineError as error:
                if not job.answer.done():
                    job.answer.set_exception(error)
            else:
                self.lanes.push(job)

        task = asyncio.create_task(decode())
        self._decoding_beside.add(task)
        task.add_done_callback(self._decoding_beside.discard)
        job.answer.add_done_callback(lambda _: task.cancel())  # nobody waits for it any more

    def _run_batch(self, pixels: NDArray[np.uint8]) -> Outputs:
        alone = self.held - self._second_passes <= len(pixels)  # nothing else waits or runs
        return self._model.run(pixels, alone)

    def _refuse_what_would_wait_too_long(self, gate: Gate, images: int, caller: Caller) -> None:
        """Holds interactive work to what it can be answered in time: an answer that comes too late helps nobody.

        Raises:
            OverloadedError: The wait for those before it is over the limit, or over the caller's own deadline.
        """
        wait = gate.items * self.lanes.seconds_per_image
        left = math.inf if caller.deadline is None else caller.deadline - time.monotonic()
        if wait > min(self._longest_wait, left):
            self._count_refused(images, caller, "wait_too_long")
            limit = (
                f"interactive_queue_seconds is {self._longest_wait:g}"
                if wait > self._longest_wait
                else f"the deadline is in {max(left, 0):.3f} s"
            )
            raise OverloadedError(
                f"the wait for the {gate.items} images before this one would be {wait:.3f} s, {limit}",
                retry_after=_within(wait, *_RETRY_AFTER_SECONDS),
            )

    def _count_refused(self, images: int, caller: Caller, reason: str) -> None:
        self._turns.hurry()
        metrics.DROPPED.labels(self._model.name, caller.priority, reason).inc(images)

    def _overloaded(self, gate: Gate, caller: str) -> OverloadedError:
        held = gate.held_by(caller)
        whose = f", {held} of them of {caller!r}, which must leave room for others" if caller and held else ""
        return OverloadedError(
            f"the interactive queue is full: it holds {gate.items} images of {gate.bytes} bytes{whose}; "
            f"interactive_queue_items is {gate.max_items}, interactive_queue_bytes is {gate.max_bytes}",
            retry_after=_within(gate.items * self.lanes.seconds_per_image, *_RETRY_AFTER_SECONDS),
        )


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _gate(model: str, priority: Priority, max_items: int, max_bytes: int) -> Gate:
    gate = Gate(max_items, max_bytes)
    metrics.QUEUE_ITEMS.labels(model, priority).set_function(lambda: gate.items)
    metrics.QUEUE_BYTES.labels(model, priority).set_function(lambda: gate.bytes)
    metrics.QUEUE_LIMIT_ITEMS.labels(model, priority).set(max_items)
    return gate
