"""One point, between the wire, the store and memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from vitrine import attributes, vectors
from vitrine.attributes import Value
from vitrine.errors import InvalidArgumentError, PreconditionError
from vitrine.keys import check_key
from vitrine.sharding import shard_of
from vitrine.v1 import common_pb2, indexer_pb2
from vitrine.vectors import FloatArray

_HASH_BYTES = 32
_MAX_URI_BYTES = 2_048
_MAX_VERSION = 2**63 - 1


class Record:
    """What a search needs to know of a point besides its vector; never changes.

    `payload` is a serialised `Point` with attributes, content hash and image URI only. The attributes are decoded
    when a filter first looks at them.
    """

    __slots__ = ("_attributes", "image_id", "payload", "product_id", "version")

    def __init__(
        self, product_id: str, image_id: str, version: int, payload: bytes, decoded: dict[str, Value] | None = None
    ) -> None:
        self.product_id = product_id
        self.image_id = image_id
        self.version = version
        self.payload = payload
        self._attributes = decoded

    @property
    def attributes(self) -> dict[str, Value]:
        """The typed attributes."""
        if self._attributes is None:
            point = indexer_pb2.Point.FromString(self.payload)
            self._attributes = _interned(attributes.map_from_proto(point.attributes))
        return self._attributes

    def stamped(self, version: int) -> Record:
        """Returns the same record with another version."""
        return Record(self.product_id, self.image_id, version, self.payload, self._attributes)

    def point(self) -> indexer_pb2.Point:
        """Returns the point as answered to callers, without its vector."""
        point = indexer_pb2.Point.FromString(self.payload)
        point.key.product_id = self.product_id
        point.key.image_id = self.image_id
        point.version = self.version
        return point


@dataclass(frozen=True, slots=True)
class Put:
    """A checked upsert: a record and its vector (float32, shape [dim], of length 1 where the metric is cosine).

    A record version of 0 means the time of arrival.
    """

    record: Record
    vector: FloatArray


@dataclass(frozen=True, slots=True)
class Remove:
    """A checked delete of an image, or of a whole product where `image_id` is empty; version as in `Put`."""

    product_id: str
    image_id: str
    version: int


def check_version(version: int, field: str) -> None:
    """Raises InvalidArgumentError unless 0 or a positive int64."""
    if not 0 <= version <= _MAX_VERSION:
        raise InvalidArgumentError(f"{field} is {version}, must be 0 to {_MAX_VERSION}", field=field)


def check_owner(product_id: str, spec: indexer_pb2.CollectionSpec, field: str) -> None:
    """Raises PreconditionError where a product belongs to another shard."""
    owner = shard_of(product_id, spec.shard_count)
    if owner != spec.shard_index:
        raise PreconditionError(
            f"{field}: product {product_id!r} belongs to shard {owner} of {spec.shard_count}, "
            f"this is shard {spec.shard_index}",
            field=field,
        )


def read_vector(vector: common_pb2.Vector, spec: indexer_pb2.CollectionSpec, field: str) -> FloatArray:
    """Unpacks a vector of a collection, made unit length where the metric is cosine; float32 of shape [dim].

    Raises:
        PreconditionError: It is of another embedding space.
        InvalidArgumentError: Wrong dim, dtype or size, not finite, or zero where the metric is cosine.
    """
    unpacked = vectors.from_proto(vector, dim=spec.vector.dim, fingerprint=spec.vector.fingerprint, field=field)
    if spec.vector.metric != indexer_pb2.METRIC_COSINE:
        return unpacked
    # In float64: the square of a large or tiny float32 does not fit a float32.
    wide = unpacked.astype(np.float64)
    length = float(np.sqrt(wide @ wide))
    if length == 0.0:
        raise InvalidArgumentError(f"{field} is all zeros, which has no cosine", field=field)
    return (wide / length).astype(np.float32)


def read_point(point: indexer_pb2.Point, spec: indexer_pb2.CollectionSpec) -> Put:
    """Checks a point to be written.

    Raises:
        InvalidArgumentError, PreconditionError: A field breaks its limit; names it.
    """
    check_key(point.key, "point.key")
    check_owner(point.key.product_id, spec, "point.key.product_id")
    check_version(point.version, "point.version")
    if len(point.content_hash) not in (0, _HASH_BYTES):
        raise InvalidArgumentError(
            f"point.content_hash has {len(point.content_hash)} bytes, must have {_HASH_BYTES} or none",
            field="point.content_hash",
        )
    if (size := len(point.image_uri.encode())) > _MAX_URI_BYTES:
        raise InvalidArgumentError(
            f"point.image_uri has {size} bytes, at most {_MAX_URI_BYTES}", field="point.image_uri"
        )
    decoded = _interned(attributes.map_from_proto(point.attributes, "point.attributes"))
    vector = read_vector(point.vector, spec, "point.vector")
    payload = indexer_pb2.Point(
        attributes=point.attributes, content_hash=point.content_hash, image_uri=point.image_uri
    ).SerializeToString()
    return Put(Record(point.key.product_id, point.key.image_id, point.version, payload, decoded), vector)


def _interned(decoded: dict[str, Value]) -> dict[str, Value]:
    # Names repeat on every point of a collection.
    return {sys.intern(name): value for name, value in decoded.items()}
