"""Which images make the next batch. No threads, no clock, no device: `services.embedder.lanes` adds those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from services.embedder.priority import Priority, TwoClassQueue


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Returns 1, 2, 3, 4, 6, 8, 12, ... and `largest`: steps so small that padding wastes at most a third."""
    steps = {1, largest}
    power = 1
    while power < largest:
        steps |= {size for size in (power, power * 3 // 2) if size < largest}
        power *= 2
    return tuple(sorted(steps))


@dataclass(frozen=True)
class Batching:
    """How batches are formed."""

    sizes: tuple[int, ...] = (1,)
    """The warmed sizes, ascending; batches are padded to the next."""
    lanes: int = 1
    """Batches that run side by side."""
    wait_seconds: float = 0.0
    """How long a batch that is not full waits for company although the device is free."""
    bulk: int = 1024
    """Most images in a batch of bulk images alone."""

    def padded(self, count: int) -> int:
        """Returns the warmed size in which `count` images run."""
        return next(size for size in self.sizes if size >= count)


class Schedulable(Protocol):
    """What the scheduler must know of an image."""

    @property
    def priority(self) -> Priority:
        """Its class."""

    @property
    def caller(self) -> str:
        """On whose behalf; empty: unknown."""

    @property
    def deadline(self) -> float | None:
        """When nobody wants it any more, in the clock's time."""

    @property
    def patience(self) -> float | None:
        """Until when it may wait, in the clock's time; after that it is refused."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""


Job = TypeVar("Job", bound=Schedulable)


class Scheduler(Generic[Job]):
    """Interactive before bulk, callers in turn, nothing that is late or that nobody waits for. Not thread-safe.

    A batch takes interactive images first. Where any is on board, bulk images only fill places that would be padding,
    so that a shopper never pays for a catalogue job; otherwise bulk images fill the batch. Lanes that are free share
    what waits.
    """

    def __init__(self, batching: Batching, clock: Callable[[], float], on_drop: Callable[[Job, str], None]) -> None:
        """`on_drop` is told of every image that is dropped, and why: `cancelled`, `expired` or `waited_too_long`."""
        self._batching = batching
        self._clock = clock
        self._on_drop = on_drop
        self._queue: TwoClassQueue[Job] = TwoClassQueue()
        self.busy = 0
        """Batches running now."""

    def __len__(self) -> int:
        """Images waiting, those nobody waits for any more included."""
        return len(self._queue)

    def push(self, job: Job) -> None:
        """Adds an image at the end of its class and caller."""
        self._queue.push(job.priority, job, job.caller)

    def take(self) -> Sequence[Job]:
        """Takes the next batch for a lane that is free, and counts the lane as busy; empty: there is nothing to do."""
        sizes = self._batching.sizes
        share = -(-len(self._queue) // (self._batching.lanes - self.busy))
        most = min(share, sizes[-1])
        batch = self._take(Priority.INTERACTIVE, most)
        room = self._batching.padded(len(batch)) - len(batch) if batch else min(most, self._batching.bulk)
        batch += self._take(Priority.BULK, room)
        self.busy += bool(batch)
        return batch

    def done(self) -> None:
        """Counts a lane as free again."""
        self.busy -= 1

    def clear(self) -> list[Job]:
        """Takes everything."""
        jobs = []
        while (job := self._queue.pop()) is not None:
            jobs.append(job)
        return jobs

    def _take(self, priority: Priority, most: int) -> list[Job]:
        taken: list[Job] = []
        while len(taken) < most and (job := self._queue.pop(priority)) is not None:
            if job.abandoned:
                self._on_drop(job, "cancelled")
            elif job.deadline is not None and job.deadline <= self._clock():
                self._on_drop(job, "expired")
            elif job.patience is not None and job.patience <= self._clock():
                self._on_drop(job, "waited_too_long")
            else:
                taken.append(job)
        return taken
