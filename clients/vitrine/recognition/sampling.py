"""Which products to try: a sample of those that have several pictures, the same one every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vitrine.collections.sample import Sample
from vitrine.collections.scanning import Page, Waiting, scan_all
from vitrine.ingest.retry import Backoff
from vitrine.shards import ShardSet


@dataclass
class Sampled:
    """What a scan of a collection found."""

    points: int = 0
    products: int = 0
    several: int = 0
    """Products with two pictures or more."""
    chosen: list[str] = field(default_factory=list)
    """Some of those."""


async def sample_several(
    shards: ShardSet,
    collection: str,
    n: int,
    seed: int,
    *,
    backoff: Backoff,
    waiting: Waiting,
    told: Callable[[int], None],
) -> Sampled:
    """Scans all keys of a collection and returns n products that have several pictures (fewer where there are fewer).

    Args:
        shards: All shards of the index.
        collection: What to sample.
        n: Products wanted, 1 or more.
        seed: Another one gives another sample.
        backoff: How long to try a shard that is away.
        waiting: Hears where one is.
        told: Hears how many points have been read.

    Raises:
        VitrineError: A shard refuses, or stayed away too long.
    """
    found = Sampled()
    sample = Sample(n, seed)
    # Keys come in order, and all pictures of a product are on one shard.
    last = [("", 0)] * len(shards)

    def take(shard: int, page: Page) -> None:
        product_id, pictures = last[shard]
        for point in page:
            if point.key.product_id != product_id:
                product_id, pictures = point.key.product_id, 0
                found.products += 1
            pictures += 1
            if pictures == 2:
                found.several += 1
                sample.offer((product_id, ""))
        last[shard] = product_id, pictures

    found.points = await scan_all(shards, collection, take, backoff=backoff, waiting=waiting, told=told)
    found.chosen = [product_id for product_id, _ in sample.chosen()]
    return found
