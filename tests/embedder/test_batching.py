"""The batcher, with a device that is free when the test says so: no GPU, no sleeps."""

import asyncio
from collections import deque
from contextlib import asynccontextmanager

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.embedder.batching import Batcher, Batching, batch_sizes
from services.embedder.priority import Priority
from services.embedder.session import Outputs
from vitrine.errors import DeadlineError, InternalError, UnavailableError

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


class Device:
    """Holds every batch until it is released; answers each picture with its own first value."""

    def __init__(self):
        self.batches = []
        self._gates = deque()
        self._started = asyncio.Event()

    async def __call__(self, pixels):
        gate = asyncio.get_running_loop().create_future()
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        self._gates.append(gate)
        self._started.set()
        await gate
        return Outputs(pixels[:, 0, 0, :1].astype(np.float32), None)

    async def busy(self):
        """Returns once a batch is running."""
        while not self._gates:
            self._started.clear()
            await self._started.wait()

    async def release(self, error=None):
        await self.busy()
        gate = self._gates.popleft()
        gate.set_exception(error) if error else gate.set_result(None)

    async def release_all(self, tasks):
        while not all(task.done() for task in tasks):
            await self.release()
            await settle()


async def settle():
    """Lets everything that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def batching(sizes=(1, 2, 4), clock=None, lanes=1, wait=0.0, sleep=asyncio.sleep):
    device = Device()
    batcher = Batcher(device, Batching(sizes, lanes, wait), "m", clock=clock or Clock(), sleep=sleep)
    running = asyncio.create_task(batcher.run())

    def submit(*values, priority=INTERACTIVE, deadline=None, caller=""):
        return [
            asyncio.create_task(batcher.submit(np.full((2, 2, 3), value, np.uint8), priority, deadline, caller))
            for value in values
        ]

    try:
        yield device, batcher, submit
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def dropped(priority, reason):
    labels = {"model": "m", "priority": priority, "reason": reason}
    return REGISTRY.get_sample_value("vitrine_embedder_dropped_total", labels) or 0.0


async def test_a_lone_image_leaves_at_once_and_the_next_batch_is_what_gathered_meanwhile():
    async with batching() as (device, _, submit):
        first = submit(1)
        await device.busy()
        assert device.batches == [[1]]
        rest = submit(2, 3)
        await settle()
        assert len(device.batches) == 1  # the device is not free
        await device.release_all(first + rest)
        assert device.batches == [[1], [2, 3]]
        assert [task.result().embedding.tolist() for task in first + rest] == [[1.0], [2.0], [3.0]]


async def test_batches_are_padded_to_a_warmed_size_and_never_larger_than_the_largest():
    async with batching(sizes=(1, 2, 4)) as (device, _, submit):
        first = submit(9)
        await device.busy()
        rest = submit(1, 2, 3, 4, 5, 6, 7)
        await device.release_all(first + rest)
        assert device.batches == [[9], [1, 2, 3, 4], [5, 6, 7, 0]]
        assert [task.result().embedding[0] for task in rest] == [1, 2, 3, 4, 5, 6, 7]


async def test_interactive_goes_first_and_bulk_only_takes_places_that_would_be_padding():
    async with batching(sizes=(1, 2, 4)) as (device, _, submit):
        first = submit(9)
        await device.busy()
        bulk = submit(101, 102, 103, 104, 105, 106, priority=BULK)
        interactive = submit(1, 2, 3)
        await device.release_all(first + bulk + interactive)
        assert device.batches == [[9], [1, 2, 3, 101], [102, 103, 104, 105], [106]]


async def test_one_interactive_image_does_not_pay_for_a_full_batch_of_bulk():
    async with batching(sizes=(1, 2, 4)) as (device, _, submit):
        running = submit(9)
        await device.busy()
        bulk = submit(*range(101, 109), priority=BULK)
        interactive = submit(1)
        await device.release()
        await device.busy()
        assert device.batches[1] == [1]
        await device.release_all(running + bulk + interactive)


async def test_cancelled_images_never_reach_the_device():
    before = dropped(INTERACTIVE, "cancelled")
    async with batching() as (device, batcher, submit):
        first = submit(9)
        await device.busy()
        kept, gone, also_kept = submit(1, 2, 3)
        await settle()
        gone.cancel()
        await settle()
        assert len(batcher) == 3
        await device.release_all([*first, kept, also_kept])
        assert device.batches == [[9], [1, 3]]
        assert dropped(INTERACTIVE, "cancelled") == before + 1
        assert len(batcher) == 0


async def test_expired_images_are_told_so_and_never_reach_the_device():
    before = dropped(BULK, "expired")
    clock = Clock()
    async with batching(clock=clock) as (device, _, submit):
        first = submit(9)
        await device.busy()
        (late,) = submit(1, priority=BULK, deadline=101.0)
        (in_time,) = submit(2, priority=BULK, deadline=102.0)
        await settle()
        clock.now = 101.0
        await device.release_all([*first, in_time])
        assert device.batches == [[9], [2]]
        with pytest.raises(DeadlineError):
            await late
        assert dropped(BULK, "expired") == before + 1


async def test_only_cancelled_work_leaves_the_device_free_for_the_next():
    async with batching() as (device, _, submit):
        first = submit(9)
        await device.busy()
        (gone,) = submit(1)
        await settle()
        gone.cancel()
        await device.release()
        await settle()
        assert device.batches == [[9]]
        later = submit(2)
        await device.release_all(first + later)
        assert device.batches == [[9], [2]]


async def test_a_caller_who_leaves_during_the_batch_does_not_disturb_its_neighbours():
    async with batching() as (device, _, submit):
        first = submit(9)
        await device.busy()
        kept, gone = submit(1, 2)
        await device.release()
        await device.busy()
        gone.cancel()
        await device.release()
        assert (await kept).embedding[0] == 1
        await asyncio.gather(*first)


async def test_a_failing_batch_fails_its_images_and_not_the_next():
    async with batching() as (device, _, submit):
        (first,) = submit(1)
        await device.busy()
        (second,) = submit(2)
        await device.release(RuntimeError("out of memory"))
        with pytest.raises(InternalError):
            await first
        await device.release()
        assert (await second).embedding[0] == 2


async def test_stopping_refuses_what_runs_and_what_waits():
    async with batching() as (device, _, submit):
        (running,) = submit(1)
        await device.busy()
        (waiting,) = submit(2)
        await settle()
    for task in (running, waiting):
        with pytest.raises(UnavailableError):
            await task


async def test_waits_and_the_time_of_an_image_are_measured():
    clock = Clock()
    async with batching(clock=clock) as (device, batcher, submit):
        (first,) = submit(1)
        await device.busy()
        two = submit(2, 3)
        await settle()
        clock.now += 4.0
        await device.release()
        await device.busy()
        clock.now += 6.0
        await device.release()
        assert ((await first).queue_seconds, (await first).model_seconds) == (0.0, 4.0)
        assert ((await two[1]).queue_seconds, (await two[1]).model_seconds) == (4.0, 6.0)
        assert batcher.seconds_per_image == pytest.approx(4.0 + 0.1 * (3.0 - 4.0))


async def test_free_lanes_share_what_waits_and_no_more_run_at_once():
    async with batching(sizes=(1, 2, 4), lanes=2) as (device, _, submit):
        first = submit(1, 2, 3, 4)
        await settle()
        assert device.batches == [[1, 2], [3, 4]]
        rest = submit(5, 6, 7)
        await settle()
        assert len(device.batches) == 2  # both lanes are busy
        await device.release()
        await settle()
        assert device.batches[2:] == [[5, 6, 7, 0]]  # the other lane is not free, so all of it
        await device.release_all(first + rest)


async def test_callers_take_turns_within_a_class():
    async with batching(sizes=(1,)) as (device, _, submit):
        running = submit(9)
        await device.busy()
        crawler = submit(1, 2, 3, caller="crawler")
        shop = submit(11, 12, caller="shop")
        bulk = submit(21, priority=BULK, caller="early bird")
        await device.release_all(running + crawler + shop + bulk)
        assert device.batches == [[9], [1], [11], [2], [12], [3], [21]]


async def test_a_batch_that_is_not_full_waits_for_company_only_as_long_as_it_is_told_to():
    waits, wake = [], asyncio.Event()

    async def sleep(seconds):
        waits.append(seconds)
        await wake.wait()

    async with batching(sizes=(1, 2), wait=0.5, sleep=sleep) as (device, _, submit):
        first = submit(1)
        await settle()
        assert (waits, device.batches) == ([0.5], [])
        second = submit(2)
        await settle()
        wake.set()
        await device.release_all(first + second)
        full = submit(3, 4)
        await device.release_all(full)
        assert device.batches == [[1, 2], [3, 4]]
        assert waits == [0.5]  # a full batch does not wait


async def test_what_goes_through_and_what_fails_is_known_to_whoever_watches_health():
    clock = Clock()
    async with batching(clock=clock) as (device, batcher, submit):
        assert (batcher.succeeded_at, batcher.failures) == (None, 0)
        for expected in (1, 2):
            (task,) = submit(1)
            await device.release(RuntimeError("out of memory"))
            await asyncio.gather(task, return_exceptions=True)
            assert batcher.failures == expected
        (task,) = submit(1)
        clock.now = 123.0
        await device.release()
        await task
        assert (batcher.succeeded_at, batcher.failures) == (123.0, 0)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 2, 3, 4, 5)), (8, (1, 2, 3, 4, 6, 8)), (32, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))],
)
def test_the_sizes_are_few_and_close(largest, sizes):
    assert batch_sizes(largest) == sizes
    for count in range(1, largest + 1):
        padded = next(size for size in sizes if size >= count)
        assert (padded - count) / padded <= 1 / 3
