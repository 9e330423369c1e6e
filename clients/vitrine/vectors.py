"""Vectors between numpy and the wire, always with the fingerprint of their embedding space."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vitrine.errors import InvalidArgumentError, PreconditionError
from vitrine.v1 import common_pb2

FloatArray = NDArray[np.float32]

_DTYPES: dict[int, np.dtype[np.floating]] = {
    common_pb2.VECTOR_DTYPE_FLOAT32: np.dtype("<f4"),
    common_pb2.VECTOR_DTYPE_FLOAT16: np.dtype("<f2"),
}


def to_proto(vector: FloatArray, fingerprint: str) -> common_pb2.Vector:
    """Packs a vector of shape [dim] as float32."""
    packed = np.ascontiguousarray(vector, dtype="<f4")
    return common_pb2.Vector(
        data=packed.tobytes(),
        dtype=common_pb2.VECTOR_DTYPE_FLOAT32,
        dim=packed.shape[0],
        fingerprint=fingerprint,
    )


def from_proto(vector: common_pb2.Vector, *, dim: int, fingerprint: str, field: str = "vector") -> FloatArray:
    """Unpacks and checks a vector; returns float32 of shape [dim], which may be read-only.

    Args:
        vector: As received.
        dim: Number of elements it must have.
        fingerprint: Embedding space it must be of.
        field: Its name in the request, for errors.

    Raises:
        PreconditionError: It is of another embedding space.
        InvalidArgumentError: Unknown dtype, wrong dim or byte count, or an element that is not finite.
    """
    if vector.fingerprint != fingerprint:
        raise PreconditionError(
            f"{field}.fingerprint is {vector.fingerprint[:64] or '(empty)'}, the collection's is {fingerprint}: "
            "embed with the collection's model",
            field=f"{field}.fingerprint",
        )
    dtype = _DTYPES.get(vector.dtype)
    if dtype is None:
        raise InvalidArgumentError(f"{field}.dtype {vector.dtype} is not float32 or float16", field=f"{field}.dtype")
    if vector.dim != dim:
        raise InvalidArgumentError(f"{field}.dim is {vector.dim}, must be {dim}", field=f"{field}.dim")
    if len(vector.data) != dim * dtype.itemsize:
        raise InvalidArgumentError(
            f"{field}.data has {len(vector.data)} bytes, {dim} x {dtype.name} needs {dim * dtype.itemsize}",
            field=f"{field}.data",
        )
    unpacked: FloatArray = np.frombuffer(vector.data, dtype=dtype).astype(np.float32, copy=False)
    # The sum of squares is quick, and finite where all elements are, unless they are huge.
    if not math.isfinite(np.dot(unpacked, unpacked)) and not np.isfinite(unpacked).all():
        raise InvalidArgumentError(f"{field}.data has elements that are not finite", field=f"{field}.data")
    return unpacked
