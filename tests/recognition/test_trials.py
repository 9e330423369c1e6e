"""A catalogue picture as a photo: of its product, and of nothing that is there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitrine.recognition.evidence import unit
from vitrine.recognition.trials import attempt, judge


def products(seed, count, pictures, dim=8):
    """Vectors of products whose pictures have something in common: [pictures, dim] each."""
    random = np.random.default_rng(seed)
    return [
        unit((random.normal(size=dim) + 0.3 * random.normal(size=(pictures, dim))).astype(np.float32))
        for _ in range(count)
    ]


@given(st.integers(0, 1000), st.integers(0, 2))
def test_the_product_itself_is_only_in_one_half_of_a_trial(seed, place):
    product, *others = products(seed, 8, 3)
    trial = attempt(place, product, others)
    elsewhere = [np.delete(each, place, 0) for each in others]
    _, without = judge(product[place], elsewhere)
    best, with_it = judge(product[place], [np.delete(product, place, 0), *elsewhere])
    assert (trial.known, trial.right, trial.unknown) == (with_it.value, best == 0, without.value)


def test_pictures_from_the_same_side_are_left_out():
    product, *others = products(0, 8, 3)
    twin = others[0].copy()
    twin[1] = product[1]  # another product that looks the same from this side, and only from this
    assert attempt(1, product, [twin, *others[1:]]).unknown < 0.9 < judge(product[1], [twin, *others[1:]])[1].best
    assert attempt(1, product, [twin, *others[1:]]) == attempt(1, product, others)


def test_neighbours_that_have_no_other_picture_make_no_trial():
    product, *others = products(0, 9, 3)
    single = [each[:1] for each in others]
    assert attempt(0, product, single) is None  # all of them from this side
    assert attempt(1, product, single) is not None  # none of them
    assert attempt(0, product, [*single[:4], *others[4:]]) is not None  # half of them
    assert attempt(0, product, [*single[:5], *others[5:]]) is None
    assert attempt(0, product, others[:1]) is None  # nobody to be mistaken for


def test_judge_takes_the_product_of_the_nearest_picture():
    some = products(3, 6, 2)
    for index, product in enumerate(some):
        best, evidence = judge(product[1], some)
        assert best == index
        assert evidence.best > 0.999
