"""Reads of points by key and in key order; for threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from services.indexer.milvus.client import MAX_LIMIT, Fields
from services.indexer.milvus.collection import MilvusCollection
from services.indexer.milvus.conditions import told
from services.indexer.milvus.finding import MAX_ANSWER_BYTES, row_bytes
from services.indexer.milvus.rows import (
    KEY,
    PRODUCT,
    RECORD_FIELDS,
    VECTOR_FIELDS,
    Row,
    encode_key,
    encode_product,
    from_fields,
    one_of,
)
from services.indexer.milvus.schema import milvus_name
from vitrine import vectors
from vitrine.errors import DeadlineError
from vitrine.filters import compile_filter
from vitrine.v1 import common_pb2, filter_pb2, indexer_pb2

_PAGE_POINTS = 512
_PAGE_BYTES = 4 * 2**20
_KEYS_AT_A_TIME = 256


def get_points(
    collection: MilvusCollection, keys: Sequence[common_pb2.PointKey], *, with_vectors: bool, deadline: float
) -> indexer_pb2.IndexerGetResponse:
    """Reads points by key, each once, in the order of `keys`; those not stored are left out.

    Raises:
        DeadlineError: `deadline`, a `time.perf_counter()`, passed.
        VitrineError: Milvus failed.
    """
    view = collection.view
    images: dict[str, dict[str, Row]] = {}
    for expression in _expressions(keys):
        for fields in collection.milvus.query(
            milvus_name(collection.name),
            expression,
            VECTOR_FIELDS if with_vectors else RECORD_FIELDS,
            at=view.at,
            timeout=_left(deadline),
        ):
            row = from_fields(fields)
            images.setdefault(row.record.product_id, {})[row.record.image_id] = row
    response = indexer_pb2.IndexerGetResponse(generation=view.generation)
    for key in keys:
        stored = images.get(key.product_id, {})
        for image in [key.image_id] if key.image_id else sorted(stored):
            if (found := stored.pop(image, None)) is not None:
                response.points.append(to_point(found, collection.spec))
    return response


def scan(
    collection: MilvusCollection,
    after: tuple[str, str],
    condition: filter_pb2.Filter | None,
    *,
    with_vectors: bool,
    deadline: float,
) -> Iterator[list[indexer_pb2.Point]]:
    """Yields points in key order, in pages, some of them empty.

    Raises:
        DeadlineError: `deadline`, a `time.perf_counter()`, passed.
        VitrineError: Milvus failed.
    """
    row_size = 4 * collection.spec.vector.dim if with_vectors else 0
    size = max(1, min(_PAGE_POINTS, _PAGE_BYTES // row_size)) if row_size else _PAGE_POINTS
    start = encode_key(*after) if after != ("", "") else ""
    fields = VECTOR_FIELDS if with_vectors else RECORD_FIELDS
    for page in _matching(collection, start, condition, fields, size, deadline):
        yield [to_point(row, collection.spec) for row in page]


def count(collection: MilvusCollection, condition: filter_pb2.Filter, *, deadline: float) -> tuple[int, int]:
    """Returns the points and the products that satisfy a filter; looks at all of them.

    Raises:
        DeadlineError: `deadline`, a `time.perf_counter()`, passed.
        VitrineError: Milvus failed.
    """
    points = products = 0
    last = None
    size = min(MAX_LIMIT, MAX_ANSWER_BYTES // row_bytes(0))
    for page in _matching(collection, "", condition, RECORD_FIELDS, size, deadline):
        for row in page:  # in key order, the images of a product follow each other
            points += 1
            products += row.record.product_id != last
            last = row.record.product_id
    return points, products


def to_point(row: Row, spec: indexer_pb2.CollectionSpec) -> indexer_pb2.Point:
    """Returns a row as it is answered; with its vector where it was read."""
    point = row.record.point()
    if row.vector is not None:
        point.vector.CopyFrom(vectors.to_proto(row.vector, spec.vector.fingerprint))
    return point


def _matching(
    collection: MilvusCollection,
    start: str,
    condition: filter_pb2.Filter | None,
    fields: Sequence[str],
    size: int,
    deadline: float,
) -> Iterator[list[Row]]:
    holds = None if condition is None else compile_filter(condition)
    pages: Iterator[list[Fields]] = collection.milvus.pages(
        milvus_name(collection.name),
        KEY,
        start,
        "" if condition is None else told(condition),
        fields,
        size=size,
        at=collection.view.at,
        seconds_left=lambda: _left(deadline),
    )
    for page in pages:
        rows = map(from_fields, page)
        yield [row for row in rows if holds is None or holds(row.record.attributes())]


def _expressions(keys: Sequence[common_pb2.PointKey]) -> Iterator[str]:
    for start in range(0, len(keys), _KEYS_AT_A_TIME):
        some = keys[start : start + _KEYS_AT_A_TIME]
        images = [encode_key(key.product_id, key.image_id) for key in some if key.image_id]
        products = [encode_product(key.product_id) for key in some if not key.image_id]
        yield " or ".join(one_of(field, values) for field, values in ((KEY, images), (PRODUCT, products)) if values)


def _left(deadline: float) -> float:
    left = deadline - time.perf_counter()
    if left <= 0:
        raise DeadlineError("the deadline passed while points were read")
    return left
