"""Admission and the decoding threads: bounds, order, cancellation."""

import asyncio
import threading

import pytest

from services.embedder.decode_pool import DecodePool
from services.embedder.gate import Gate
from services.embedder.priority import Priority, TwoClassQueue


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_gate_is_bounded_in_items_and_in_bytes():
    gate = Gate(3, 100)
    assert gate.try_enter(2, 60)
    assert not gate.try_enter(2, 10)
    assert not gate.try_enter(1, 41)
    assert gate.try_enter(1, 40)
    gate.leave(2, 60)
    assert (gate.items, gate.bytes) == (1, 40)


async def test_what_waits_enters_in_order_and_nothing_overtakes():
    changes = []
    gate = Gate(3, 100, lambda items, size: changes.append((items, size)))
    await gate.enter(3, 90)
    entered = []

    async def enter(name, items, size):
        await gate.enter(items, size)
        entered.append(name)

    tasks = [asyncio.create_task(enter(*each)) for each in (("large", 3, 90), ("small", 1, 1), ("last", 1, 1))]
    await settle()
    gate.leave(1, 30)
    assert not gate.try_enter(1, 1)  # it would fit, but others wait
    await settle()
    assert entered == []
    gate.leave(2, 60)
    await settle()
    assert entered == ["large"]
    gate.leave(3, 90)
    await asyncio.gather(*tasks)
    assert entered == ["large", "small", "last"]
    assert changes[-1] == (2, 2)


async def test_a_waiter_that_leaves_lets_the_next_in_and_takes_nothing_along():
    gate = Gate(2, 100)
    await gate.enter(1, 10)
    blocked = asyncio.create_task(gate.enter(2, 10))
    behind = asyncio.create_task(gate.enter(1, 10))
    await settle()
    assert not behind.done()
    blocked.cancel()
    await behind
    assert (gate.items, gate.bytes) == (2, 20)
    with pytest.raises(asyncio.CancelledError):
        await blocked


async def test_cancelled_and_let_in_within_one_step_gives_its_place_back():
    gate = Gate(1, 100)
    await gate.enter(1, 1)
    waiting = asyncio.create_task(gate.enter(1, 1))
    await settle()
    gate.leave(1, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (gate.items, gate.bytes) == (0, 0)
    assert gate.try_enter(1, 1)


async def test_let_go_after_a_cancelled_waiter_was_still_queued():
    gate = Gate(1, 100)
    await gate.enter(1, 1)
    gone, stays = (asyncio.create_task(gate.enter(1, 1)) for _ in range(2))
    await settle()
    gone.cancel()
    gate.leave(1, 1)
    await stays
    assert (gate.items, gate.bytes) == (1, 1)


async def test_work_larger_than_the_gate_enters_alone():
    gate = Gate(2, 100)
    await asyncio.wait_for(gate.enter(5, 500), 5)
    assert not gate.try_enter(1, 1)
    gate.leave(5, 500)
    assert gate.try_enter(1, 1)


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
