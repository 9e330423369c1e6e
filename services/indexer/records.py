"""One point, between the wire, the store and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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

    `payload` is a serialised `Point` with attributes, content hash and image URI only.
    """

    __slots__ = ("image_id", "payload", "product_id", "version")

    def __init__(self, product_id: str, image_id: str, version: int, payload: bytes) -> None:
        self.product_id = product_id
        self.image_id = image_id
        self.version = version
        self.payload = payload

    def attributes(self) -> dict[str, Value]:
        """Returns the typed attributes, decoded anew."""
        return attributes.map_from_proto(self.stored().attributes)

    def stamped(self, version: int) -> Record:
        """Returns the same record with another version."""
        return Record(self.product_id, self.image_id, version, self.payload)

    def stored(self) -> indexer_pb2.Point:
        """Returns what the payload says, decoded anew."""
        return indexer_pb2.Point.FromString(self.payload)

    def point(self) -> indexer_pb2.Point:
        """Returns the point as answered to callers, without its vector."""
        point = self.stored()
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


@dataclass(frozen=True, slots=True)
class Update:
    """A checked change of attributes of an image, or of all images of a product where `image_id` is empty.

    `changes` maps a name to its new value, or to None where the attribute goes; version as in `Put`.
    """

    product_id: str
    image_id: str
    version: int
    changes: dict[str, common_pb2.AttributeValue | None]


Operation: TypeAlias = Put | Remove | Update

NOT_STORED = -1
"""The outcome of an update whose key holds nothing."""

TOO_MANY_ATTRIBUTES = -2
"""The outcome of an update that would leave a point with more attributes than it may have."""


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
    attributes.map_from_proto(point.attributes, "point.attributes")  # checks them
    vector = read_vector(point.vector, spec, "point.vector")
    payload = indexer_pb2.Point(
        attributes=point.attributes, content_hash=point.content_hash, image_uri=point.image_uri
    ).SerializeToString()
    return Put(Record(point.key.product_id, point.key.image_id, point.version, payload), vector)


def read_update(update: indexer_pb2.AttributeUpdate, spec: indexer_pb2.CollectionSpec, field: str) -> Update:
    """Checks a change of attributes.

    Raises:
        InvalidArgumentError, PreconditionError: A field breaks its limit; names it.
    """
    check_key(update.key, f"{field}.key", whole_product=True)
    check_owner(update.key.product_id, spec, f"{field}.key.product_id")
    check_version(update.version, f"{field}.version")
    attributes.map_from_proto(update.set, f"{field}.set")  # checks them
    if not update.set and not update.unset:
        raise InvalidArgumentError(f"{field} neither sets nor unsets anything", field=field)
    changes: dict[str, common_pb2.AttributeValue | None] = dict(update.set)
    for name in update.unset:
        if name in changes:
            raise InvalidArgumentError(
                f"{field}.unset: {name[:80]!r} stands there twice, or in set too", field=f"{field}.unset"
            )
        changes[name] = None
    return Update(update.key.product_id, update.key.image_id, update.version, changes)
