"""How a step's share of a request's time is cut."""

import pytest

from vitrine.search import timing
from vitrine.search.timing import Timer


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time that passes only when told to; returns a list whose one element it is."""
    now = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "budget"), [(4.0, 3.75), (1.0, 0.9), (0.1, 0.09)])
def test_a_step_leaves_a_tenth_for_the_way_back_and_a_quarter_of_a_second_at_most(seconds, budget):
    assert Timer.within(seconds).budget() == pytest.approx(budget)


def test_what_earlier_steps_took_is_gone(clock):
    timer = Timer.within(1.0)
    clock[0] += 0.5
    assert timer.budget() == pytest.approx(0.45)
    clock[0] += 1.0
    assert 0 < timer.budget() < 0.002
