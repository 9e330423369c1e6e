"""All images of returned products, with how alike each is to the query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vitrine import vectors
from vitrine.errors import NotFoundError
from vitrine.ranking.candidates import Candidate
from vitrine.search.reading import read_points
from vitrine.search.together import together
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2, search_pb2
from vitrine.vectors import FloatArray


async def read_images(
    shards: ShardSet,
    collection: str,
    product_ids: Sequence[str],
    query: common_pb2.Vector | None,
    timeout: float,
) -> dict[str, list[search_pb2.ImageMatch]]:
    """Returns the images of products, most alike first; by image id and with score 0 where the query has no vector.

    Raises:
        VitrineError: A shard that owns one of them does not answer.
    """
    keys = [common_pb2.PointKey(product_id=product_id) for product_id in product_ids]
    if query is None:
        points = await read_points(shards, collection, keys, timeout, with_vectors=False)
        points.raise_if_failed()
        return {
            product_id: [_match(point, 0.0) for point in points.of(common_pb2.PointKey(product_id=product_id))]
            for product_id in product_ids
        }
    points, metric = await together(
        read_points(shards, collection, keys, timeout, with_vectors=True), _metric(shards, collection, timeout)
    )
    points.raise_if_failed()
    unpacked = vectors.from_proto(query, dim=query.dim, fingerprint=query.fingerprint)
    return {
        product_id: _by_likeness(points.of(common_pb2.PointKey(product_id=product_id)), unpacked, query, metric)
        for product_id in product_ids
    }


async def read_best_vectors(
    shards: ShardSet, collection: str, candidates: Iterable[Candidate], timeout: float
) -> Mapping[str, FloatArray]:
    """Returns the vectors of candidates' best images, by product id; what is gone by now is left out.

    Raises:
        VitrineError: A shard that owns one of them does not answer.
    """
    keys = [candidate.hit.key for candidate in candidates]
    points = await read_points(shards, collection, keys, timeout, with_vectors=True)
    points.raise_if_failed()
    return {
        point.key.product_id: vectors.from_proto(
            point.vector, dim=point.vector.dim, fingerprint=point.vector.fingerprint
        )
        for images in points.by_product.values()
        for point in images.values()
    }


def likeness(query: FloatArray, rows: FloatArray, metric: int) -> FloatArray:
    """Returns the scores of vectors [n, dim] as an index with this metric gives them, up to rounding; [n]."""
    if metric == indexer_pb2.METRIC_L2:
        apart = rows - query
        distances: FloatArray = -np.einsum("ij,ij->i", apart, apart)
        return distances
    if metric == indexer_pb2.METRIC_COSINE:
        query = query / np.linalg.norm(query)
    scores: FloatArray = rows @ query
    return scores


def _by_likeness(
    points: Sequence[indexer_pb2.Point], query: FloatArray, proto: common_pb2.Vector, metric: int
) -> list[search_pb2.ImageMatch]:
    if not points:
        return []
    rows = np.stack(
        [vectors.from_proto(point.vector, dim=proto.dim, fingerprint=proto.fingerprint) for point in points]
    )
    matches = [_match(point, float(score)) for point, score in zip(points, likeness(query, rows, metric), strict=True)]
    return sorted(matches, key=lambda match: (-match.score, match.image_id))


def _match(point: indexer_pb2.Point, score: float) -> search_pb2.ImageMatch:
    return search_pb2.ImageMatch(image_id=point.key.image_id, score=score, image_uri=point.image_uri)


async def _metric(shards: ShardSet, collection: str, timeout: float) -> int:
    """Returns how the collection compares vectors; every shard that has it says the same."""
    question = indexer_pb2.DescribeCollectionRequest(collection=collection)
    found = await shards.fan_out(lambda stub, seconds: stub.DescribeCollection(question, timeout=seconds), timeout)
    found.raise_if_unanswered()
    for _, answer in sorted(found.answers.items()):
        return answer.collection.spec.vector.metric
    raise NotFoundError(f"no collection {collection!r}", field="collection")
