"""Who computes, who waits and who gets what, on an event loop without a network: no sleeps."""

import asyncio

import pytest

from services.embedder.cache.single_flight import SingleFlight
from services.embedder.priority import Priority
from tests.embedder.cache.entries import Clock, Computation, settle
from vitrine.errors import DeadlineError, InvalidArgumentError

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
KEY = bytes(32)


@pytest.fixture
async def flights():
    flights = SingleFlight(Clock())
    yield flights
    assert len(flights) == 0, "a flight was left behind"


def ask(flights, computation, priority=INTERACTIVE, deadline=None, key=KEY):
    return asyncio.create_task(flights.run(key, priority, computation, deadline))


async def test_all_who_ask_at_the_same_time_share_one_computation(flights):
    computation = Computation("answer")
    tasks = [ask(flights, computation) for _ in range(50)]
    await settle()
    computation.release()
    answers = await asyncio.gather(*tasks)
    assert computation.begun == 1
    assert [answer for answer, _ in answers] == ["answer"] * 50
    assert [joined for _, joined in answers] == [False] + [True] * 49


async def test_nothing_is_kept_for_those_who_come_later(flights):
    computation = Computation("answer")
    computation.release()
    assert await flights.run(KEY, INTERACTIVE, computation) == ("answer", False)
    assert await flights.run(KEY, INTERACTIVE, computation) == ("answer", False)
    assert computation.begun == 2


async def test_other_keys_do_not_wait(flights):
    slow, quick = Computation("slow"), Computation("quick")
    quick.release()
    waiting = ask(flights, slow)
    await settle()
    assert await flights.run(bytes(31) + b"\1", INTERACTIVE, quick) == ("quick", False)
    slow.release()
    assert await waiting == ("slow", False)


async def test_when_the_computing_caller_is_cancelled_another_takes_over_with_its_own_computation(flights):
    computations = [Computation(number) for number in range(4)]
    tasks = [ask(flights, each) for each in computations]
    await settle()
    tasks[0].cancel()
    await settle()
    assert [each.begun for each in computations] == [1, 1, 0, 0]
    assert computations[0].cancelled == 1
    tasks[1].cancel()
    await settle()
    computations[2].release()
    assert await asyncio.gather(*tasks[2:]) == [(2, False), (2, True)]
    for task in tasks[:2]:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_when_the_deadline_of_the_computing_caller_passes_another_takes_over(flights):
    first, second = Computation(), Computation("answer")
    tasks = [ask(flights, first), ask(flights, second), ask(flights, second)]
    await settle()
    first.release(DeadlineError("its own"))
    with pytest.raises(DeadlineError, match="its own"):
        await tasks[0]
    await settle()
    second.release()
    assert await asyncio.gather(*tasks[1:]) == [("answer", False), ("answer", True)]
    assert second.begun == 1


async def test_a_caller_that_only_waits_and_is_cancelled_disturbs_nobody(flights):
    computation = Computation("answer")
    tasks = [ask(flights, computation) for _ in range(3)]
    await settle()
    tasks[1].cancel()
    await settle()
    computation.release()
    assert await tasks[0] == ("answer", False)
    assert await tasks[2] == ("answer", True)
    assert (computation.begun, computation.cancelled) == (1, 0)


async def test_when_all_have_gone_nothing_computes_any_more(flights):
    computation = Computation()
    tasks = [ask(flights, computation) for _ in range(3)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert computation.cancelled == computation.begun == 1


async def test_an_error_is_everybodys_answer_and_is_not_kept(flights):
    computation = Computation("answer")
    tasks = [ask(flights, computation) for _ in range(3)]
    await settle()
    computation.release(InvalidArgumentError("not a picture"))
    for task in tasks:
        with pytest.raises(InvalidArgumentError, match="not a picture"):
            await task
    assert computation.begun == 1
    computation.error = None
    assert await flights.run(KEY, INTERACTIVE, computation) == ("answer", False)


async def test_a_caller_that_waits_keeps_its_own_deadline(flights):
    computation = Computation("answer")
    tasks = [ask(flights, computation), ask(flights, computation, deadline=flights._clock.now + 0.001)]
    with pytest.raises(DeadlineError, match="another request"):
        await tasks[1]
    computation.release()
    assert await tasks[0] == ("answer", False)


async def test_a_deadline_that_has_passed_already_is_not_waited_for(flights):
    computation = Computation("answer")
    first = ask(flights, computation)
    await settle()
    with pytest.raises(DeadlineError):
        await flights.run(KEY, INTERACTIVE, computation, deadline=flights._clock.now - 1)
    computation.release()
    await first


async def test_interactive_callers_do_not_wait_for_bulk_and_bulk_joins_interactive(flights):
    bulk, interactive = Computation("bulk"), Computation("interactive")
    early = [ask(flights, bulk, BULK) for _ in range(2)]
    await settle()
    shoppers = [ask(flights, interactive) for _ in range(2)]
    await settle()
    late = ask(flights, bulk, BULK)
    await settle()
    assert (bulk.begun, interactive.begun) == (1, 1)
    interactive.release()
    assert await asyncio.gather(*shoppers, late) == [("interactive", joined) for joined in (False, True, True)]
    assert not any(task.done() for task in early)
    bulk.release()
    assert await asyncio.gather(*early) == [("bulk", False), ("bulk", True)]
