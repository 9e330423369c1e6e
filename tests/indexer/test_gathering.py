"""Who is answered together: real searches of a real block, and threads that start when the test says so."""

import asyncio
import time
from concurrent.futures import Executor

import numpy as np
import pytest

from services.indexer.filtering import AttributeFilter
from services.indexer.gathering import QUERIES_PER_TURN, Gathering, SearchJob
from services.indexer.memory import Memory
from services.indexer.queries import Query
from services.indexer.records import Put, Record
from services.indexer.transaction import Commit
from vitrine.errors import DeadlineError
from vitrine.filters import parse
from vitrine.v1 import common_pb2, indexer_pb2

POINTS, DIM = 20, 4
VECTORS = np.random.default_rng(0).standard_normal((POINTS, DIM)).astype(np.float32)


class Threads(Executor):
    """Keeps what it is given until it is told to run it."""

    def __init__(self):
        self.given = []

    def submit(self, work, /, *arguments):
        self.given.append(work)

    def run_all(self):
        """Returns how many turns there were, those that follow each other included."""
        turns = 0
        while self.given:
            self.given.pop(0)()
            turns += 1
        return turns


@pytest.fixture
def snapshot():
    memory = Memory(capacity=100, dim=DIM)
    added = {}
    for label in range(POINTS):
        stored = indexer_pb2.Point(key=common_pb2.PointKey(product_id=f"p{label}", image_id="i"), version=1)
        added[label] = Put(Record(f"p{label}", "i", 1, stored.SerializeToString()), VECTORS[label])
    return memory.apply(Commit(1, added=added))


def job(snapshot, *points, **values):
    queries = [Query(VECTORS[point], k=3, condition=values.get("condition")) for point in points]
    deadline = time.perf_counter() + values.get("left", 60)
    return SearchJob(snapshot, queries, indexer_pb2.METRIC_L2, 16, values.get("exact", False), False, deadline)


def best(part):
    return [result.hits[0].key.product_id for result in part.results]


async def waiting(gathering, *jobs):
    tasks = [asyncio.create_task(gathering.answer(each)) for each in jobs]
    for _ in range(2):  # the tasks ask, then what they asked together begins
        await asyncio.sleep(0)
    return tasks


async def test_callers_that_wait_together_share_a_turn_and_each_gets_its_own(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1)
    tasks = await waiting(gathering, job(snapshot, 1), job(snapshot, 2, 3), job(snapshot, 4))
    assert len(threads.given) == 1
    assert threads.run_all() == 1
    assert [best(part) for part in await asyncio.gather(*tasks)] == [["p1"], ["p2", "p3"], ["p4"]]


async def test_a_turn_begins_when_no_more_searches_come(snapshot, monkeypatch):
    monkeypatch.setattr("services.indexer.gathering._QUIET_SECONDS", 60.0)
    threads = Threads()
    gathering = Gathering(threads, 1, quiet_rounds=4)
    tasks = await waiting(gathering, job(snapshot, 1))
    tasks += await waiting(gathering, job(snapshot, 2))
    tasks += await waiting(gathering, job(snapshot, 3))
    assert not threads.given
    for _ in range(5):
        await asyncio.sleep(0)
    assert threads.run_all() == 1
    assert [best(part) for part in await asyncio.gather(*tasks)] == [["p1"], ["p2"], ["p3"]]


async def test_searches_do_not_wait_for_others_longer_than_a_turn_holds(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1, quiet_rounds=1_000)
    tasks = await waiting(gathering, *(job(snapshot, 0) for _ in range(QUERIES_PER_TURN)))
    assert len(threads.given) == 1
    threads.run_all()
    await asyncio.gather(*tasks)


async def test_a_loop_with_other_work_does_not_keep_a_search_waiting(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1, quiet_rounds=1_000)
    [task] = await waiting(gathering, job(snapshot, 1))
    time.sleep(0.001)  # noqa: ASYNC251 - the other work
    await asyncio.sleep(0)
    assert threads.run_all() == 1
    assert best(await task) == ["p1"]


async def test_threads_share_what_waits_and_a_turn_has_an_end(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 2)
    tasks = await waiting(gathering, *(job(snapshot, number % POINTS) for number in range(4)))
    assert len(threads.given) == 2
    threads.given.pop(0)()
    await asyncio.wait(tasks[:2], timeout=30)
    assert [task.done() for task in tasks] == [True, True, False, False]
    threads.run_all()
    await asyncio.gather(*tasks)

    gathering = Gathering(threads, 1)
    tasks = await waiting(gathering, *(job(snapshot, 0) for _ in range(QUERIES_PER_TURN + 1)))
    assert threads.run_all() == 2
    await asyncio.gather(*tasks)


async def test_what_may_take_long_or_sees_something_else_is_answered_alone(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1)
    some = AttributeFilter(parse("not exists(nothing)"))
    other = Memory(capacity=8, dim=DIM).finish_restore(0, 0)
    jobs = (job(snapshot, 1), job(snapshot, 2, exact=True), job(snapshot, 3, condition=some), job(other, 4))
    tasks = await waiting(gathering, *jobs)
    assert threads.run_all() == 4
    parts = await asyncio.gather(*tasks)
    assert [best(part) for part in parts[:3]] == [["p1"], ["p2"], ["p3"]]
    assert not parts[3].results[0].hits


async def test_who_left_costs_nothing_and_who_is_late_hears_of_it(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1)
    gone, late, fine = await waiting(gathering, job(snapshot, 1), job(snapshot, 2, left=-1), job(snapshot, 3))
    gone.cancel()
    await asyncio.sleep(0)
    assert threads.run_all() == 1
    with pytest.raises(DeadlineError):
        await late
    assert best(await fine) == ["p3"]


async def test_a_failure_is_told_to_everyone_of_the_turn_and_the_next_one_works(snapshot):
    threads = Threads()
    gathering = Gathering(threads, 1)
    wrong = job(snapshot, 1)
    wrong.queries[0] = Query(np.zeros(DIM + 1, np.float32), k=3)
    tasks = await waiting(gathering, wrong)
    threads.run_all()
    with pytest.raises(ValueError, match="matmul"):
        await tasks[0]
    (fine,) = await waiting(gathering, job(snapshot, 5))
    assert threads.run_all() == 1
    assert best(await fine) == ["p5"]
