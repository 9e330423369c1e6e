"""What is said to our index, and what its answers mean: rows of a data set are products named by their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.index.datasets import Dataset, K
from bench.index.recipe import Vectors
from vitrine import vectors
from vitrine.attributes import map_to_proto
from vitrine.filters import parse
from vitrine.v1 import common_pb2, indexer_pb2

COLLECTION = "bench"
FINGERPRINT = "b" * 64
IMAGE = "0"
SEARCH = "/vitrine.v1.Indexer/Search"
COUNT = "/vitrine.v1.Indexer/Count"
M = 16
EF_CONSTRUCTION = 200


def collection_spec(data: Dataset) -> indexer_pb2.CollectionSpec:
    """Returns the collection of a data set, on one shard."""
    metric = indexer_pb2.METRIC_COSINE if data.cosine else indexer_pb2.METRIC_L2
    return indexer_pb2.CollectionSpec(
        name=COLLECTION,
        vector=indexer_pb2.VectorSpec(dim=data.dim, metric=metric, fingerprint=FINGERPRINT),
        hnsw=indexer_pb2.HnswSpec(m=M, ef_construction=EF_CONSTRUCTION),
        shard_count=1,
        shard_index=0,
    )


def point(row: int, vector: Vectors, attributes: Mapping[str, int]) -> indexer_pb2.Point:
    """Returns a point; its vector has shape [dim]."""
    return indexer_pb2.Point(
        key=key(row), vector=vectors.to_proto(vector, FINGERPRINT), attributes=map_to_proto(attributes)
    )


def key(row: int) -> common_pb2.PointKey:
    """Returns the key of a row."""
    return common_pb2.PointKey(product_id=str(row), image_id=IMAGE)


def search_requests(
    queries: Vectors, *, ef: int, batch: int = 1, condition: str = "", k: int = K, min_generation: int = 0
) -> list[bytes]:
    """Returns requests for queries [q, dim], `batch` queries in each; `condition` is a filter as people write it."""
    tree = parse(condition) if condition else None
    return [
        indexer_pb2.IndexerSearchRequest(
            collection=COLLECTION,
            queries=[
                indexer_pb2.VectorQuery(vector=vectors.to_proto(query, FINGERPRINT), k=k, filter=tree)
                for query in queries[start : start + batch]
            ],
            ef=ef,
            min_generation=min_generation,
        ).SerializeToString()
        for start in range(0, len(queries), batch)
    ]


def found_rows(replies: Iterable[bytes]) -> list[list[int]]:
    """Returns the rows found for each query, best first."""
    return [
        [int(hit.key.product_id) for hit in result.hits]
        for reply in replies
        for result in indexer_pb2.IndexerSearchResponse.FromString(reply).results
    ]


def count_request() -> bytes:
    """Returns a call that costs the service next to nothing."""
    return indexer_pb2.CountRequest(collection=COLLECTION).SerializeToString()
