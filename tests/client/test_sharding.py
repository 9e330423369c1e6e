"""The sharding rule is part of the contract: these values may never change."""

from collections import Counter

import pytest

from vitrine.sharding import shard_of


@pytest.mark.parametrize(("product_id", "shards"), [("F0000", (1, 757)), ("F0001", (1, 813)), ("żółć", (0, 546))])
def test_known_answers(product_id, shards):
    # blake2b-64, big endian, computed with coreutils' b2sum -l 64
    assert (shard_of(product_id, 2), shard_of(product_id, 1000)) == shards


def test_shards_are_even():
    counts = Counter(shard_of(f"product-{number}", 8) for number in range(8000))
    assert set(counts) == set(range(8))
    assert min(counts.values()) > 850
