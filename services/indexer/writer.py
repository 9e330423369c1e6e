"""The writer thread of a collection: gathers writes, commits them together, makes them searchable, then answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from services.indexer import metrics
from services.indexer.records import Operation
from services.runtime.gate import Gate
from vitrine.errors import InternalError, NotFoundError, VitrineError

Result = TypeVar("Result")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the operations of one submission: points stored (0: stale), deleted or changed, in their order."""

    outcomes: list[int]
    generation: int


class Sink(Protocol):
    """What the writer writes to; called on its thread only."""

    def write(self, operations: Sequence[Operation]) -> Written:
        """Stores operations durably, all or none, and makes them searchable.

        Raises:
            VitrineError: Nothing was stored.
        """


@dataclass(slots=True)
class _Submission:
    operations: Sequence[Operation]
    answer: asyncio.Future[Written]
    arrived: float


class GroupCommitWriter:
    """Owns the writer thread. At most `max_queued` operations wait; more make `write` wait."""

    def __init__(self, name: str, sink: Sink, *, window: float, group: int, max_queued: int) -> None:
        """`window` is the time in seconds to wait for more operations, up to `group`, before a commit."""
        self._name = name
        self._sink = sink
        self._window = window
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._room = Gate(max_queued)
        self._changed = threading.Condition()
        self._submissions: deque[_Submission] = deque()
        self._errands: deque[Callable[[], None]] = deque()
        self._waiting = 0  # operations in `_submissions`
        self._closed = False
        self._gauge = metrics.QUEUED_POINTS.labels(name)
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self._thread.start()

    async def write(self, operations: Sequence[Operation]) -> Written:
        """Returns once the operations are durable and searchable; they are never split over two commits.

        Raises:
            NotFoundError: The collection was dropped; nothing was stored.
            VitrineError: What the sink raised; nothing was stored.
        """
        return await (await self.submit(operations))

    async def submit(self, operations: Sequence[Operation]) -> asyncio.Future[Written]:
        """Queues operations, waiting for room; the future says what became of them, as `write` does."""
        weight = len(operations)
        await self._room.enter(weight)
        submission = _Submission(operations, self._loop.create_future(), time.perf_counter())
        submission.answer.add_done_callback(lambda _: self._room.leave(weight))
        with self._changed:
            closed = self._closed
            if not closed:
                self._submissions.append(submission)
                self._waiting += weight
                self._gauge.set(self._waiting)
                self._changed.notify()
        if closed:
            submission.answer.set_exception(self._dropped())
        return submission.answer

    async def run(self, errand: Callable[[], Result]) -> Result:
        """Runs something on the writer thread, between commits.

        Raises:
            NotFoundError: The collection was dropped.
        """
        done: Future[Result] = Future()

        def call() -> None:
            try:
                done.set_result(errand())
            except BaseException as error:
                done.set_exception(error)

        with self._changed:
            if self._closed:
                raise self._dropped()
            self._errands.append(call)
            self._changed.notify()
        return await asyncio.wrap_future(done)

    async def close(self, *, discard: bool) -> None:
        """Ends the thread: after committing what is queued, or, with `discard`, after refusing it."""
        with self._changed:
            self._closed = True
            refused = list(self._submissions) if discard else []
            if discard:
                self._submissions.clear()
            self._changed.notify()
        for submission in refused:
            if not submission.answer.done():
                submission.answer.set_exception(self._dropped())
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            errands, batch = work
            for errand in errands:
                errand()
            if batch:
                self._commit(batch)

    def _next(self) -> tuple[list[Callable[[], None]], list[_Submission]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._submissions or self._errands or self._closed)
            if self._submissions and not self._errands and not self._closed:
                self._changed.wait_for(
                    lambda: self._waiting >= self._group or self._errands or self._closed, self._window
                )
            errands = list(self._errands)
            self._errands.clear()
            batch: list[_Submission] = []
            size = 0
            while self._submissions and (not batch or size + len(self._submissions[0].operations) <= self._group):
                batch.append(self._submissions.popleft())
                size += len(batch[-1].operations)
            self._waiting -= size
            self._gauge.set(self._waiting)
            return (errands, batch) if errands or batch else None

    def _commit(self, batch: list[_Submission]) -> None:
        operations = [each for submission in batch for each in submission.operations]
        started = time.perf_counter()
        error: VitrineError | None = None
        written = Written([], 0)
        try:
            written = self._sink.write(operations)
        except VitrineError as refused:
            error = refused
        except Exception as defect:
            log.exception("commit failed", collection=self._name)
            error = InternalError(f"the commit failed: {type(defect).__name__}")
        ended = time.perf_counter()
        if error is not None:
            log.error("commit refused", collection=self._name, operations=len(operations), error=error.message)
        metrics.COMMIT_SECONDS.observe(ended - started)
        metrics.COMMIT_POINTS.observe(len(operations))

        def answer() -> None:
            position = 0
            for submission in batch:
                end = position + len(submission.operations)
                if not submission.answer.done():  # cancelled: its caller is gone
                    if error is not None:
                        submission.answer.set_exception(error)
                    else:
                        submission.answer.set_result(Written(written.outcomes[position:end], written.generation))
                        metrics.FRESHNESS_SECONDS.observe(ended - submission.arrived)
                position = end

        self._loop.call_soon_threadsafe(answer)

    def _dropped(self) -> NotFoundError:
        return NotFoundError(f"collection {self._name!r} was dropped, or the shard is stopping")
