"""Several vectors into one: a sum by weight, as long as its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitrine import vectors
from vitrine.errors import InvalidArgumentError, PreconditionError
from vitrine.v1 import common_pb2
from vitrine.vectors import FloatArray

# Of the sum of the absolute weights: what is shorter is rounding.
_SMALLEST = 1e-5


class Weighted(NamedTuple):
    """A vector and its share; `field` is its name in the request."""

    field: str
    vector: common_pb2.Vector
    weight: float


def combine(parts: Sequence[Weighted]) -> common_pb2.Vector:
    """Adds vectors of one embedding space up by weight.

    Each counts by its direction, and the sum gets the parts' mean length, so that unit vectors give a unit vector and
    one vector alone is itself. A negative weight means "less like this".

    Raises:
        PreconditionError: They are of different embedding spaces.
        InvalidArgumentError: A vector is damaged or zero, or they cancel each other out.
    """
    first = parts[0]
    if len(parts) == 1 and first.weight > 0:
        return first.vector
    for part in parts[1:]:
        if part.vector.fingerprint != first.vector.fingerprint:
            raise PreconditionError(
                f"{part.field} is of another embedding space ({part.vector.fingerprint[:64] or '(empty)'}) than "
                f"{first.field} ({first.vector.fingerprint[:64] or '(empty)'}): embed both with the collection's model",
                field=part.field,
            )
    unpacked = [
        vectors.from_proto(part.vector, dim=first.vector.dim, fingerprint=first.vector.fingerprint, field=part.field)
        for part in parts
    ]
    for part, vector in zip(parts, unpacked, strict=True):
        if not vector.any():
            raise InvalidArgumentError(f"{part.field} is the zero vector, which is like nothing", field=part.field)
    total = weighted_sum(np.stack(unpacked), np.array([part.weight for part in parts], np.float32))
    if total is None:
        raise InvalidArgumentError(
            "the parts of the query cancel each other out: the sum of their vectors by weight is zero", field="query"
        )
    return vectors.to_proto(total, first.vector.fingerprint)


def weighted_sum(rows: FloatArray, weights: FloatArray) -> FloatArray | None:
    """Adds the directions of `rows` [n, dim], none of them zero, up by `weights` [n]; returns [dim], or None for zero.

    The result is as long as the rows are on average, by the size of their weights.
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    sizes = np.abs(weights.astype(np.float64))
    total = (weights / lengths) @ rows
    length = float(np.linalg.norm(total))
    if length <= _SMALLEST * float(sizes.sum()):
        return None
    mean = float(sizes @ lengths) / float(sizes.sum())
    scaled: FloatArray = (total * (mean / length)).astype(np.float32)
    return scaled
