"""A builder takes what others leave, and does not starve."""

import os
import sys

import pytest

from services.indexer import leftovers
from services.indexer.leftovers import Leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class Machine:
    """A clock, the processor that the process had, and the policies it asked for."""

    def __init__(self):
        self.now = self.spent = 0.0
        self.asked = []
        self.leftovers = Leftovers(self.asked.append, lambda: self.now, lambda: self.spent)

    def second(self, share):
        self.now += 1
        self.spent += share
        self.leftovers.look()


def test_a_job_that_gets_a_core_asks_for_nothing():
    machine = Machine()
    with machine.leftovers.job():
        for share in (1.0, 0.5, 0.1):
            machine.second(share)
    assert machine.asked == []


def test_a_job_that_starves_insists_once_until_it_is_done():
    machine = Machine()
    with machine.leftovers.job():
        machine.second(0.5)
        machine.second(0.09)
        assert machine.asked == [os.SCHED_OTHER]
        machine.second(0.01)
        machine.second(1.0)
        assert machine.asked == [os.SCHED_OTHER]
    assert machine.asked == [os.SCHED_OTHER, os.SCHED_IDLE]
    with machine.leftovers.job():
        machine.second(0.0)
    assert machine.asked == [os.SCHED_OTHER, os.SCHED_IDLE] * 2


def test_who_has_nothing_to_do_does_not_starve_and_a_young_job_is_not_judged():
    machine = Machine()
    machine.second(0.0)
    machine.second(0.0)
    with machine.leftovers.job():
        machine.now += 0.5
        machine.leftovers.look()
    assert machine.asked == []


def test_a_job_that_fails_gives_back_what_it_insisted_on():
    machine = Machine()
    with pytest.raises(OSError, match="disk"), machine.leftovers.job():
        machine.second(0.0)
        raise OSError("disk")
    assert machine.asked == [os.SCHED_OTHER, os.SCHED_IDLE]


@pytest.mark.parametrize(("cores", "kept_to"), [([3, 7], [[7], [3, 7]]), ([3], []), ([1, 2, 3], [])])
def test_of_two_cores_it_lives_on_one_unless_it_insists(monkeypatch, cores, kept_to):
    policies, kept = [], []
    monkeypatch.setattr(leftovers, "_CORES", cores)
    monkeypatch.setattr(leftovers.turns, "set_policy_of_all", lambda policy, turn: policies.append(policy))
    monkeypatch.setattr(leftovers.turns, "keep_to", lambda cores: kept.append(list(cores)))
    for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
        leftovers.live_by(policy)
    assert policies == [os.SCHED_IDLE, os.SCHED_OTHER]
    assert kept == kept_to
