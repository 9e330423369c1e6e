"""What two collections do not have in common, found by walking both in key order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

import numpy as np

from vitrine.collections.scanning import key_of
from vitrine.v1 import common_pb2, indexer_pb2

# A shard makes cosine vectors unit length when it stores them, which moves an element of a copy by its last bit.
_TOLERANCE = 1e-6


class Difference(NamedTuple):
    """A key that the two sides do not hold alike; None: that side does not hold it."""

    source: indexer_pb2.Point | None
    target: indexer_pb2.Point | None


async def differences(
    source: AsyncGenerator[indexer_pb2.Point, None], target: AsyncGenerator[indexer_pb2.Point, None]
) -> AsyncGenerator[Difference, None]:
    """Yields, in key order, every key that is on one side only or not the same on both.

    Args:
        source: Points with vectors in key order.
        target: The same.
    """
    left, right = await anext(source, None), await anext(target, None)
    while left is not None or right is not None:
        if right is None or (left is not None and key_of(left) < key_of(right)):
            yield Difference(left, None)
            left = await anext(source, None)
        elif left is None or key_of(right) < key_of(left):
            yield Difference(None, right)
            right = await anext(target, None)
        else:
            if not same(left, right):
                yield Difference(left, right)
            left, right = await anext(source, None), await anext(target, None)


def same(one: indexer_pb2.Point, other: indexer_pb2.Point) -> bool:
    """Tells whether two points of one key have the same version, content and vector."""
    return (
        one.version == other.version
        and one.content_hash == other.content_hash
        and one.image_uri == other.image_uri
        and one.attributes == other.attributes
        and _same_vector(one.vector, other.vector)
    )


def _same_vector(one: common_pb2.Vector, other: common_pb2.Vector) -> bool:
    if one == other:
        return True
    if (one.dtype, one.dim, one.fingerprint) != (other.dtype, other.dim, other.fingerprint):
        return False
    # Shards answer in float32, whatever was sent to them.
    left, right = (np.frombuffer(each.data, dtype="<f4") for each in (one, other))
    return bool(np.allclose(left, right, rtol=_TOLERANCE, atol=_TOLERANCE))
