"""How many points a segment may have: by what its graph takes."""

from __future__ import annotations

import pytest

from services.indexer.opening import most_segment_rows
from services.indexer.settings import IndexerSettings
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
