"""The lanes, with a device that is free when the test says so: no GPU, no sleeps."""

import asyncio
import queue
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest

from services.embedder.decode import Decoded
from services.embedder.lanes import Lanes
from services.embedder.picture import Picture
from services.embedder.priority import Priority
from services.embedder.scheduler import Batching
from services.embedder.session import Outputs
from tests.embedder.serving import eventually
from vitrine.errors import DeadlineError, InternalError, InvalidArgumentError, OverloadedError, UnavailableError

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
PATIENCE = 30


class Device:
    """Holds every batch until it is released; answers each picture with its own first value."""

    def __init__(self):
        self.batches = []
        self._verdicts = queue.Queue()

    def __call__(self, pixels):
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        if error := self._verdicts.get(timeout=PATIENCE):
            raise error
        return Outputs(pixels[:, 0, 0, :1].astype(np.float32), None)

    def release(self, times=1, error=None):
        for _ in range(times):
            self._verdicts.put(error)

    async def running(self, batches):
        await eventually(lambda: len(self.batches) == batches)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def running(sizes=(1, 2, 4), lanes=1, wait=0.0, clock=None, too_large=None):
    device = Device()
    under_test = Lanes(device, Batching(sizes, lanes, wait), "m", clock=clock or Clock(), too_large=too_large)

    def submit(*values, priority=INTERACTIVE, deadline=None, patience=None):
        pictures = [each if isinstance(each, Picture) else picture(each) for each in values]
        return [
            asyncio.create_task(under_test.submit(each, priority, deadline, patience=patience)) for each in pictures
        ]

    try:
        yield device, under_test, submit
    finally:
        device.release(100)
        await asyncio.to_thread(under_test.close)


def picture(value):
    return Picture.of(np.full((2, 2, 3), value, np.uint8))


async def test_a_lone_image_leaves_at_once_and_the_next_batch_is_what_gathered_meanwhile():
    async with running() as (device, lanes, submit):
        first = submit(1)
        await device.running(1)
        rest = submit(2, 3, 4)
        await eventually(lambda: len(lanes) == 3)
        assert device.batches == [[1]]  # the device is not free
        device.release(2)
        assert [(await task).embedding.tolist() for task in first + rest] == [[1.0], [2.0], [3.0], [4.0]]
        assert device.batches == [[1], [2, 3, 4, 0]]  # padded to a warmed size


async def test_as_many_batches_run_side_by_side_as_there_are_lanes():
    async with running(sizes=(1,), lanes=2) as (device, lanes, submit):
        tasks = submit(1, 2, 3)
        await device.running(2)
        await eventually(lambda: len(lanes) == 1)
        device.release()
        await device.running(3)
        device.release(2)
        assert sorted([(await task).embedding[0] for task in tasks]) == [1, 2, 3]


async def test_cancelled_and_expired_images_never_reach_the_device():
    clock = Clock()
    async with running(clock=clock) as (device, lanes, submit):
        first = submit(9)
        await device.running(1)
        gone, kept = submit(1, 2)
        (late,) = submit(3, deadline=101.0)
        await eventually(lambda: len(lanes) == 3)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        clock.now = 101.0
        device.release(2)
        await asyncio.gather(*first, kept)
        with pytest.raises(DeadlineError):
            await late
        assert device.batches == [[9], [2]]


async def test_a_caller_who_leaves_during_the_batch_does_not_disturb_its_neighbours():
    async with running() as (device, lanes, submit):
        first = submit(9)
        await device.running(1)
        kept, gone = submit(1, 2)
        await eventually(lambda: len(lanes) == 2)
        device.release()
        await device.running(2)
        gone.cancel()
        device.release()
        assert (await kept).embedding[0] == 1
        await asyncio.gather(*first)


async def test_a_failing_batch_fails_its_images_and_not_the_next_and_health_can_see_it():
    clock = Clock()
    async with running(clock=clock) as (device, lanes, submit):
        assert (lanes.succeeded_at, lanes.failures) == (None, 0)
        for failures in (1, 2):
            (task,) = submit(1)
            device.release(error=RuntimeError("out of memory"))
            with pytest.raises(InternalError):
                await task
            assert lanes.failures == failures
        clock.now = 123.0
        (task,) = submit(2)
        device.release()
        assert (await task).embedding[0] == 2
        assert (lanes.succeeded_at, lanes.failures) == (123.0, 0)


async def test_stopping_lets_the_running_batch_end_and_refuses_what_waits_and_what_comes():
    async with running() as (device, lanes, submit):
        (first,) = submit(1)
        await device.running(1)
        (waiting,) = submit(2)
        await eventually(lambda: len(lanes) == 1)
        closing = asyncio.create_task(asyncio.to_thread(lanes.close))
        with pytest.raises(UnavailableError):
            await waiting
        device.release()
        assert (await first).embedding[0] == 1
        await closing
        with pytest.raises(UnavailableError):
            await submit(3)[0]


async def test_a_lane_decodes_and_a_bad_picture_does_not_disturb_its_neighbours():
    decoded_in = []

    def good(in_lane):
        decoded_in.append((threading.current_thread().name, in_lane))
        return Decoded(np.full((2, 2, 3), 5, np.uint8), (2, 2))

    def bad(in_lane):
        raise InvalidArgumentError("damaged", field="image.data")

    def defect(in_lane):
        raise ZeroDivisionError

    async with running(too_large=lambda job: None) as (device, lanes, submit):
        first = submit(9)
        await device.running(1)
        fine, damaged, broken = submit(Picture(good), Picture(bad), Picture(defect))
        await eventually(lambda: len(lanes) == 3)
        device.release(2)
        assert (await fine).embedding[0] == 5
        with pytest.raises(InvalidArgumentError, match="damaged"):
            await damaged
        with pytest.raises(InternalError, match="decoding failed"):
            await broken
        await asyncio.gather(*first)
        assert decoded_in == [("lane-0", True)]
        assert device.batches == [[9], [5]]


async def test_a_picture_that_is_too_large_is_handed_over_and_comes_back_decoded():
    handed_over = asyncio.get_running_loop().create_future()

    def large(in_lane):
        return None if in_lane else Decoded(np.full((2, 2, 3), 7, np.uint8), (2, 2))

    async with running(too_large=handed_over.set_result) as (device, lanes, submit):
        (task,) = submit(Picture(large))
        job = await handed_over
        (small,) = submit(1)
        await device.running(1)  # nothing waits for the large one
        job.picture.decode()
        lanes.push(job)
        device.release(2)
        assert ((await small).embedding[0], (await task).embedding[0]) == (1, 7)


async def test_a_batch_that_is_not_full_waits_for_company_and_a_full_one_does_not():
    async with running(sizes=(1, 2), wait=PATIENCE) as (device, _, submit):
        device.release()
        tasks = [*submit(1), *submit(2)]
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE / 2)
        assert device.batches == [[1, 2]]


async def test_a_batch_does_not_wait_for_ever():
    async with running(sizes=(1, 2), wait=0.01) as (device, _, submit):
        device.release()
        assert (await submit(1)[0]).embedding[0] == 1


async def test_the_time_of_an_image_is_learnt():
    clock = Clock()
    async with running(clock=clock) as (device, lanes, submit):
        (task,) = submit(1)
        await device.running(1)
        rest = submit(2, 3)
        await eventually(lambda: len(lanes) == 2)
        clock.now += 4.0
        device.release()
        assert (await task).model_seconds == 4.0
        await device.running(2)
        clock.now += 6.0
        device.release()
        assert [(await each).model_seconds for each in rest] == [6.0, 6.0]
        learnt = pytest.approx(4.0 + 0.1 * (3.0 - 4.0))
        await eventually(lambda: lanes.seconds_per_image == learnt)  # after the answers left


async def test_nothing_is_learnt_from_what_never_went_through_the_model():
    clock = Clock()

    def damaged(in_lane):
        clock.now += 0.5
        raise InvalidArgumentError("damaged", field="image.data")

    def large(in_lane):
        clock.now += 0.5

    async def bad(task):
        with pytest.raises((InvalidArgumentError, InternalError)):
            await task

    async with running(sizes=(1, 2, 4), clock=clock, too_large=lambda job: job.answer.cancel()) as (
        device,
        lanes,
        submit,
    ):
        await bad(submit(Picture(damaged))[0])
        (failing,) = submit(1)
        await device.running(1)
        clock.now += 1.0
        device.release(error=RuntimeError("out of memory"))
        await bad(failing)
        (first,) = submit(2)
        await device.running(2)  # the lane is past those before
        assert lanes.seconds_per_image == 0.0
        # Alone they teach nothing; in company they hide nothing of what the good one took.
        mixed = submit(Picture(damaged), 3, Picture(large))
        await eventually(lambda: len(lanes) == 3)
        clock.now += 4.0
        device.release()
        await first
        await device.running(3)
        clock.now += 6.0
        device.release()
        assert (await mixed[1]).embedding[0] == 3
        learnt = pytest.approx(4.0 + 0.1 * (6.0 - 4.0))
        await eventually(lambda: lanes.seconds_per_image == learnt)  # after the answers left
        await bad(mixed[0])
        with pytest.raises(asyncio.CancelledError):
            await mixed[2]
        for _ in range(3):
            await bad(submit(Picture(damaged))[0])
        (last,) = submit(4)
        await device.running(4)
        assert lanes.seconds_per_image == learnt
        device.release()
        await last


async def test_a_picture_that_waited_too_long_is_refused_with_advice():
    clock = Clock()
    async with running(clock=clock) as (device, lanes, submit):
        first = submit(1)
        await device.running(1)
        late = submit(2, patience=101.0)
        await eventually(lambda: len(lanes) == 1)
        clock.now = 102.0
        device.release()
        await asyncio.gather(*first)
        with pytest.raises(OverloadedError, match="waited too long") as caught:
            await late[0]
        assert caught.value.retry_after is not None
        assert device.batches == [[1]]
