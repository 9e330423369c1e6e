"""Several vectors into one: by direction and weight, as long as the parts."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitrine import vectors
from vitrine.errors import InvalidArgumentError, PreconditionError
from vitrine.search.combining import Weighted, combine, weighted_sum

SPACE = "ab" * 32
ELEMENTS = st.floats(-4, 4, width=16)
WEIGHTS = st.floats(-10, 10, width=16).filter(lambda weight: abs(weight) > 1e-3)


def part(*elements, weight=1.0, fingerprint=SPACE, field="query[0]"):
    return Weighted(field, vectors.to_proto(np.array(elements, np.float32), fingerprint), weight)


def unpacked(vector):
    return vectors.from_proto(vector, dim=vector.dim, fingerprint=SPACE)


@given(
    st.integers(1, 5).flatmap(
        lambda count: st.tuples(
            arrays(np.float32, (count, 3), elements=ELEMENTS),
            arrays(np.float32, count, elements=WEIGHTS),
        )
    )
)
def test_the_sum_points_where_the_weighted_directions_point(given_rows):
    rows, weights = given_rows
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    assume((lengths > 0.01).all())
    exact = (weights[:, np.newaxis] * rows / lengths[:, np.newaxis]).sum(axis=0)
    assume(np.linalg.norm(exact) > 1e-3 * np.abs(weights).sum())
    found = weighted_sum(rows, weights)
    assert found @ exact == pytest.approx(np.linalg.norm(found) * np.linalg.norm(exact), rel=1e-3)
    assert np.linalg.norm(found) == pytest.approx(np.average(lengths, weights=np.abs(weights)), rel=1e-4)


def test_one_vector_is_itself_bit_by_bit():
    alone = part(0.1, 0.7, -2.0, weight=3.0)
    assert combine([alone]) == alone.vector


def test_less_like_this_turns_away_from_it():
    found = unpacked(combine([part(1, 0), part(0, 1, weight=-0.5)]))
    np.testing.assert_allclose(found, np.array([1, -0.5]) / np.hypot(1, 0.5), rtol=1e-6)
    np.testing.assert_allclose(unpacked(combine([part(3, 4, weight=-2)])), [-3, -4], rtol=1e-6)


def test_what_cannot_be_combined_is_named():
    with pytest.raises(InvalidArgumentError, match="cancel each other out") as caught:
        combine([part(1, 2), part(2, 4, weight=-1)])
    assert caught.value.violations[0].field == "query"
    with pytest.raises(PreconditionError, match=r"query\[1\] is of another embedding space \(cdcd"):
        combine([part(1, 2), part(1, 2, fingerprint="cd" * 32, field="query[1]")])
    with pytest.raises(InvalidArgumentError, match=r"query\[1\].dim is 3, must be 2"):
        combine([part(1, 2), part(1, 2, 3, field="query[1]")])
    with pytest.raises(InvalidArgumentError, match=r"query\[1\] is the zero vector"):
        combine([part(1, 2), part(0, 0, field="query[1]")])
