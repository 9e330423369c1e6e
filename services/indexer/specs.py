"""The limits of a collection's spec."""

from __future__ import annotations

import re

from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_collection_name
from vitrine.v1 import indexer_pb2

_MAX_DIM = 4_096
_MAX_SHARDS = 1_024
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def check_spec(spec: indexer_pb2.CollectionSpec) -> None:
    """Raises InvalidArgumentError where a field breaks its limit in `indexer.proto`; names it."""
    check_collection_name(spec.name, "spec.name")
    _check_range("spec.vector.dim", spec.vector.dim, 1, _MAX_DIM)
    if spec.vector.metric not in (
        indexer_pb2.METRIC_COSINE,
        indexer_pb2.METRIC_L2,
        indexer_pb2.METRIC_INNER_PRODUCT,
    ):
        raise InvalidArgumentError(
            f"spec.vector.metric is {spec.vector.metric}, must be cosine, L2 or inner product",
            field="spec.vector.metric",
        )
    if not _FINGERPRINT.fullmatch(spec.vector.fingerprint):
        raise InvalidArgumentError(
            f"spec.vector.fingerprint {spec.vector.fingerprint[:80]!r} is no lower-case hex sha256",
            field="spec.vector.fingerprint",
        )
    if spec.hnsw.m:
        _check_range("spec.hnsw.m", spec.hnsw.m, 4, 64)
    if spec.hnsw.ef_construction:
        _check_range("spec.hnsw.ef_construction", spec.hnsw.ef_construction, 16, 2_000)
    _check_range("spec.shard_count", spec.shard_count, 1, _MAX_SHARDS)
    _check_range("spec.shard_index", spec.shard_index, 0, spec.shard_count - 1)


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidArgumentError(f"{field} is {value}, must be {low} to {high}", field=field)
