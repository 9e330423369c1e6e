"""How many points a segment may have: by what its graph takes."""

from __future__ import annotations

import numpy as np
import pytest

from services.indexer.opening import most_segment_rows
from services.indexer.settings import IndexerSettings
from tests.indexer.shard import point
from vitrine.v1 import indexer_pb2

MIB = 2**20
LINKS = 4 * (2 * 16 + 4)


def spec(dim):
    return indexer_pb2.CollectionSpec(vector=indexer_pb2.VectorSpec(dim=dim))


@pytest.mark.parametrize(
    ("walked", "dim"),
    [
        (0, 784),  # nothing known yet: as if graphs walked whole vectors
        (784, 784),  # they do
        (200, 300),  # half as many again, as more rows need more axes
        (32, 196),  # never under a quarter: a graph of whole vectors has four times the limit at most
        (600, 784),  # never more than the vectors have
    ],
)
def test_a_graph_fits_the_limit_with_the_dimensions_that_graphs_walk(walked, dim):
    settings = IndexerSettings(segment_megabytes=64)
    assert most_segment_rows(spec(784), settings, walked) == 64 * MIB // (4 * dim + LINKS)


def test_the_limit_in_points_holds_whatever_graphs_walk():
    settings = IndexerSettings(segment_megabytes=64, max_segment_points=5_000)
    assert most_segment_rows(spec(784), settings, 64) == 5_000


@pytest.mark.parametrize(("reduce_vectors", "segments"), [(True, 1), (False, 2)])
async def test_segments_merge_as_far_as_the_dimensions_of_their_graphs_allow(shard, reduce_vectors, segments):
    """897 rows of 256 dimensions fit a mebibyte, 2,621 on 32 axes."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(1_200, 10)) @ random.normal(size=(10, 256)) + 0.01 * random.normal(size=(1_200, 256))
    async with shard(
        segment_points=600, max_segment_points=0, segment_megabytes=1, reduce_vectors=reduce_vectors
    ) as running:
        await running.create(dim=256)
        for start in (0, 600):
            await running.store(
                [point(f"p{start + place}", "i", row) for place, row in enumerate(rows[start : start + 600])]
            )
            await running.until_fresh(0)
        assert (await running.compact()).segments_after == segments
