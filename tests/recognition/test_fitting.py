"""From trials to a curve, rates and a threshold that refuses what it is told to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.recognition.calibrating import Outcome, fit, rates
from vitrine.recognition.calibration import Basis, Calibration
from vitrine.recognition.curve import NoCurveError
from vitrine.recognition.trials import Trial

evidence = st.floats(-0.5, 1.25, width=32)
trials = st.lists(st.builds(Trial, evidence, st.booleans(), evidence), min_size=2, max_size=60)


def outcome(some):
    curve = fit(some)
    return Outcome(Calibration("shop", "ab" * 32, curve, 0.5, rates(curve, some, 0.5), Basis(0, 0, 0, len(some))), some)


@given(trials, st.floats(0.01, 0.999))
def test_the_threshold_refuses_what_it_is_told_to_and_no_lower_one_does(some, share):
    try:
        found = outcome(some)
    except NoCurveError:
        return
    point = found.at_refusal(share)
    assert 0 <= point.min_confidence <= 1
    confidences = [found.calibration.curve.confidence(each.unknown) for each in some]
    if max(confidences) < 1:  # nothing is above certainty
        assert point.rates.refused >= share
        lower = max((each for each in confidences if each < point.min_confidence), default=0.0)
        assert rates(found.calibration.curve, some, lower).refused < share


@given(trials)
def test_rates_are_shares_that_fall_as_the_threshold_rises(some):
    try:
        curve = fit(some)
    except NoCurveError:
        return
    ladder = [rates(curve, some, threshold) for threshold in np.linspace(0, 1, 11)]
    for low, high in pairwise(ladder):
        assert high.refused >= low.refused
        assert high.accepted <= low.accepted
        assert high.mistaken <= low.mistaken
    assert ladder[0].refused == 0
    assert ladder[0].accepted + ladder[0].mistaken == pytest.approx(1)


def test_what_is_well_apart_is_told_apart():
    random = np.random.default_rng(1)
    some = [Trial(float(random.normal(0.7, 0.05)), True, float(random.normal(0.2, 0.05))) for _ in range(100)]
    found = outcome(some)
    assert found.calibration.expected.refused == 1
    assert found.calibration.expected.accepted == 1
