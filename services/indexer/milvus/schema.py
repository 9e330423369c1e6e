"""The two Milvus collections of one of ours: its points, and what the shard must remember beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from services.indexer.milvus.client import Fields, Milvus
from services.indexer.settings import IndexerSettings
from vitrine.v1 import indexer_pb2

_FORMAT = 1

# An id of 256 bytes in hexadecimal, twice, and the point between.
_PRODUCT_LENGTH = 512
_KEY_LENGTH = 1_025
_VALUE_LENGTH = 65_535

_STATE_DIM = 2  # every collection must have a vector; that of the state is never looked at
STATE_VECTOR = [0.0] * _STATE_DIM

# Stored vectors of cosine collections have length 1, so that their cosine is their inner product.
_METRICS = {
    indexer_pb2.METRIC_COSINE: "IP",
    indexer_pb2.METRIC_L2: "L2",
    indexer_pb2.METRIC_INNER_PRODUCT: "IP",
}


def milvus_name(name: str) -> str:
    """Returns the name in Milvus, which knows no `-`, of a collection or an alias."""
    return name.replace("-", "H")  # our names have no capitals


def our_name(name: str) -> str:
    """Returns the name that `milvus_name` came from."""
    return name.replace("H", "-")


def state_name(name: str) -> str:
    """Returns the name in Milvus of the collection with the tombstones and the counters of one of ours."""
    return f"{milvus_name(name)}_STATE"


def points_index(spec: indexer_pb2.CollectionSpec, settings: IndexerSettings) -> dict[str, Any]:
    """Returns the index of a collection's points, as arguments of pymilvus' `add_index`."""
    return {
        "field_name": "vector",
        "index_name": "vector",
        "index_type": "HNSW",
        "metric_type": _METRICS[spec.vector.metric],
        "params": {
            "M": spec.hnsw.m or settings.default_m,
            "efConstruction": spec.hnsw.ef_construction or settings.default_ef_construction,
        },
    }


STATE_INDEX: Mapping[str, Any] = {
    "field_name": "vector",
    "index_name": "vector",
    "index_type": "FLAT",
    "metric_type": "L2",
    "params": {},
}


def create_points(milvus: Milvus, spec: indexer_pb2.CollectionSpec, settings: IndexerSettings) -> None:
    """Creates the collection of the points; from then on ours exists."""
    milvus.create(
        milvus_name(spec.name),
        _describe(spec),
        [
            *_key_fields(),
            {"name": "version", "kind": "INT64"},
            {"name": "generation", "kind": "INT64"},
            {"name": "payload", "kind": "VARCHAR", "max_length": _VALUE_LENGTH},
            {"name": "newer", "kind": "VARCHAR", "max_length": _VALUE_LENGTH},
            {"name": "attributes", "kind": "JSON"},
            {"name": "vector", "kind": "FLOAT_VECTOR", "dim": spec.vector.dim},
        ],
        index=points_index(spec, settings),
        shards=settings.milvus_channels,
    )


def create_state(milvus: Milvus, name: str) -> None:
    """Creates the collection of the state."""
    milvus.create(
        state_name(name),
        f"vitrine: tombstones and counters of {name}",
        [
            *_key_fields(),
            {"name": "version", "kind": "INT64"},
            {"name": "state", "kind": "JSON"},
            {"name": "vector", "kind": "FLOAT_VECTOR", "dim": _STATE_DIM},
        ],
        index=STATE_INDEX,
        shards=1,
    )


def read_spec(described: Fields) -> indexer_pb2.CollectionSpec | None:
    """Returns the spec of a collection of points; None: Milvus has this collection for somebody else.

    Raises:
        ValueError: It is of another format, or damaged.
    """
    head, _, packed = str(described.get("description", "")).partition(" ")
    if head != "vitrine":
        return None
    body = json.loads(packed)
    if body["format"] != _FORMAT:
        raise ValueError(f"has format {body['format']}, this program knows {_FORMAT}")
    return indexer_pb2.CollectionSpec.FromString(base64.b64decode(body["spec"]))


def _describe(spec: indexer_pb2.CollectionSpec) -> str:
    # The collection's description, because it is made together with the collection and never changes.
    return "vitrine " + json.dumps({"format": _FORMAT, "spec": base64.b64encode(spec.SerializeToString()).decode()})


def _key_fields() -> list[Fields]:
    return [
        {"name": "key", "kind": "VARCHAR", "is_primary": True, "max_length": _KEY_LENGTH},
        {"name": "product", "kind": "VARCHAR", "max_length": _PRODUCT_LENGTH},
    ]
