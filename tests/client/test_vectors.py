"""Vectors on the wire: exact there and back, and refused for the right reason."""

import numpy as np
import pytest

from vitrine import vectors
from vitrine.errors import InvalidArgumentError, PreconditionError
from vitrine.v1 import common_pb2

SPACE = "ab" * 32


def packed(**changes):
    vector = vectors.to_proto(np.array([1.0, -2.5, 3.25], np.float32), SPACE)
    for name, value in changes.items():
        setattr(vector, name, value)
    return vector


def test_there_and_back():
    assert packed().data == bytes.fromhex("0000803f000020c000005040")
    np.testing.assert_array_equal(vectors.from_proto(packed(), dim=3, fingerprint=SPACE), [1.0, -2.5, 3.25])


def test_half_precision_is_accepted():
    half = packed(data=np.array([1.0, -2.5, 3.25], "<f2").tobytes(), dtype=common_pb2.VECTOR_DTYPE_FLOAT16)
    unpacked = vectors.from_proto(half, dim=3, fingerprint=SPACE)
    assert unpacked.dtype == np.float32
    np.testing.assert_array_equal(unpacked, [1.0, -2.5, 3.25])


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"fingerprint": "cd" * 32}, PreconditionError, "query.fingerprint.*cdcd.*abab"),
        ({"fingerprint": ""}, PreconditionError, r"query.fingerprint is \(empty\)"),
        ({"dim": 4}, InvalidArgumentError, "query.dim is 4, must be 3"),
        ({"data": b"\0" * 11}, InvalidArgumentError, "query.data has 11 bytes.*needs 12"),
        ({"dtype": 0}, InvalidArgumentError, "query.dtype 0"),
        ({"data": np.array([1, np.nan, 2], "<f4").tobytes()}, InvalidArgumentError, "not finite"),
        ({"data": np.array([1, np.inf, 2], "<f4").tobytes()}, InvalidArgumentError, "not finite"),
    ],
)
def test_refusals_name_field_value_and_limit(changes, kind, told):
    with pytest.raises(kind, match=told):
        vectors.from_proto(packed(**changes), dim=3, fingerprint=SPACE, field="query")
