"""The curve is a probability that rises with evidence, also where evidence tells everything or nothing."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vitrine.recognition.curve import Curve, NoCurveError

finite = st.floats(-1, 1.5)
samples = st.lists(st.tuples(finite, st.booleans()), min_size=4, max_size=60)


@given(samples, st.lists(finite, min_size=2, max_size=10))
def test_a_fitted_curve_is_bounded_and_rises(observed, asked):
    evidence = np.array([value for value, _ in observed])
    right = np.array([each for _, each in observed])
    assume(right.any() and not right.all())
    try:
        curve = Curve.fit(evidence, right)
    except NoCurveError:
        return
    assert curve.slope > 0
    assert math.isfinite(curve.slope)
    assert math.isfinite(curve.offset)
    chances = [curve.confidence(value) for value in sorted(asked)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert chances == sorted(chances)


@given(st.floats(0.5, 60), st.floats(-20, 20), st.floats(0.01, 0.99))
def test_evidence_and_confidence_are_each_others_inverse(slope, offset, confidence):
    curve = Curve(slope, offset)
    assert curve.confidence(curve.evidence(confidence)) == pytest.approx(confidence, abs=1e-6)


@given(st.floats(-1e6, 1e6))
def test_no_evidence_overflows(evidence):
    assert 0 <= Curve(50.0, -20.0).confidence(evidence) <= 1


def test_it_finds_the_curve_that_made_the_sample():
    random = np.random.default_rng(0)
    evidence = random.uniform(0, 1, 20_000)
    right = random.uniform(size=20_000) < 1 / (1 + np.exp(-(20 * evidence - 9)))
    curve = Curve.fit(evidence, right)
    assert curve.slope == pytest.approx(20, rel=0.05)
    assert curve.offset == pytest.approx(-9, rel=0.05)


def test_kinds_that_do_not_overlap_give_a_finite_curve_between_them():
    evidence = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    curve = Curve.fit(evidence, evidence > 0.5)
    assert 0.3 < curve.evidence(0.5) < 0.7
    assert curve.confidence(0.9) < 1


def test_evidence_that_says_the_opposite_gives_no_curve():
    evidence = np.linspace(0, 1, 50)
    with pytest.raises(NoCurveError):
        Curve.fit(evidence, evidence < 0.5)


def test_evidence_that_never_changes_gives_no_curve():
    with pytest.raises(NoCurveError):
        Curve.fit(np.full(10, 0.4), np.arange(10) < 5)
