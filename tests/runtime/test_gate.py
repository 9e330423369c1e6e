"""Bounded admission: bounds, order, turns, shares, cancellation."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.fair_queue import FairQueue
from services.runtime.gate import Gate


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
    gate = Gate(3, 100)
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
    assert (gate.items, gate.bytes) == (2, 2)


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


async def test_waiting_callers_take_turns():
    gate = Gate(1)
    await gate.enter(1)
    entered = []

    async def enter(caller, number):
        await gate.enter(1, caller=caller)
        entered.append((caller, number))
        gate.leave(1, caller=caller)

    tasks = [asyncio.create_task(enter(caller, n)) for caller, n in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1))]
    await settle()
    gate.leave(1)
    await asyncio.gather(*tasks)
    assert entered == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("a", 3)]
    assert gate.items == 0


def test_a_named_caller_leaves_room_for_one_that_comes_new():
    gate = Gate(18)
    taken = 0
    while gate.try_enter(1, caller="crawler"):
        taken += 1
    assert taken == 16
    others = [gate.try_enter(1, caller=name) for name in ("shop", "app", "late")]
    assert others == [True, True, False]  # the gate itself is full by then
    for _ in range(16):
        gate.leave(1, caller="crawler")
    assert gate.try_enter(10, caller="crawler")
    assert not gate.try_enter(6, caller="crawler")  # would be 16 of 18 again, with others about
    assert gate.try_enter(4, caller="shop")


def test_callers_without_a_name_are_held_to_the_gate_alone():
    gate = Gate(5)
    assert [gate.try_enter(1) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60))
def test_a_fair_queue_loses_nothing_keeps_each_callers_order_and_lets_nobody_wait_twice(steps):
    queue, inside, pushed, popped = FairQueue(), [], 0, []
    for caller, pops in steps:
        queue.push((caller, pushed), caller)
        inside.append((caller, pushed))
        pushed += 1
        for _ in range(pops):
            first, waiting = queue.first(), {name for name, _ in inside}
            item = queue.pop()
            assert item == first
            if item is None:
                assert not inside
                continue
            assert item == next(each for each in inside if each[0] == item[0])  # first in, first out for a caller
            inside.remove(item)
            popped.append((item[0], waiting))
        assert len(queue) == len(inside)
    rest = [queue.pop() for _ in range(len(inside))]
    assert sorted(rest) == sorted(inside)
    names = [name for name, _ in rest]
    for start in range(len(names)):  # a caller comes again only after everyone else who waits
        again = next((k for k in range(start + 1, len(names)) if names[k] == names[start]), None)
        if again is not None:
            assert set(names[start:]) == set(names[start:again])
