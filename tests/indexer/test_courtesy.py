"""The builder stands still for searches, not for long, and not for ever."""

import heapq
import itertools
from contextlib import contextmanager

import pytest

from services.indexer.courtesy import Courtesy
from services.indexer.settings import IndexerSettings


class Machine:
    """A clock, its timers, and when a process worked."""

    def __init__(self, beside=0):
        self.now = 0.0
        self._timers = []
        self._number = itertools.count()
        self.heard = []
        self.courtesy = Courtesy(beside, clock=lambda: self.now, sleep=self._sleep, later=self._later)

    def _later(self, seconds, function):
        timer = Timer()
        heapq.heappush(self._timers, (self.now + seconds, next(self._number), timer, function))
        return timer

    def _sleep(self, seconds):
        self.wait(seconds * 1000)

    def at(self, moment, function):
        self._later(moment - self.now, function)

    @contextmanager
    def working(self):
        def note(what):
            self.heard.append((what, round(self.now * 1000)))

        with self.courtesy.work(lambda: note("stop"), lambda: note("go")):
            yield

    def wait(self, milliseconds):
        end = self.now + milliseconds / 1000
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer, function = heapq.heappop(self._timers)
            if not timer.cancelled:
                function()
        self.now = end


class Timer:
    cancelled = False

    def cancel(self):
        self.cancelled = True


def test_a_search_stops_it_for_as_long_as_it_takes():
    machine = Machine()
    with machine.working():
        machine.wait(3)
        with machine.courtesy:
            machine.wait(7)
        machine.wait(50)
        with machine.courtesy:
            machine.wait(1)
    assert machine.heard == [("stop", 3), ("go", 10), ("stop", 60), ("go", 61)]


def test_searches_without_end_leave_it_a_fifth():
    machine = Machine()
    with machine.working(), machine.courtesy:
        machine.wait(60)
    assert machine.heard == [("stop", 0), ("go", 20), ("stop", 25), ("go", 45), ("stop", 50), ("go", 60)]


def test_what_it_is_owed_is_not_lost_between_searches():
    machine = Machine()
    with machine.working():
        with machine.courtesy:
            machine.wait(21)
        with machine.courtesy:
            machine.wait(1)
        with machine.courtesy:
            machine.wait(1)
            assert machine.heard == [("stop", 0), ("go", 20)]
            machine.wait(3)
        assert machine.heard == [("stop", 0), ("go", 20), ("stop", 25), ("go", 26)]


def test_it_stops_only_for_more_searches_than_have_a_core():
    machine = Machine(beside=2)
    with machine.working(), machine.courtesy, machine.courtesy:
        machine.wait(1)
        assert machine.heard == []
        with machine.courtesy:
            machine.wait(1)
        machine.wait(1)
    assert machine.heard == [("stop", 1), ("go", 2)]


def test_a_job_begins_stopped_amid_searches_and_nobody_stops_what_does_not_work():
    machine = Machine()
    with machine.courtesy:
        machine.wait(1)
        with machine.working():
            machine.wait(1)
        machine.wait(30)
    with machine.courtesy:
        machine.wait(30)
    assert machine.heard == [("stop", 1), ("go", 2)]


def test_a_job_that_fails_while_stopped_leaves_nothing_stopped():
    machine = Machine()
    with machine.courtesy:
        with pytest.raises(OSError, match="disk"), machine.working():
            raise OSError("disk")
        machine.wait(100)
    assert machine.heard == [("stop", 0), ("go", 0)]


@pytest.mark.parametrize(("cores", "threads", "beside"), [(1, 1, 0), (2, 1, 0), (4, 2, 1), (16, 8, 7)])
def test_how_many_searches_have_a_core(cores, threads, beside, monkeypatch):
    monkeypatch.setattr("services.indexer.settings._CORES", cores)
    assert IndexerSettings().resolved_build_threads == threads
    assert IndexerSettings().searches_beside_builder == beside


def test_a_thread_in_the_background_waits_for_searches_and_not_for_long():
    machine = Machine()
    give_way = machine.courtesy.considerate()
    machine.wait(3)
    give_way()
    assert machine.now == pytest.approx(0.003)
    with machine.courtesy:
        machine.wait(0.5)
        give_way()
        assert machine.now == pytest.approx(0.0035)  # has hardly done anything yet
        machine.wait(1)
        give_way()
        assert machine.now == pytest.approx(0.0085)
    machine.wait(1)
    machine.courtesy.__enter__()
    machine.at(0.0115, lambda: machine.courtesy.__exit__(None, None, None))
    give_way()
    assert machine.now == pytest.approx(0.0115)


@pytest.mark.parametrize(("searched", "expected"), [(None, 0), (0.0, 0.003), (0.9, 0.003), (1.1, 0)])
async def test_the_loop_is_left_to_calls_where_searches_came_lately(monkeypatch, searched, expected):
    machine, slept = Machine(), []

    async def sleep(seconds):
        slept.append(seconds)

    if searched is not None:
        with machine.courtesy:
            pass
        machine.wait(searched * 1000)
    monkeypatch.setattr("services.indexer.courtesy.asyncio.sleep", sleep)
    await machine.courtesy.make_way(0.001)
    assert slept == [pytest.approx(expected)]
