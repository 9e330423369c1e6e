"""Evidence moves with what it should move with, and stays within its bounds."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitrine.recognition.evidence import Evidence, weigh

DIM = 6
numbers = st.floats(-1, 1, width=32, allow_subnormal=False)


def rows(least, most):
    return st.integers(least, most).flatmap(lambda n: arrays.arrays(np.float32, (n, DIM), elements=numbers))


def nothing(rows):
    return np.zeros((0, rows.shape[-1]), np.float32)


vector = arrays.arrays(np.float32, (DIM,), elements=numbers)


@given(vector, rows(1, 5), rows(0, 8))
def test_evidence_is_bounded_whatever_the_vectors(photo, candidate, others):
    evidence = weigh(photo, candidate, others)
    assert -1.0001 <= evidence.support <= evidence.best + 1e-6
    assert evidence.best <= 1.0001
    assert abs(evidence.value) <= 1.5001


@given(vector, rows(1, 5), rows(0, 8), st.floats(0.5, 20, width=32))
def test_the_length_of_vectors_says_nothing(photo, candidate, others, factor):
    # Below, squares of what is scaled down are too small for float32; embeddings have norm 1.
    assume(min(float(np.linalg.norm(each)) for each in (photo, *candidate)) > 1e-9)
    plain, scaled = weigh(photo, candidate, others), weigh(photo * factor, candidate * factor, others)
    # Two images that tie may change places with the rounding, and have other look-alikes: compare what cannot.
    for name in ("best", "support", "margin"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), abs=1e-4)


@given(rows(1, 5), rows(1, 8))
def test_a_look_alike_takes_evidence_away(candidate, others):
    photo = candidate[0] + 0.01  # near its first image
    before = weigh(photo, candidate, others)
    after = weigh(photo, candidate, np.vstack([others, photo]))
    assert after.margin <= before.margin + 1e-6
    assert (after.best, after.support) == (before.best, before.support)


@given(vector, rows(1, 5), rows(1, 8))
def test_the_order_of_images_and_products_does_not_matter(photo, candidate, others):
    there, back = weigh(photo, candidate, others), weigh(photo, candidate[::-1], others[::-1])
    for name in ("best", "support", "margin"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), abs=1e-6)


def test_the_parts_of_a_case_worked_by_hand():
    photo = np.array([1, 0, 0], np.float32)
    candidate = np.array([[0.8, 0.6, 0], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    others = np.array([[0.6, 0, 0.8], [0, 1, 0]], np.float32)
    evidence = weigh(photo, candidate, others)
    assert evidence.best == pytest.approx(0.8)
    assert evidence.support == pytest.approx(0.7)  # of the two best
    assert evidence.margin == pytest.approx(0.2)
    assert evidence.isolation == pytest.approx(0.8 - (0.48 + 0.6) / 2)
    assert evidence.value == pytest.approx((0.8 + 0.7 + 0.2 + 0.26) / 4)


def test_with_nothing_to_compare_with_there_is_no_margin():
    photo = np.array([1, 0], np.float32)
    assert weigh(photo, photo[np.newaxis], nothing(photo)) == Evidence(1.0, 1.0, 0.0, 0.0)
