"""The two classes of work and the decoding threads: order, cancellation."""

import asyncio
import threading

import pytest

from services.embedder.decode_pool import DecodePool
from services.embedder.priority import Priority, TwoClassQueue


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_two_class_queue_keeps_order_within_a_class():
    queue = TwoClassQueue()
    for item, priority in (("b1", "bulk"), ("i1", "interactive"), ("b2", "bulk"), ("i2", "interactive")):
        queue.push(Priority(priority), item)
    assert len(queue) == 4
    assert queue.pop(Priority.BULK) == "b1"
    assert [queue.pop() for _ in range(4)] == ["i1", "i2", "b2", None]


async def test_interactive_pictures_are_decoded_before_bulk_ones_and_cancelled_ones_never():
    pool = DecodePool(1)
    release, began, order = threading.Event(), threading.Event(), []

    def block():
        began.set()
        release.wait(30)

    def job(name):
        return lambda: order.append(name)

    blocker = asyncio.create_task(pool.run(block, Priority.BULK))
    await asyncio.to_thread(began.wait)
    tasks = [
        asyncio.create_task(pool.run(job(name), priority))
        for name, priority in (
            ("bulk", Priority.BULK),
            ("gone", Priority.BULK),
            ("interactive", Priority.INTERACTIVE),
        )
    ]
    await settle()
    tasks[1].cancel()
    await settle()
    release.set()
    await asyncio.gather(blocker, *tasks, return_exceptions=True)
    pool.close()
    assert order == ["interactive", "bulk"]


async def test_a_jobs_error_is_its_callers():
    pool = DecodePool(2)

    def fail():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await pool.run(fail, Priority.BULK)
    assert await pool.run(lambda: 7, Priority.BULK) == 7
    pool.close()
