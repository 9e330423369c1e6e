"""Reads of stored points by key and in key order, from the store; for threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.indexer.collection import Collection
from services.indexer.filtering import AttributeFilter
from services.indexer.records import Record
from services.indexer.store import Reader
from vitrine import vectors
from vitrine.v1 import common_pb2, indexer_pb2

_PAGE_POINTS = 512
_PAGE_BYTES = 4 * 2**20


class Page(NamedTuple):
    """Points in key order, and the key to go on after; `last` is None at the end."""

    points: list[indexer_pb2.Point]
    last: tuple[str, str] | None


def get_points(
    collection: Collection, keys: Sequence[common_pb2.PointKey], *, with_vectors: bool
) -> indexer_pb2.IndexerGetResponse:
    """Reads points by key, each once, in the order of `keys`; those not stored are left out.

    Raises:
        DataLossError: A stored row fails its checksum.
        NotFoundError: The collection was dropped.
    """
    response = indexer_pb2.IndexerGetResponse()
    seen: set[int] = set()
    with collection.store.reader() as reader:
        response.generation = reader.generation()
        for key in keys:
            rows = reader.image(key.product_id, key.image_id) if key.image_id else reader.product(key.product_id)
            for label, record in rows:
                if label not in seen:
                    seen.add(label)
                    response.points.append(_point(collection, reader, label, record, with_vectors))
    return response


def scan_page(
    collection: Collection, after: tuple[str, str], condition: AttributeFilter | None, *, with_vectors: bool
) -> Page:
    """Reads the next page in key order; it may be empty where few points match.

    Raises:
        DataLossError: A stored row fails its checksum.
        NotFoundError: The collection was dropped.
    """
    row_bytes = 4 * collection.spec.vector.dim if with_vectors else 0
    limit = max(1, min(_PAGE_POINTS, _PAGE_BYTES // row_bytes)) if row_bytes else _PAGE_POINTS
    with collection.store.reader() as reader:
        rows = reader.page(after, limit)
        points = [
            _point(collection, reader, label, record, with_vectors)
            for label, record in rows
            if condition is None or condition.holds(record)
        ]
    return Page(points, (rows[-1][1].product_id, rows[-1][1].image_id) if len(rows) == limit else None)


def _point(collection: Collection, reader: Reader, label: int, record: Record, with_vectors: bool) -> indexer_pb2.Point:
    point = record.point()
    if with_vectors:
        point.vector.CopyFrom(vectors.to_proto(reader.vector(label), collection.spec.vector.fingerprint))
    return point
