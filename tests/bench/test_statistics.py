"""What is made of measurements, with values worked out by hand."""

import pytest

from bench.embedder.interactive import summarise
from bench.embedder.machine import ForeignLoad
from bench.embedder.overload import Outcome, accepted, recovery_seconds
from bench.statistics import median, paired_ratio, percentile_ms


def test_percentiles_are_milliseconds():
    assert percentile_ms([0.001, 0.002, 0.003], 50) == 2.0
    assert percentile_ms([0.0] * 99 + [1.0], 99) == 10.0  # between the last two values, a hundredth of the way


def test_median_of_an_even_number_is_the_middle():
    assert median([1.0, 2.0, 4.0, 100.0]) == 3.0


def test_a_paired_ratio_does_not_mind_a_slow_round():
    assert paired_ratio([90.0, 9.0, 45.0], [100.0, 10.0, 50.0]) == 0.9


def test_a_paired_ratio_of_nothing_or_to_nothing_is_none():
    assert paired_ratio([], [1.0]) is None
    assert paired_ratio([1.0], [0.0]) is None


def test_interactive_ratio_takes_one_batch_off_and_is_the_worse_one():
    found = summarise({1: [0.010], 4: [0.020]}, {1: [0.025], 4: [0.035]}, 0.005, [100.0], 0)
    assert found["one_batch_ms"] == 5.0
    assert found["callers"]["1"]["ratio"] == 2.0
    assert found["callers"]["4"]["ratio"] == 1.5
    assert found["ratio"] == 2.0


def answered(start, stop, seconds, code="OK"):
    """Ten images a second."""
    return [Outcome(start + tenth / 10, seconds, code, False) for tenth in range(round((stop - start) * 10))]


def test_only_answers_count_as_accepted():
    assert accepted([*answered(0, 0.2, 0.1), *answered(0.2, 0.4, 9.0, "RESOURCE_EXHAUSTED")]) == [0.1, 0.1]


def test_recovery_is_when_latency_is_back_and_nothing_is_refused():
    slow, fast = answered(10, 12, 0.5), answered(12, 15, 0.012)
    assert recovery_seconds([*slow, *fast], 10, 0.010) == pytest.approx(2.0)
    refused = answered(10, 12, 0.012, "RESOURCE_EXHAUSTED")
    assert recovery_seconds([*refused, *fast], 10, 0.010) == pytest.approx(2.0)
    assert recovery_seconds([*fast], 12, 0.010) == 0.0


def test_recovery_that_was_not_seen_is_none():
    assert recovery_seconds(answered(10, 15, 0.5), 10, 0.010) is None


class Disturbed(ForeignLoad):
    """Foreign work as a list says: each measurement reads it before and after."""

    def __init__(self, patience, *cores):
        super().__init__(patience)
        self._readings = [reading for each in cores for reading in (0.0, each)]

    def cores(self):
        return self._readings.pop(0)


async def measurements(foreign):
    """Returns the number of the measurement that was kept."""
    made = iter(range(10))

    async def measure():
        return {"number": next(made)}

    return (await foreign.quiet(measure))["number"]


async def test_what_others_disturbed_is_measured_again_until_it_is_quiet():
    foreign = Disturbed(100.0, 0.9, 0.8, 0.05)
    assert await measurements(foreign) == 2
    assert foreign.seen == [0.05]


async def test_calm_is_waited_for_while_patience_lasts():
    impatient, patient = Disturbed(0.4, 0.9, 0.9), Disturbed(100.0, 0.9, 0.05)
    await impatient.calm()
    await patient.calm()
    assert len(impatient._readings) == 2  # gave up after one look
    assert not patient._readings


async def test_without_patience_the_first_measurement_is_kept_and_what_disturbed_it_is_told():
    foreign = Disturbed(0.0, 0.9)
    assert await measurements(foreign) == 0
    assert foreign.seen == [0.9]


async def test_the_quietest_measurement_is_kept_when_patience_ends():
    foreign = Disturbed(1e-9, 0.4, 0.9)
    assert await measurements(foreign) == 0
    assert foreign.seen == [0.4]
