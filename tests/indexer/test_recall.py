"""Recall of the default search at a size where graphs matter."""

from __future__ import annotations

import numpy as np

from tests.indexer.shard import DIM, FINGERPRINT, point
from vitrine import vectors
from vitrine.v1 import indexer_pb2

POINTS, CLUSTERS, QUERIES, K = 30_000, 300, 200, 10


async def test_recall_at_10_is_99_percent_on_30000_clustered_points(shard):
    """Approximate against exact answers of the same shard, over gRPC, with segments built by the builder process."""
    dim = 2 * DIM
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(CLUSTERS, dim))
    stored = centres[rng.integers(CLUSTERS, size=POINTS)] + 0.4 * rng.normal(size=(POINTS, dim))
    asked = centres[rng.integers(CLUSTERS, size=QUERIES)] + 0.4 * rng.normal(size=(QUERIES, dim))
    async with shard(segment_points=8_192) as running:
        await running.create(dim=dim)
        await running.upsert([point(f"p{i}", "i", vector) for i, vector in enumerate(stored)], per_request=500)
        info = await running.until_segments(3)
        assert (info.points, info.products, info.fresh_points) == (POINTS, POINTS, POINTS - 3 * 8_192)

        async def search(exact):
            request = indexer_pb2.IndexerSearchRequest(
                collection="things",
                exact=exact,
                queries=[indexer_pb2.VectorQuery(vector=vectors.to_proto(each, FINGERPRINT), k=K) for each in asked],
            )
            answer = await running.stub.Search(request)
            stages = {timing.stage for timing in answer.timings}
            assert ("graph" in stages) is not exact
            return [[hit.key.product_id for hit in result.hits] for result in answer.results]

        fast, truth = await search(exact=False), await search(exact=True)
    assert all(len(hits) == K for hits in fast)
    recall = sum(len(set(a) & set(b)) for a, b in zip(fast, truth, strict=True)) / (K * QUERIES)
    print(f"recall@{K}: {recall:.4f}")
    assert recall >= 0.99
