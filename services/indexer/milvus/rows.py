"""A point between our records and a row of Milvus."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from services.indexer.milvus.client import Fields
from services.indexer.records import Put, Record, read_point
from vitrine.attributes import Value
from vitrine.errors import DataLossError, InvalidArgumentError
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

MAX_PAYLOAD_BYTES = 20_000
"""Attributes, content hash and image URI of one point, as `Point` serialises them.

An upsert may have to keep what updates have set since, so twice as much can come together; that and its JSON fit
Milvus' limit of 65,535 bytes a value."""

KEY, PRODUCT = "key", "product"
RECORD_FIELDS = (KEY, "version", "payload", "newer")
VECTOR_FIELDS = (*RECORD_FIELDS, "vector")

# What a filter may name to Milvus, within quotes, in any of its versions.
PLAIN = re.compile(r"[\w .,:;+&()/#%*=!?@-]{1,256}")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Row(NamedTuple):
    """A stored point: `newer` as in `Overlay`; the vector (float32, shape [dim]) where it was read."""

    record: Record
    newer: str | None
    vector: FloatArray | None


def encode_product(product_id: str) -> str:
    """Returns a product id as Milvus stores it: hexadecimal, so that no expression needs quoting."""
    return product_id.encode().hex()


def encode_key(product_id: str, image_id: str) -> str:
    """Returns a primary key; keys sort as pairs of ids do, by Unicode code point. The empty image id sorts first."""
    return f"{encode_product(product_id)}.{image_id.encode().hex()}"


def decode_key(key: str) -> tuple[str, str]:
    """Returns the product id and image id of a primary key."""
    product, _, image = key.partition(".")
    return bytes.fromhex(product).decode(), bytes.fromhex(image).decode()


def one_of(field: str, values: Iterable[str]) -> str:
    """Returns the expression that a field has one of some encoded values."""
    return f"{field} in [{', '.join(f'{chr(34)}{value}{chr(34)}' for value in values)}]"


def read_small_point(point: indexer_pb2.Point, spec: indexer_pb2.CollectionSpec) -> Put:
    """Checks a point to be written, as `read_point` does, and that it fits a row.

    Raises:
        InvalidArgumentError, PreconditionError: A field breaks its limit; names it.
    """
    put = read_point(point, spec)
    if (size := len(put.record.payload)) > MAX_PAYLOAD_BYTES:
        raise InvalidArgumentError(
            f"point.attributes has {size} bytes with content_hash and image_uri, at most {MAX_PAYLOAD_BYTES} in Milvus",
            field="point.attributes",
        )
    return put


def to_fields(row: Row, generation: int) -> Fields:
    """Returns the row as Milvus stores it."""
    assert row.vector is not None
    record = row.record
    return {
        KEY: encode_key(record.product_id, record.image_id),
        PRODUCT: encode_product(record.product_id),
        "version": record.version,
        "generation": generation,
        "payload": base64.b64encode(record.payload).decode(),
        "newer": row.newer or "",
        "attributes": _filterable(record.attributes()),
        "vector": row.vector,
    }


def from_fields(fields: Fields) -> Row:
    """Reads a row back from those of its fields that were asked for.

    Raises:
        DataLossError: It cannot be read.
    """
    try:
        product_id, image_id = decode_key(fields[KEY])
        record = Record(product_id, image_id, int(fields["version"]), base64.b64decode(fields["payload"]))
        vector = fields.get("vector")
        return Row(record, fields["newer"] or None, None if vector is None else np.asarray(vector, np.float32))
    except (KeyError, ValueError) as error:
        raise DataLossError(f"the stored point {fields.get(KEY)!r} cannot be read: {error}") from None


def _filterable(attributes: dict[str, Value]) -> dict[str, Any]:
    """Returns what Milvus filters by: all that `conditions` may ask for, and no more.

    It is never read back. A value that is never asked for is kept as an empty string, for the attribute exists.
    """
    return {name: _askable(value) for name, value in attributes.items() if PLAIN_NAME.fullmatch(name)}


def _askable(value: Value) -> Any:
    match value:
        case str():
            return value if PLAIN.fullmatch(value) else ""
        case list():
            return sorted({_askable(element) for element in value})
        case _:
            return value
